//! What holds a probe in place: a descriptor, whose closing takes it off.

use std::os::fd::OwnedFd;

use aya::programs::uprobe::UProbeLink;

use crate::kernel::sys::PerfProbe;

/// A held probe, or many in one.
#[derive(Debug)]
pub(super) enum Link {
    /// One probe as a perf event.
    Perf(#[expect(dead_code, reason = "held for its drop")] UProbeLink),
    /// Many probes of one file.
    Multi(#[expect(dead_code, reason = "held for its drop")] OwnedFd),
    /// One probe as a perf event, which has a semaphore raised.
    WithSemaphore(#[expect(dead_code, reason = "held for its drop")] PerfProbe),
}

/// Threads that wait side by side; they use no CPU time meanwhile.
const THREADS: usize = 32;

/// Takes the probes off.
///
/// The kernel waits for a grace period at each link (about 30 ms), so it is done on several threads, whose
/// waits run side by side.
pub(super) fn close(mut links: Vec<Link>) {
    let chunk = links.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        while !links.is_empty() {
            let part = links.split_off(links.len().saturating_sub(chunk));
            scope.spawn(move || drop(part));
        }
    });
}
