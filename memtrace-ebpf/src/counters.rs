//! Counting what happens here.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use memtrace_common::Counter;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT as u32, 0);

/// Counts one more of `counter`. The slot is this CPU's own, but a program can be preempted in the
/// middle of an addition, so it is an atomic one; without another CPU in the way that costs little.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    add_to_slot(counter as u32, 1);
}

/// Counts `number` more of `counter`.
#[inline(always)]
pub(crate) fn add(counter: Counter, number: u32) {
    add_to_slot(counter as u32, number.into());
}

/// Counts one more walk of a stack that has ended so: a [`StackEnd`](memtrace_common::StackEnd) as a number.
#[inline(always)]
pub(crate) fn count_walk(end: u32) {
    add_to_slot(Counter::WalksComplete as u32 + end, 1);
}

#[inline(always)]
fn add_to_slot(slot: u32, number: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(slot) {
        crate::atomic::add(slot, number);
    }
}

/// The same. Returns how many this CPU had counted before: a number that no other of its events has.
#[inline(always)]
pub(crate) fn count_and_number(counter: Counter) -> u64 {
    COUNTERS.get_ptr_mut(counter as u32).map_or(0, |slot| crate::atomic::fetch_add(slot, 1))
}
