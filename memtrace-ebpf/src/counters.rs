//! Counting what happens here.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use memtrace_common::{Counter, MAX_FUNCTIONS};

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

/// By [`Probe::function`](memtrace_common::Probe::function): calls of the function.
#[map]
static CALLS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_FUNCTIONS as u32, 0);

/// Counts a call of a function. Returns how many this CPU had counted before: a number that no other call of the
/// function on this CPU has.
#[inline(always)]
pub(crate) fn count_call(function: u16) -> u64 {
    CALLS.get_ptr_mut(function.into()).map_or(0, |calls| crate::atomic::fetch_add(calls, 1))
}
