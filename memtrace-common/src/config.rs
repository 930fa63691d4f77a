//! What userspace tells the kernel program before it is loaded.

/// Settings that are fixed for one load of the kernel program. They live in read-only data, so the
/// verifier knows their values and removes the branches that are not taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Device number (as `struct stat` has it) of memtrace's own PID namespace, or 0 when it is the
    /// initial one. Where set, process ids are translated into that namespace (`bpf_get_ns_current_pid_tgid`),
    /// so that both sides of the kernel boundary mean the same process by a number.
    pub pid_namespace_dev: u64,
    /// Inode of that namespace, or 0.
    pub pid_namespace_ino: u64,
    /// A random number, from which those for the [draws](crate::sampling::random) are made.
    pub seed: u64,
    /// 1 where a return probe fires for calls that were not sampled, too. The entry then has to remove
    /// what an earlier call that never returned (an exception, a `longjmp`) may have left behind.
    pub return_always_fires: u32,
    /// 1 where every recorded allocation and free is sent to userspace.
    pub events: u32,
    /// How many frames of a stack are kept, the innermost ones; at most [`MAX_FRAMES`](crate::MAX_FRAMES).
    pub max_frames: u32,
    /// 1 where the kernel has the helper `bpf_loop` (Linux 5.17).
    pub loop_helper: u32,
    /// See [`variance_shift`](crate::sampling::variance_shift).
    pub variance_shift: u32,
    /// 1 where every walk of a stack is sent to userspace with a copy of that stack ([`Capture`](crate::Capture)).
    pub captures: u32,
    /// 1 where children of watched processes are followed: [`offsets`](Self::offsets) are known.
    pub children: u32,
    /// 1 where userspace wants to know of every process that executes a program.
    pub appearances: u32,
    /// Where the numbers of a task stand.
    pub offsets: TaskOffsets,
    /// 1 where stacks of different threads are different.
    pub threads: u32,
    /// Always 0: no hidden padding.
    pub reserved: u32,
}

/// Where the numbers of a task stand in the kernel's structures: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskOffsets {
    /// `tgid` in `struct task_struct` (include/linux/sched.h).
    pub tgid: u32,
    /// `thread_pid` in `struct task_struct`.
    pub thread_pid: u32,
    /// `level` in `struct pid` (include/linux/pid.h).
    pub level: u32,
    /// `numbers` in `struct pid`: an array of `struct upid`, one for each PID namespace from the initial one down.
    pub numbers: u32,
    /// Size of `struct upid`, whose first field is the number.
    pub upid: u32,
    /// `ns` in `struct upid`.
    pub upid_namespace: u32,
    /// `ns.inum` in `struct pid_namespace` (include/linux/pid_namespace.h).
    pub namespace_inum: u32,
    /// Always 0: no hidden padding.
    pub reserved: u32,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
unsafe impl aya::Pod for Config {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_both_sides_expect() {
        assert_eq!(size_of::<Config>(), 96);
    }
}
