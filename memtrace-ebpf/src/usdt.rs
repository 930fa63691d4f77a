//! Statically defined probes (USDT) `otel_memory:alloc` and `otel_memory:free`: the process samples its own
//! allocations, and tells of each sample.
//!
//! Such a probe is a `nop` in the middle of a function. Nothing is drawn here, and nothing has to be remembered: the
//! block's address is an argument.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::Array,
    programs::ProbeContext,
};
use memtrace_common::{
    ArgumentPlace, Counter, IN_MEMORY, IN_PROBE, IN_REGISTER, InFlight, MAX_USDT_PLACES, Probe, UsdtPlaces,
    sampling,
};

use crate::{
    arch, books, control,
    counters::{count, count_call},
    free, task,
};

/// By [`Probe::places`]: where a probe has its arguments.
#[map]
static USDT_PLACES: Array<UsdtPlaces> = Array::with_max_entries(MAX_USDT_PLACES as u32, 0);

/// `alloc(block, size, weight)`: a sample that stands for `weight` bytes.
#[inline(always)]
pub(crate) fn allocated(ctx: &ProbeContext, probe: Probe) {
    if !control::running() {
        return;
    }
    count_hit(probe);
    let Some(places) = USDT_PLACES.get(probe.places.into()) else { return };
    let [block, size, weight] = &places.arguments;
    let arguments = (argument(ctx, block), argument(ctx, size), argument(ctx, weight));
    let (Some(address), Some(size), Some(weight)) = arguments else {
        count(Counter::UsdtUnreadable);
        return;
    };
    let Some(weight) = sampling::weight_of_sample(size, weight) else {
        count(Counter::UsdtUnreadable);
        return;
    };
    // How likely the process was to draw it is the process's own business.
    let call = InFlight {
        size,
        threshold: sampling::CERTAIN,
        function: probe.function.into(),
        // SAFETY: the helper takes nothing and returns a number.
        time_ns: unsafe { bpf_ktime_get_ns() },
        ..InFlight::default()
    };
    // SAFETY: the registers are the context of this program.
    let here = arch::here(unsafe { &*ctx.regs });
    books::allocated(&here, task::pid_tgid(), address, &call, weight);
}

/// `free(block)`: a block is freed that was a sample.
#[inline(always)]
pub(crate) fn freed(ctx: &ProbeContext, probe: Probe) {
    if !control::running() {
        return;
    }
    count_hit(probe);
    let Some(places) = USDT_PLACES.get(probe.places.into()) else { return };
    match argument(ctx, &places.arguments[0]) {
        Some(address) => free::block(address),
        None => count(Counter::UsdtUnreadable),
    }
}

#[inline(always)]
fn count_hit(probe: Probe) {
    count_call(probe.function);
    if probe.stepped {
        count(Counter::SteppedHits);
    }
}

/// The argument that is there; `None` where it cannot be read.
#[inline(always)]
fn argument(ctx: &ProbeContext, place: &ArgumentPlace) -> Option<u64> {
    if place.kind == IN_PROBE {
        return Some(place.of(place.value as u64));
    }
    let register = arch::register(ctx, place.register)?;
    match place.kind {
        IN_REGISTER => Some(place.of(register)),
        IN_MEMORY => Some(place.of(read(register.wrapping_add_signed(place.value), place.size)?)),
        _ => None,
    }
}

/// A number of so many bytes; no more than these need be readable.
#[inline(always)]
fn read(address: u64, size: u8) -> Option<u64> {
    let mut value = 0_u64;
    let size = u32::from(size).min(size_of::<u64>() as u32);
    // SAFETY: the helper checks the address, and the verifier that it writes no more than the number.
    let failed = unsafe { bpf_probe_read_user((&raw mut value).cast(), size, address as *const c_void) };
    (failed == 0).then_some(value)
}
