//! What is said about single events, for people: `memtrace -vv` (aya-log).
//!
//! Only sampled calls and rare events get here, never a call that was not drawn. The level is read-only
//! data that userspace sets before loading, so without -vv the verifier sees that the branch in [`say`] is
//! never taken, and removes what it guards. The messages go through a ring buffer of aya-log's own
//! (128 KiB): when it is full they are dropped without a count, so they explain, but prove nothing. What
//! was lost is in the [counters](crate::counters).
//!
//! Each message is a function of its own that is not inlined, because the code of one takes more of the
//! 512 bytes of stack than its caller could spare.

use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use memtrace_common::{Counter, EVENT_FORK, EVENT_LOADER};

use crate::task;

/// Calls `message` where the level asks for it.
#[inline(always)]
pub(crate) fn say(message: impl FnOnce()) {
    if level_enabled(Level::Debug) {
        message();
    }
}

/// aya-log takes a program's context, but does nothing with it.
const CONTEXT: () = ();

/// A sampled allocation was entered into the books.
#[inline(never)]
pub(crate) fn recorded(pid_tgid: u64, address: u64, size: u64, stack_id: u64) {
    let (pid, tid) = (task::tgid(pid_tgid), pid_tgid as u32);
    debug!(CONTEXT, "{}/{} recorded {} bytes at 0x{:x}, stack {:x}", pid, tid, size, address, stack_id);
}

/// A recorded allocation was freed, or resized, which frees it.
#[inline(never)]
pub(crate) fn freed(pid_tgid: u64, address: u64, size: u64, stack_id: u64) {
    let (pid, tid) = (task::tgid(pid_tgid), pid_tgid as u32);
    debug!(CONTEXT, "{}/{} freed {} bytes at 0x{:x}, stack {:x}", pid, tid, size, address, stack_id);
}

/// An address was handed out again whose free was not seen.
#[inline(never)]
pub(crate) fn missed_free(pid_tgid: u64, address: u64, stack_id: u64) {
    let (pid, tid) = (task::tgid(pid_tgid), pid_tgid as u32);
    debug!(
        CONTEXT,
        "{}/{} was given 0x{:x} again, its free was missed, stack {:x}", pid, tid, address, stack_id
    );
}

/// A call at this stack pointer was sampled but has never returned.
#[inline(never)]
pub(crate) fn missed_return(pid_tgid: u64, stack_pointer: u64) {
    let (pid, tid) = (task::tgid(pid_tgid), pid_tgid as u32);
    debug!(CONTEXT, "{}/{} never returned from the call at stack pointer 0x{:x}", pid, tid, stack_pointer);
}

/// Something had no room.
#[inline(never)]
pub(crate) fn no_room(pid_tgid: u64, what: Counter) {
    let (pid, tid) = (task::tgid(pid_tgid), pid_tgid as u32);
    match what {
        Counter::InFlightFull => debug!(CONTEXT, "{}/{} the table of calls under way is full", pid, tid),
        Counter::LiveFull => debug!(CONTEXT, "{}/{} the live table is full", pid, tid),
        Counter::StacksFull => debug!(CONTEXT, "{}/{} the stack table is full", pid, tid),
        Counter::RingFull | Counter::EventsLost | Counter::ImageChangesLost => {
            debug!(CONTEXT, "{}/{} the ring buffer is full", pid, tid)
        }
        _ => debug!(CONTEXT, "{}/{} no scratch space for a stack is free", pid, tid),
    }
}

/// The code of a watched process may be another one from here on.
#[inline(never)]
pub(crate) fn image_changed(tgid: u32, kind: u32) {
    match kind {
        EVENT_LOADER => debug!(CONTEXT, "{} loads or unloads libraries", tgid),
        EVENT_FORK => debug!(CONTEXT, "{} is a new process", tgid),
        _ => debug!(CONTEXT, "{} has executed a program", tgid),
    }
}
