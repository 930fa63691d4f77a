//! Atomic operations on map values, which several CPUs change at once. The BPF target offers them as
//! compiler intrinsics only.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds `value` to `*target`.
#[inline(always)]
pub(crate) fn add(target: *mut u64, value: u64) {
    // SAFETY: every caller passes the address of an aligned field of a map value, which stays valid for
    // the whole run of the program.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, value);
    }
}

/// Adds `value` to `*target`, and returns what it was before.
#[inline(always)]
pub(crate) fn fetch_add(target: *mut u64, value: u64) -> u64 {
    // SAFETY: as for `add`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(target, value) }
}

/// Sets `*target` to 1 if it is 0, and says whether it did.
#[inline(always)]
pub(crate) fn take(target: *mut u64) -> bool {
    // SAFETY: as for `add`.
    let (_, taken) =
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(target, 0, 1) };
    taken
}
