//! Giving a stack an identity, and announcing it.

use aya_ebpf::{helpers::generated::bpf_get_smp_processor_id, macros::map, maps::Array};
use memtrace_common::{Counter, EVENT_NEW_STACK, InFlight, STACK_NOT_RECORDED};

use crate::{
    arch, atomic, books, capture, control,
    counters::{self, count, count_walk},
    diagnostics, events, python, task,
    unwind::{Walk, mix},
};

/// How many programs on one CPU can be in the middle of a walk: one that runs, and others that it has
/// preempted.
const SCRATCH_PER_CPU: u32 = 8;

/// A place for a walk; the 512 bytes of a BPF stack are too few.
#[repr(C)]
struct Scratch {
    taken: u64,
    walk: Walk,
}

/// Userspace sizes it to the number of CPUs times [`SCRATCH_PER_CPU`].
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(SCRATCH_PER_CPU, 0);

/// Walks the stack of the thread that has allocated, from `caller`: where the allocation function returns to, or
/// where a probe in the middle of one is. Announces it if it is new, and returns its id.
#[inline(always)]
pub(crate) fn record(caller: &arch::Registers, pid_tgid: u64, call: &InFlight) -> u64 {
    // SAFETY: the helper takes nothing and returns a number.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
    let mut place = 0;
    while place < SCRATCH_PER_CPU {
        if let Some(scratch) = SCRATCH.get_ptr_mut(first + place) {
            // SAFETY: a pointer to a map value; taken by nobody else from here to the release.
            unsafe {
                if atomic::take(&raw mut (*scratch).taken) {
                    let stack_id = walk(caller, pid_tgid, call, &mut (*scratch).walk);
                    (&raw mut (*scratch).taken).write_volatile(0);
                    return stack_id;
                }
            }
        }
        place += 1;
    }
    count(Counter::ScratchBusy);
    diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::ScratchBusy));
    STACK_NOT_RECORDED
}

/// The identity of a stack is a hash of the process (and the thread, if that is asked for), the frames, the allocation function and how the walk has ended,
/// so that a stack that is whole and one that is not are never one.
#[inline(always)]
fn walk(caller: &arch::Registers, pid_tgid: u64, call: &InFlight, walk: &mut Walk) -> u64 {
    walk.begin(task::tgid(pid_tgid), caller);
    walk.run();
    count_walk(walk.stack.end);
    capture::send(caller, &walk.stack);
    // One thread's stack has that thread's id, and is nobody else's.
    let thread = if control::config().threads != 0 { pid_tgid as u32 } else { 0 };
    walk.stack.tid = thread;
    let hash = if thread != 0 { mix(walk.hash, thread.into()) } else { walk.hash };
    let hash = mix(hash, u64::from(call.function) << 32 | u64::from(walk.stack.end));
    let hash = python::walk(pid_tgid, &mut walk.stack.python, &mut walk.python, hash);
    counters::add(Counter::FramesWalked, walk.stack.len + walk.stack.python.len);
    // The id that stands for "not recorded" must not be a real one.
    walk.stack.stack_id = if hash == STACK_NOT_RECORDED { 1 } else { hash };
    announce(walk, pid_tgid, call.function);
    walk.stack.stack_id
}

/// Sends the frames to userspace unless that has been done.
#[inline(always)]
fn announce(walk: &mut Walk, pid_tgid: u64, function: u32) {
    let Some(totals) = books::totals_of(walk.stack.stack_id, pid_tgid, function) else { return };
    // SAFETY: a pointer to a map value. Two CPUs may announce the same stack at once; userspace takes the
    // second for what it is.
    if unsafe { (&raw const (*totals).announced).read_volatile() } != 0 {
        return;
    }
    walk.stack.kind = EVENT_NEW_STACK;
    if events::send(&walk.stack) {
        // SAFETY: as above.
        unsafe { (&raw mut (*totals).announced).write_volatile(1) };
    } else {
        count(Counter::RingFull);
        diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::RingFull));
    }
}
