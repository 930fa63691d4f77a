//! Drawing: is this allocation a sample? See [`memtrace_common::sampling`].

use aya_ebpf::{helpers::generated::bpf_get_smp_processor_id, macros::map, maps::Array};
use memtrace_common::sampling::{self, SEGMENTS, Segment};

use crate::control;

#[map]
static SEGMENTS_OF_SIZE: Array<Segment> = Array::with_max_entries(SEGMENTS as u32, 0);

/// Draws for an allocation of `size` bytes, which is call `number` of `function` that this CPU has seen. Returns the
/// threshold that it was drawn with, or 0 when it is not a sample.
///
/// The kernel's own random numbers (`bpf_get_prandom_u32`) took 28 ns longer on the development machine, a
/// quarter of all that happens here for a call that is not a sample.
#[inline(always)]
pub(crate) fn draw(size: u64, function: u16, number: u64) -> u64 {
    // A size that no address space can hold is about to fail.
    let Some((index, place)) = sampling::place(size) else { return 0 };
    let Some(segment) = SEGMENTS_OF_SIZE.get(index as u32) else { return 0 };
    let threshold = sampling::threshold(segment, place);
    // A thread that was moved to another CPU after it was counted may share its random number with a call
    // there. Each is as random as any; only the two are not independent.
    // SAFETY: the helper takes nothing and returns a number.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if sampling::random(control::config().seed, cpu, function, number) < threshold { threshold } else { 0 }
}
