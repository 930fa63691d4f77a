//! Drawing: is this allocation a sample? See [`memtrace_common::sampling`].

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, macros::map, maps::Array};
use memtrace_common::sampling::{self, SEGMENTS, Segment};

#[map]
static SEGMENTS_OF_SIZE: Array<Segment> = Array::with_max_entries(SEGMENTS as u32, 0);

/// Draws for an allocation of `size` bytes. Returns the threshold that it was drawn with, or 0 when it
/// is not a sample.
#[inline(always)]
pub(crate) fn draw(size: u64) -> u64 {
    // A size that no address space can hold is about to fail.
    let Some((index, place)) = sampling::place(size) else { return 0 };
    let Some(segment) = SEGMENTS_OF_SIZE.get(index as u32) else { return 0 };
    let threshold = sampling::threshold(segment, place);
    if threshold >= sampling::CERTAIN {
        return threshold;
    }
    // 48 random bits against the threshold. The first 32 decide nearly always, so the others are drawn
    // only when those are equal.
    // SAFETY: the helper takes nothing and returns a number.
    let high = u64::from(unsafe { bpf_get_prandom_u32() });
    if high != threshold >> 16 {
        return if high < threshold >> 16 { threshold } else { 0 };
    }
    // SAFETY: as above.
    let low = u64::from(unsafe { bpf_get_prandom_u32() } & 0xffff);
    if low < threshold & 0xffff { threshold } else { 0 }
}
