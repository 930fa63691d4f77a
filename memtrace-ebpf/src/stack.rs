//! Walking a stack, giving it an identity, and announcing it.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_probe_read_user, generated::bpf_get_smp_processor_id},
    macros::map,
    maps::{Array, HashMap},
    programs::RetProbeContext,
};
use memtrace_common::{
    Counter, EVENT_NEW_STACK, MAX_FRAMES, MAX_WRAPPER_ROWS, NewStack, STACK_NOT_RECORDED, StackEnd,
    WrapperRow, Wrappers,
};

use crate::{arch, atomic, books, counters::count, diagnostics, events, python, task};

/// How many programs on one CPU can be in the middle of a walk: one that runs, and others that it has
/// preempted.
const SCRATCH_PER_CPU: u32 = 8;

/// A place to write a stack to; the 512 bytes of a BPF stack are too few.
#[repr(C)]
struct Scratch {
    taken: u64,
    stack: NewStack,
}

/// Userspace sizes it to the number of CPUs times [`SCRATCH_PER_CPU`].
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(SCRATCH_PER_CPU, 0);

/// Walks the stack of the thread that returns from an allocation function, announces it if it is new,
/// and returns its id.
#[inline(always)]
pub(crate) fn record(ctx: &RetProbeContext, pid_tgid: u64) -> u64 {
    // SAFETY: the helper takes nothing and returns a number.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
    let mut place = 0;
    while place < SCRATCH_PER_CPU {
        if let Some(scratch) = SCRATCH.get_ptr_mut(first + place) {
            // SAFETY: a pointer to a map value; taken by nobody else from here to the release.
            unsafe {
                if atomic::take(&raw mut (*scratch).taken) {
                    let stack_id = walk(ctx, pid_tgid, &mut (*scratch).stack);
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

/// One step of the hash that is a stack's identity: multiply and fold, as in MurmurHash3's finalizer.
#[inline(always)]
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    let hash = (hash ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 32)
}

/// By process: its wrappers.
#[map]
static WRAPPERS: HashMap<u32, Wrappers> = HashMap::with_max_entries(1024, 0);

/// How many wrappers can call each other: `operator new[](size_t, nothrow)` calls that without nothrow, and
/// so on down to `malloc`.
const WRAPPERS_DEEP: u32 = 4;

/// A place on the stack: where the code goes on, and the registers there.
struct Cursor {
    address: u64,
    stack_pointer: u64,
    frame_pointer: u64,
}

/// Goes up to the first caller that is not a wrapper.
#[inline(always)]
fn leave_wrappers(cursor: &mut Cursor, tgid: u32) {
    // SAFETY: userspace replaces the value as a whole; a mixture of old and new rows could only end the walk.
    let Some(wrappers) = (unsafe { WRAPPERS.get(&tgid) }) else { return };
    let mut depth = 0;
    while depth < WRAPPERS_DEEP {
        let Some(row) = find(wrappers, cursor.address.wrapping_sub(1)) else { return };
        let frame = cursor.stack_pointer.wrapping_add(u64::from(row.frame_size));
        // SAFETY: reads of user memory through the helper, which checks the address.
        let Ok(caller) = (unsafe { bpf_probe_read_user((frame.wrapping_sub(8)) as *const u64) }) else {
            return;
        };
        if row.frame_pointer_below != 0 {
            let saved = frame.wrapping_sub(u64::from(row.frame_pointer_below));
            // SAFETY: as above.
            cursor.frame_pointer = unsafe { bpf_probe_read_user(saved as *const u64) }.unwrap_or(0);
        }
        cursor.stack_pointer = frame;
        cursor.address = caller;
        depth += 1;
    }
}

/// The row for an address.
#[inline(always)]
fn find(wrappers: &Wrappers, address: u64) -> Option<WrapperRow> {
    let len = wrappers.len as usize;
    let mut index = 0;
    while index < MAX_WRAPPER_ROWS {
        if index >= len {
            break;
        }
        let row = &wrappers.rows[index];
        if row.start <= address && address < row.end {
            return Some(*row);
        }
        index += 1;
    }
    None
}

/// Follows the frame pointers. The direct caller is known without them: the function returns to it.
#[inline(always)]
fn walk(ctx: &RetProbeContext, pid_tgid: u64, stack: &mut NewStack) -> u64 {
    // SAFETY: the registers are the context of this program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let (entry_stack_pointer, caller) = arch::returned_to(regs);
    let mut cursor = Cursor {
        address: caller,
        // The return address is off the stack.
        stack_pointer: entry_stack_pointer.wrapping_add(8),
        frame_pointer: arch::frame_pointer(regs),
    };
    let tgid = task::tgid(pid_tgid);
    leave_wrappers(&mut cursor, tgid);
    let mut frame_pointer = cursor.frame_pointer;
    let mut below = cursor.stack_pointer.wrapping_sub(8);
    let mut hash = mix(u64::from(tgid), cursor.address);
    let mut end = StackEnd::TooDeep;
    let mut len = 1;
    stack.frames[0] = cursor.address;
    stack.python.set_stack_pointer(0, cursor.stack_pointer);
    while len < MAX_FRAMES {
        if frame_pointer == 0 {
            end = StackEnd::Root;
            break;
        }
        // Frames lie one above the other; what does not is no frame pointer.
        if frame_pointer <= below || frame_pointer & 7 != 0 {
            end = StackEnd::NoFramePointer;
            break;
        }
        // SAFETY: a read of user memory through the helper, which checks the address.
        let Ok([next, return_address]) = (unsafe { bpf_probe_read_user(frame_pointer as *const [u64; 2]) })
        else {
            end = StackEnd::Unreadable;
            break;
        };
        if return_address == 0 {
            end = StackEnd::Root;
            break;
        }
        stack.frames[len] = return_address;
        stack.python.set_stack_pointer(len, frame_pointer.wrapping_add(16));
        hash = mix(hash, return_address);
        len += 1;
        below = frame_pointer;
        frame_pointer = next;
    }
    hash = python::walk(pid_tgid, &mut stack.python, hash);
    // The id that stands for "not recorded" must not be a real one.
    let stack_id = if hash == STACK_NOT_RECORDED { 1 } else { hash };
    announce(stack, pid_tgid, stack_id, len as u32, end);
    stack_id
}

/// Sends the frames to userspace unless that has been done.
#[inline(always)]
fn announce(stack: &mut NewStack, pid_tgid: u64, stack_id: u64, len: u32, end: StackEnd) {
    let Some(totals) = books::totals_of(stack_id, pid_tgid) else { return };
    // SAFETY: a pointer to a map value. Two CPUs may announce the same stack at once; userspace takes the
    // second for what it is.
    if unsafe { (&raw const (*totals).announced).read_volatile() } != 0 {
        return;
    }
    stack.kind = EVENT_NEW_STACK;
    stack.tgid = task::tgid(pid_tgid);
    stack.stack_id = stack_id;
    stack.len = len;
    stack.end = end as u32;
    if matches!(end, StackEnd::TooDeep) {
        count(Counter::StackTruncated);
    }
    if events::send(stack) {
        // SAFETY: as above.
        unsafe { (&raw mut (*totals).announced).write_volatile(1) };
    } else {
        count(Counter::RingFull);
        diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::RingFull));
    }
}
