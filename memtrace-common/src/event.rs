//! What the kernel program sends through the ring buffer. Every record begins with its kind.

use crate::{Block, MAX_FRAMES, python::PythonFrames};

/// Kind of [`NewStack`].
pub const EVENT_NEW_STACK: u32 = 1;
/// Kind of [`ImageChanged`]: the dynamic loader is at work.
pub const EVENT_LOADER: u32 = 2;
/// Kind of [`ImageChanged`]: a new program.
pub const EVENT_EXEC: u32 = 3;

/// Kind of [`ImageChanged`]: a process that a watched one has created runs for the first time, and is watched, too.
pub const EVENT_FORK: u32 = 7;
/// Kind of [`ImageChanged`]: a process that is not watched has executed a new program.
pub const EVENT_APPEARED: u32 = 8;

/// Kind of [`BlockEvent`]: an allocation was recorded.
pub const EVENT_ALLOCATED: u32 = 4;
/// Kind of [`BlockEvent`]: a recorded allocation was freed.
pub const EVENT_FREED: u32 = 5;

/// Something happened to a recorded allocation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BlockEvent {
    /// [`EVENT_ALLOCATED`] or [`EVENT_FREED`].
    pub kind: u32,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// The thread that did it.
    pub tid: u32,
    /// Always 0: the record has no hidden padding.
    pub reserved: u32,
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The block's address.
    pub address: u64,
    /// The block.
    pub block: Block,
}

/// A stack that was seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NewStack {
    /// [`EVENT_NEW_STACK`].
    pub kind: u32,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// The stack's identity: a 64-bit hash of the process and all its frames.
    pub stack_id: u64,
    /// How many of `frames` are in use.
    pub len: u32,
    /// [`StackEnd`](crate::StackEnd) as a number.
    pub end: u32,
    /// The thread whose stack it is, where threads are told apart; otherwise 0.
    pub tid: u32,
    /// Always 0: the record has no hidden padding.
    pub reserved: u32,
    /// Return addresses, the innermost first: the first is where the allocation function returns to. Where a
    /// signal interrupted the code, one more than the address of the next instruction. So one less than each
    /// is always in the instruction that the frame was at.
    pub frames: [u64; MAX_FRAMES],
    /// The frames of the Python interpreter. Where there are none, the record ends before this field.
    pub python: PythonFrames,
}

/// A process's code is, or may be, another one from here on. A watched process has executed a new program
/// ([`EVENT_EXEC`]), or its dynamic loader has changed, or is about to change, the list of loaded objects
/// ([`EVENT_LOADER`]); or there is a new process ([`EVENT_FORK`], [`EVENT_APPEARED`]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ImageChanged {
    /// Which of these.
    pub kind: u32,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Of [`EVENT_FORK`]: the process that has created it. Otherwise 0.
    pub parent: u32,
    /// Always 0: the record has no hidden padding.
    pub reserved: u32,
    /// The name of the thread that it happened in, up to a zero byte (`TASK_COMM_LEN`, include/linux/sched.h).
    pub comm: [u8; 16],
}

/// Bit in the table of watched processes: a process is stopped (`SIGSTOP`) with each event until it is let go on.
/// Only for processes that memtrace has started, and their descendants.
pub const WATCH_STOP: u32 = 1;
/// Bit in the table of watched processes: the processes that it creates are watched, too.
pub const WATCH_CHILDREN: u32 = 2;

/// A process that a watched one has created, and that has not run yet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Newborn {
    /// When it was created: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The process that has created it, as memtrace's PID namespace numbers it.
    pub parent: u32,
    /// How that one is watched: its bits in the table of watched processes.
    pub watch: u32,
    /// 1 where it shares its creator's memory until it executes a program (vfork(2), posix_spawn(3)).
    pub shares_memory: u32,
    /// Always 0: the record has no hidden padding.
    pub reserved: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<NewStack>(), 32 + MAX_FRAMES * 8 + size_of::<PythonFrames>());
        assert_eq!(size_of::<ImageChanged>(), 40);
        assert_eq!(size_of::<Newborn>(), 24);
        assert_eq!(size_of::<BlockEvent>(), 32 + size_of::<Block>());
    }
}
