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
    let counted = |size, old_address| Request { size, old_address, result_pointer: 0 };
    let (count, mut request) = match probe.kind {
        FunctionKind::Malloc => return Some(plain(first)),
        FunctionKind::Calloc => (first, counted(second()?, 0)),
        FunctionKind::AlignedAlloc => return Some(plain(second()?)),
        FunctionKind::PosixMemalign => {
            return Some(Request { size: third()?, old_address: 0, result_pointer: first });
        }
        FunctionKind::Realloc => return Some(counted(second()?, first)),
        FunctionKind::ReallocArray => (second()?, counted(third()?, first)),
        FunctionKind::Other => shaped(ctx, probe.arguments),
        FunctionKind::Free | FunctionKind::OtherFree => return None,
    };
    // In one place for all kinds: the verifier follows every way through this.
    request.size = product(count, request.size);
    Some(request)
}

/// The request to a function whose arguments are where `arguments` says, for one element, and the number of elements.
#[inline(always)]
fn shaped(ctx: &ProbeContext, arguments: Arguments) -> (u64, Request) {
    let or = |number: Option<u8>, otherwise| number.map_or(otherwise, |number| arch::argument(ctx, number));
    let size = arch::argument(ctx, arguments.size);
    let (old_address, result_pointer) = (or(arguments.block, 0), or(arguments.result, 0));
    (or(arguments.count, 1), Request { size, old_address, result_pointer })
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
    // SAFETY: the helper takes nothing and returns a number.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // Always 0, but the verifier cannot know: what it knows of numbers by the way that it came, it would carry through
    // all that follows, once for each kind of function.
    let unknown = 0_u64.wrapping_sub(time_ns >> 63);
    let request = &Request {
        size: request.size ^ unknown,
        old_address: request.old_address ^ unknown,
        result_pointer: request.result_pointer ^ unknown,
    };
    let threshold = threshold ^ unknown;
    let outermost = u64::from(outermost) ^ unknown != 0;
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
        time_ns,
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
