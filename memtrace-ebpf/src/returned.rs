//! The return of an allocation function: enter what was drawn into the books.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::bpf_probe_read_user,
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{Counter, InFlight, InFlightKey, sampling};

use crate::{arch, books, control, counters::count, in_flight, nested, task};

/// Handles the return of an allocation function by a return probe.
#[inline(always)]
pub(crate) fn allocation(ctx: &RetProbeContext) {
    count(Counter::ReturnHits);
    // SAFETY: the registers are the context of this program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let caller = arch::returned_to(regs);
    let Some(key) = key(&caller) else { return };
    if let Some(call) = in_flight::get(&key) {
        finish(&key, call, &caller, ctx.ret());
    }
}

/// Handles a `ret` instruction that may be the end of an allocation function without return probe. Other
/// functions that end there are none of ours, and neither is a call that is under way at the same place of the
/// stack but returns to another address: one that an exception has left.
#[inline(always)]
pub(crate) fn at_ret(ctx: &ProbeContext) {
    count(Counter::ReturnHits);
    // The kernel emulates no `ret`.
    count(Counter::SteppedHits);
    // SAFETY: the registers are the context of this program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let Some(caller) = arch::returning_to(regs) else { return };
    let Some(key) = key(&caller) else { return };
    if let Some(call) = in_flight::get(&key)
        && call.return_address == caller.address
    {
        finish(&key, call, &caller, RetProbeContext::new(ctx.as_ptr()).ret());
    }
}

/// The key of the call that returns to `caller`, if it may be remembered.
#[inline(always)]
fn key(caller: &arch::Registers) -> Option<InFlightKey> {
    let stack_pointer = arch::entry_stack_pointer_of(caller);
    if control::config().return_always_fires != 0 && !in_flight::may_hold(stack_pointer) {
        return None;
    }
    Some(InFlightKey { pid_tgid: task::pid_tgid(), stack_pointer })
}

/// Enters the call, which has returned `returned`, into the books.
#[inline(always)]
fn finish(key: &InFlightKey, call: &InFlight, caller: &arch::Registers, returned: u64) {
    let pid_tgid = key.pid_tgid;
    // The record is removed below.
    let call = *call;
    // The books were closed while the call ran. Its block may be one that was freed unseen since then, so
    // it is not entered; the call stays in the table, where userspace counts it as unfinished. A `realloc`
    // goes on, because the old block's fate is decided by now.
    let closed = !control::running();
    if closed && call.old.present == 0 {
        return;
    }
    if !in_flight::remove(key) {
        return;
    }
    if call.outermost != 0 {
        nested::leave(pid_tgid);
    }
    let address = match result(returned, &call) {
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
    books::allocated(caller, pid_tgid, address, &call, sampling::weight(call.size, call.threshold));
}

/// The address that the call has returned, 0 where it failed.
#[inline(always)]
fn result(returned: u64, call: &InFlight) -> Result<u64, ()> {
    if call.result_pointer == 0 {
        return Ok(returned);
    }
    // An int: 0, or an error number.
    if returned as u32 != 0 {
        return Ok(0);
    }
    // SAFETY: a read of user memory through the helper, which checks the address.
    unsafe { bpf_probe_read_user(call.result_pointer as *const u64) }.map_err(|_| ())
}
