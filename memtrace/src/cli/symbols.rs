//! The options that say where names come from: the same for `record` and `symbolize`.

use std::{future::Future, path::PathBuf, pin::pin, sync::Arc};

use anyhow::Result;
use memtrace::symbolize::{
    Options,
    debuginfod::{Debuginfod, Settings},
};

/// Where names come from.
#[derive(Debug, clap::Args)]
pub(super) struct SymbolArgs {
    /// Ask the servers in DEBUGINFOD_URLS for debug information that is not on this machine; they learn which
    /// programs run here
    #[arg(long)]
    debuginfod: bool,

    /// Look for debug files also in this directory, by build-id and debug link as in /usr/lib/debug; may be
    /// given several times
    #[arg(long = "debug-dir", value_name = "DIR")]
    debug_dirs: Vec<PathBuf>,
}

impl SymbolArgs {
    /// The options of the symbolizer.
    ///
    /// # Errors
    /// When there are no servers to be asked, or the environment says nonsense about them.
    pub(super) fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        options.debug_directories.splice(0..0, self.debug_dirs.iter().cloned());
        if self.debuginfod {
            options.debuginfod = Some(Arc::new(Debuginfod::new(Settings::from_env()?)));
        }
        Ok(options)
    }
}

/// Waits for `work`, which may be asking servers. The first `interrupt` ends the asking, and the work goes on
/// with what is known; at the second, memtrace exits.
pub(super) async fn interruptible<T, I>(
    work: impl Future<Output = T>,
    servers: &Debuginfod,
    mut interrupt: impl AsyncFnMut() -> I,
) -> T {
    let mut work = pin!(work);
    let mut interrupted = false;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = interrupt() => {
                if interrupted {
                    std::process::exit(128 + libc::SIGINT);
                }
                interrupted = true;
                servers.cancel();
                eprintln!("memtrace: no more debug information is asked for; interrupt again to exit at once");
            }
        }
    }
}
