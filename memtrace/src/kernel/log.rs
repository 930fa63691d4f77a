//! The kernel program's diagnostics, which come through aya-log.

use anyhow::Context;
use aya::{Ebpf, maps::RingBuf};
use aya_log::EbpfLogger;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::readable::readable;

/// The map that aya-log's kernel side writes to.
const MAP: &str = "AYA_LOGS";

/// Forwards what the kernel program logs to this process's log.
///
/// aya-log drops messages without a count when they come faster than they are read, so they are no
/// record of what happened; the counters and the profile are.
#[derive(Debug)]
pub struct KernelLog {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl KernelLog {
    /// Begins to forward. What was logged before (of the measurement of prices) is left out.
    ///
    /// # Errors
    /// When the log's ring buffer cannot be read.
    pub fn forward(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf.map_mut(MAP).with_context(|| format!("the kernel program has no map {MAP}"))?;
        let mut old = RingBuf::try_from(map)?;
        while old.next().is_some() {}
        drop(old);

        let mut logger = readable(EbpfLogger::init(ebpf)?)?;
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    guard = logger.readable_mut() => {
                        let Ok(mut guard) = guard else { return };
                        guard.get_inner_mut().flush();
                        guard.clear_ready();
                    }
                    _ = &mut stopped => return logger.get_mut().flush(),
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Forwards what is left, and ends.
    pub async fn finish(self) {
        // A task that has ended already has nothing left.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
