//! The entry of an allocation function: draw, and remember what was drawn until it returns.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, pt_regs},
    helpers::generated::bpf_ktime_get_ns,
    programs::ProbeContext,
};
use memtrace_common::{Arguments, Block, Counter, FunctionKind, InFlight, InFlightKey, Probe, sampling};

use crate::{
    arch, books, control,
    counters::{count, count_call},
    diagnostics, in_flight, nested, sample, task,
};

/// What a call asks for.
struct Request {
    size: u64,
    /// The block to be resized, or 0.
    old_address: u64,
    /// Where the result is stored, or 0.
    result_pointer: u64,
}

/// `count * size`, or all ones where no address space could hold that: such a call fails, and no draw
/// takes it. (A check of the product itself would need 128 bits, which BPF does not have.)
#[inline(always)]
fn product(count: u64, size: u64) -> u64 {
    if sampling::log2(count) + sampling::log2(size) >= 48 {
        return u64::MAX;
    }
    count.wrapping_mul(size)
}

#[inline(always)]
fn request(ctx: &ProbeContext, probe: Probe) -> Option<Request> {
    let first: u64 = ctx.arg(0)?;
    let second = || ctx.arg::<u64>(1);
    let third = || ctx.arg::<u64>(2);
    let plain = |size| Request { size, old_address: 0, result_pointer: 0 };
    Some(match probe.kind {
        FunctionKind::Malloc => plain(first),
        FunctionKind::Calloc => plain(product(first, second()?)),
        FunctionKind::AlignedAlloc => plain(second()?),
        FunctionKind::PosixMemalign => Request { size: third()?, old_address: 0, result_pointer: first },
        FunctionKind::Realloc => Request { size: second()?, old_address: first, result_pointer: 0 },
        FunctionKind::ReallocArray => {
            Request { size: product(second()?, third()?), old_address: first, result_pointer: 0 }
        }
        FunctionKind::Other => shaped(ctx, probe.arguments),
        FunctionKind::Free | FunctionKind::OtherFree => return None,
    })
}

/// The request to a function whose arguments are where `arguments` says.
#[inline(always)]
fn shaped(ctx: &ProbeContext, arguments: Arguments) -> Request {
    let optional = |number: Option<u8>| number.map_or(0, |number| arch::argument(ctx, number));
    let size = arch::argument(ctx, arguments.size);
    Request {
        size: match arguments.count {
            Some(count) => product(arch::argument(ctx, count), size),
            None => size,
        },
        old_address: optional(arguments.block),
        result_pointer: optional(arguments.result),
    }
}

/// Handles the entry of an allocation function. Returns whether its return has to be seen.
#[inline(always)]
pub(crate) fn entry(ctx: &ProbeContext, probe: Probe) -> bool {
    if !control::running() {
        return false;
    }
    let number = count_call(probe.function);
    if probe.stepped {
        count(Counter::SteppedHits);
    }
    let Some(request) = request(ctx, probe) else { return false };
    let threshold = sample::draw(request.size, probe.function, number);
    // glibc's realloc(NULL, size) jumps to malloc.
    let resizes = match probe.kind {
        FunctionKind::Realloc | FunctionKind::ReallocArray => true,
        FunctionKind::Other => probe.arguments.block.is_some(),
        _ => false,
    };
    let outermost = probe.may_jump || (resizes && request.old_address == 0);
    // SAFETY: the registers are the context of this program.
    let stack_pointer = arch::entry_stack_pointer(unsafe { &*ctx.regs });
    let cleans = match control::config().return_always_fires {
        0 => probe.at_ret,
        _ => in_flight::may_hold(stack_pointer),
    };
    let recorded = resizes && request.old_address != 0 && books::may_hold(request.old_address);
    if threshold == 0 && !outermost && !cleans && !recorded {
        return false;
    }
    remember(ctx, probe, &request, threshold, outermost, cleans)
}

/// The part that only few calls reach.
#[inline(always)]
fn remember(
    ctx: &ProbeContext,
    probe: Probe,
    request: &Request,
    threshold: u64,
    outermost: bool,
    cleans: bool,
) -> bool {
    // SAFETY: the registers are the context of this program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let pid_tgid = task::pid_tgid();
    let key = InFlightKey { pid_tgid, stack_pointer: arch::entry_stack_pointer(regs) };
    if cleans {
        forget_stale(&key);
    }
    let mut call = InFlight {
        old: Block::default(),
        old_address: request.old_address,
        size: request.size,
        threshold,
        result_pointer: request.result_pointer,
        // Without it, the probe on the `ret` takes the call for another one's.
        return_address: if probe.at_ret { arch::return_address(regs).unwrap_or_default() } else { 0 },
        outermost: outermost.into(),
        function: probe.function.into(),
        // SAFETY: the helper takes nothing and returns a number.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    if call.old_address != 0 {
        books::take_out(pid_tgid, call.old_address, &mut call.old);
    }
    if call.threshold == 0 && call.old.present == 0 && !outermost {
        return false;
    }
    if (call.threshold != 0 || outermost) && nested::is_inner(pid_tgid, regs) {
        if call.threshold != 0 {
            count(Counter::Nested);
            call.threshold = 0;
        }
        call.outermost = 0;
        if call.old.present == 0 {
            return false;
        }
    }
    // What stands there already is a call that never returned.
    let mut inserted = in_flight::insert(&key, &call, BPF_NOEXIST);
    if !inserted {
        forget_stale(&key);
        inserted = in_flight::insert(&key, &call, BPF_ANY);
    }
    if !inserted {
        if call.threshold != 0 {
            count(Counter::InFlightFull);
            diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::InFlightFull));
        }
        if call.old.present != 0 {
            books::put_back(pid_tgid, call.old_address, &call.old);
        }
        return false;
    }
    if call.outermost != 0 {
        nested::enter(pid_tgid, key.stack_pointer);
    }
    true
}

/// Removes what an earlier call at this place, which never returned, has left behind. Where a return probe fires
/// for every call, this call's return would find it.
#[inline(always)]
fn forget_stale(key: &InFlightKey) {
    let Some(call) = in_flight::get(key) else { return };
    // A function that has jumped here is under way; its record is found by the return of either.
    if call.outermost != 0 && nested::is_outermost(key) {
        return;
    }
    // Whether the allocator had freed it is not known. If it had, it goes when its address is handed out again.
    if call.old.present != 0 {
        books::put_back(key.pid_tgid, call.old_address, &call.old);
    }
    let sampled = call.threshold != 0;
    if in_flight::remove(key) && sampled {
        count(Counter::MissedReturns);
        diagnostics::say(|| diagnostics::missed_return(key.pid_tgid, key.stack_pointer));
    }
}
