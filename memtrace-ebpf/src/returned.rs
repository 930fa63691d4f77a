//! The return of an allocation function: enter what was drawn into the books.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user, programs::RetProbeContext};
use memtrace_common::{Counter, FunctionKind, InFlight, InFlightKey};

use crate::{arch, books, control, counters::count, in_flight, nested, task};

/// Handles the return of an allocation function.
#[inline(always)]
pub(crate) fn allocation(ctx: &RetProbeContext) {
    count(Counter::ReturnHits);
    // SAFETY: the registers are the context of this program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let stack_pointer = arch::entry_stack_pointer_of(&arch::returned_to(regs));
    if control::config().return_always_fires != 0 && !in_flight::may_hold(stack_pointer) {
        return;
    }
    let pid_tgid = task::pid_tgid();
    let key = InFlightKey { pid_tgid, stack_pointer };
    let Some(call) = in_flight::get(&key).copied() else { return };
    // The books were closed while the call ran. Its block may be one that was freed unseen since then, so
    // it is not entered; the call stays in the table, where userspace counts it as unfinished. A `realloc`
    // goes on, because the old block's fate is decided by now.
    let closed = !control::running();
    if closed && call.old.present == 0 {
        return;
    }
    if !in_flight::remove(&key) {
        return;
    }
    if call.outermost != 0 {
        nested::leave(pid_tgid);
    }
    let address = match result(ctx, &call) {
        Ok(address) => address,
        Err(()) => {
            if call.threshold != 0 {
                count(Counter::ResultUnreadable);
            }
            return;
        }
    };
    if call.old.present != 0 {
        // realloc to size 0 frees and returns null (glibc), or returns an object without bytes; a null
        // pointer for any other size means that it failed and the old block is as it was (C17 7.22.3.5).
        if address != 0 || call.size == 0 {
            books::freed(pid_tgid, call.old_address, &call.old);
        } else {
            books::put_back(pid_tgid, call.old_address, &call.old);
        }
    }
    if call.threshold == 0 || closed {
        return;
    }
    if address == 0 {
        count(Counter::AllocationsFailed);
        return;
    }
    books::allocated(ctx, pid_tgid, address, &call);
}

/// The address that the call has returned, 0 where it failed.
#[inline(always)]
fn result(ctx: &RetProbeContext, call: &InFlight) -> Result<u64, ()> {
    let returned: u64 = ctx.ret();
    if call.kind != FunctionKind::PosixMemalign as u32 {
        return Ok(returned);
    }
    // An int: 0, or an error number.
    if returned as u32 != 0 {
        return Ok(0);
    }
    // SAFETY: a read of user memory through the helper, which checks the address.
    unsafe { bpf_probe_read_user(call.result_pointer as *const u64) }.map_err(|_| ())
}
