//! Noticing that the probes are on the wrong functions.

use std::time::Duration;

use procfs::process::Process;

use crate::kernel::Counters;

/// How long no probe may be hit before that means anything.
const PATIENCE: Duration = Duration::from_secs(4);

/// How many bytes the processes must have grown by meanwhile.
const GROWTH: u64 = 4 << 20;

/// Watches whether processes grow while no probe is hit.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Their resident sets at the first look, in bytes.
    first: Option<u64>,
    /// By how much it had grown at the last one, if that means something.
    growth: u64,
}

impl Silence {
    /// Looks at the processes, `elapsed` after the recording has begun. Returns, once, by how many bytes they have
    /// grown although no allocation was seen.
    pub(super) fn look(
        &mut self,
        pids: impl Iterator<Item = u32>,
        elapsed: Duration,
        counters: &Counters,
    ) -> Option<u64> {
        if counters.allocation_calls() > 0 {
            return None;
        }
        let now = pids.filter_map(resident).sum::<u64>();
        let grown = now.saturating_sub(*self.first.get_or_insert(now));
        if elapsed < PATIENCE || grown < GROWTH {
            return None;
        }
        let was_told = std::mem::replace(&mut self.growth, grown) > 0;
        (!was_told).then_some(grown)
    }

    /// By how many bytes the processes had grown at the last look that saw no allocation, if that means something.
    pub(super) fn growth(&self) -> u64 {
        self.growth
    }
}

/// The resident set of a process in bytes (proc(5), `statm`).
fn resident(pid: u32) -> Option<u64> {
    let pages = Process::new(pid as i32).ok()?.statm().ok()?.resident;
    Some(pages * procfs::page_size())
}
