//! Calls between their entry and their return.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use memtrace_common::{InFlight, InFlightKey};

use crate::{control, filter::Filter};

/// The calls. Those that never return (a `longjmp` out of malloc, a thread that ends there) stay; when there
/// are too many of them, the least recently used makes room.
#[map]
static IN_FLIGHT: LruHashMap<InFlightKey, InFlight> = LruHashMap::with_max_entries(32768, 0);

const FILTER_BITS: u32 = 12;

#[map]
static IN_FLIGHT_FILTER: Array<u64> = Array::with_max_entries(1 << FILTER_BITS, 0);

/// By stack pointer alone: calls that are not sampled are spared asking for their thread.
const FILTER: Filter = Filter::new(&IN_FLIGHT_FILTER, FILTER_BITS);

/// Whether there may be a call at this stack pointer. To be asked only where a return probe fires for every
/// call: elsewhere the filter is not kept.
#[inline(always)]
pub(crate) fn may_hold(stack_pointer: u64) -> bool {
    FILTER.may_hold(stack_pointer)
}

/// The thread's call at this stack pointer.
#[inline(always)]
pub(crate) fn get(key: &InFlightKey) -> Option<&'static InFlight> {
    // SAFETY: this thread alone has this key, and readers copy what they need at once.
    unsafe { IN_FLIGHT.get(key) }
}

/// Remembers a call, with the flags of `bpf_map_update_elem`. Says whether that was possible.
#[inline(always)]
pub(crate) fn insert(key: &InFlightKey, call: &InFlight, flags: u32) -> bool {
    let filtered = control::config().return_always_fires != 0;
    if filtered {
        FILTER.add(key.stack_pointer);
    }
    // A record that this one replaces stays counted, which is too high by one.
    let inserted = IN_FLIGHT.insert(key, call, flags.into()).is_ok();
    if !inserted && filtered {
        FILTER.subtract(key.stack_pointer);
    }
    inserted
}

/// Forgets a call. Says whether it was there.
#[inline(always)]
pub(crate) fn remove(key: &InFlightKey) -> bool {
    let removed = IN_FLIGHT.remove(key).is_ok();
    if removed && control::config().return_always_fires != 0 {
        FILTER.subtract(key.stack_pointer);
    }
    removed
}
