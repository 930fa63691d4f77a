//! What goes to userspace through the ring buffer.

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm,
        generated::{bpf_ktime_get_ns, bpf_send_signal},
    },
    macros::map,
    maps::{HashMap, RingBuf},
};
use memtrace_common::{Block, BlockEvent, Counter, ImageChanged, NewStack, WATCH_STOP, python::PythonEnd};

use crate::{control, counters::count, diagnostics, task};

/// Userspace sets the size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Processes of which userspace wants to know when their program or list of libraries changes, and what else is to be
/// done then ([`WATCH_STOP`], [`WATCH_CHILDREN`](memtrace_common::WATCH_CHILDREN)).
#[map]
pub(crate) static WATCHED: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);

/// `SIGSTOP` on every architecture that memtrace knows (asm-generic/signal.h).
const SIGSTOP: u32 = 19;

/// A stack without its Python part: most have none, and it takes more than half of the room.
type NativeStack = [u8; core::mem::offset_of!(NewStack, python)];

/// Sends a stack. Says whether there was room.
#[inline(always)]
pub(crate) fn send(stack: &NewStack) -> bool {
    if stack.python.end == PythonEnd::NoPython as u32 {
        // SAFETY: the first bytes of the record, all of which are initialised.
        let native = unsafe { &*(&raw const *stack).cast::<NativeStack>() };
        return EVENTS.output::<NativeStack>(native, 0).is_ok();
    }
    EVENTS.output::<NewStack>(stack, 0).is_ok()
}

/// Tells userspace what happened to a recorded allocation, if it wants to know.
#[inline(always)]
pub(crate) fn block(kind: u32, pid_tgid: u64, address: u64, block: &Block) {
    if control::config().events != 0 && !send_block(kind, pid_tgid, address, block) {
        count(Counter::EventsLost);
        diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::EventsLost));
    }
}

/// Says whether there was room. A function of its own, so that its variables do not add to the caller's 512 bytes of
/// stack.
#[inline(never)]
fn send_block(kind: u32, pid_tgid: u64, address: u64, block: &Block) -> bool {
    let event = BlockEvent {
        kind,
        tgid: task::tgid(pid_tgid),
        tid: pid_tgid as u32,
        reserved: 0,
        // SAFETY: the helper takes nothing and returns a number.
        time_ns: unsafe { bpf_ktime_get_ns() },
        address,
        block: *block,
    };
    EVENTS.output::<BlockEvent>(&event, 0).is_ok()
}

/// Tells userspace that this process may have other code from here on, and has it wait if memtrace has
/// started it. Says whether it is watched.
#[inline(always)]
pub(crate) fn image_changed(kind: u32) -> bool {
    let tgid = task::tgid(task::pid_tgid());
    // SAFETY: the value is copied at once.
    let Some(watch) = (unsafe { WATCHED.get(&tgid) }).copied() else { return false };
    // SAFETY: the helper takes nothing and returns a number.
    send_image_changed(kind, tgid, 0, unsafe { bpf_ktime_get_ns() }, watch);
    true
}

/// Tells userspace of a process's code, and stops the process if `watch` says so.
#[inline(never)]
pub(crate) fn send_image_changed(kind: u32, tgid: u32, parent: u32, time_ns: u64, watch: u32) {
    diagnostics::say(|| diagnostics::image_changed(tgid, kind));
    let comm = bpf_get_current_comm().unwrap_or_default();
    let event = ImageChanged { kind, tgid, time_ns, parent, reserved: 0, comm };
    let Some(mut place) = EVENTS.reserve::<ImageChanged>(0) else {
        // The process must not wait for an answer that nobody will give.
        count(Counter::ImageChangesLost);
        diagnostics::say(|| diagnostics::no_room(u64::from(tgid) << 32, Counter::ImageChangesLost));
        return;
    };
    place.write(event);
    // When the books are closed for good, nobody may be there to let it go on.
    if watch & WATCH_STOP != 0 && control::running() {
        // Sent before userspace can know: its SIGCONT takes back a stop that has not taken place yet.
        // SAFETY: the helper takes a signal number.
        unsafe { bpf_send_signal(SIGSTOP) };
    }
    place.submit(0);
}
