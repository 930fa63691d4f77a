//! What userspace sets: before loading the [`Config`], while running the switch.

use aya_ebpf::{Global, macros::map, maps::Array};
use memtrace_common::{Config, TaskOffsets};

#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config {
    pid_namespace_dev: 0,
    pid_namespace_ino: 0,
    seed: 0,
    return_always_fires: 0,
    events: 0,
    max_frames: 0,
    loop_helper: 0,
    variance_shift: 0,
    captures: 0,
    children: 0,
    appearances: 0,
    offsets: TaskOffsets {
        tgid: 0,
        thread_pid: 0,
        level: 0,
        numbers: 0,
        upid: 0,
        upid_namespace: 0,
        namespace_inum: 0,
        reserved: 0,
    },
    threads: 0,
    reserved: 0,
});

/// One slot: 1 while the books are open. All probes are in place before it is set and taken down after
/// it is cleared, so that allocations and frees are seen from one instant to another, and not the one
/// without the other.
#[map]
static RUNNING: Array<u64> = Array::with_max_entries(1, 0);

/// The settings of this load.
#[inline(always)]
pub(crate) fn config() -> Config {
    CONFIG.load()
}

/// Whether the books are open.
#[inline(always)]
pub(crate) fn running() -> bool {
    matches!(RUNNING.get(0), Some(1))
}
