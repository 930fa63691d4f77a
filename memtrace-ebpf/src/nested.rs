//! Allocation functions that call each other count once: as the outermost.
//!
//! `operator new` calls `malloc`; both are probed, and both draw. Two facts tell an inner call:
//!
//! - It returns into an allocation function. Userspace says where those stand ([`INTERNAL_CALLERS`]).
//! - The thread is inside of a call that may reach another function by a jump, which leaves no return
//!   address behind. Such functions are few and rarely called; they are always remembered
//!   ([`OUTERMOST`]).
//!
//! Both are asked only for a call that was drawn, so that all others stay cheap.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, pt_regs},
    macros::map,
    maps::{HashMap, LruHashMap},
};
use memtrace_common::{InFlightKey, InternalCallers, MAX_CALLER_RANGES};

/// By process: the address ranges of its allocation functions. Four kilobytes each, so allocated one by one.
#[map]
static INTERNAL_CALLERS: HashMap<u32, InternalCallers> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// By thread: the entry stack pointer of a call that may jump to another function. An entry whose call
/// never returned (an exception) would stay, so the least recently used makes room.
#[map]
static OUTERMOST: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16384, 0);

/// Whether the call at this entry was made by another allocation function.
#[inline(always)]
pub(crate) fn is_inner(pid_tgid: u64, regs: &pt_regs) -> bool {
    let stack_pointer = crate::arch::entry_stack_pointer(regs);
    // SAFETY: the value is copied at once; this thread alone writes its entry.
    if let Some(outermost) = unsafe { OUTERMOST.get(&pid_tgid) }.copied() {
        // The stack grows down: what the outer call calls, or jumps to, is not above it.
        if stack_pointer <= outermost {
            return true;
        }
        // It is above, so that call is over without having returned.
        leave(pid_tgid);
    }
    let Some(address) = crate::arch::return_address(regs) else { return false };
    // SAFETY: userspace replaces the value as a whole, and a mixture of old and new ranges would be
    // harmless here.
    let Some(callers) = (unsafe { INTERNAL_CALLERS.get(&crate::task::tgid(pid_tgid)) }) else { return false };
    // The last range that begins at the address or before it.
    let mut first = 0;
    let mut step = MAX_CALLER_RANGES / 2;
    while step > 0 {
        let middle = (first + step) & (MAX_CALLER_RANGES - 1);
        if callers.ranges[middle].start <= address {
            first = middle;
        }
        step /= 2;
    }
    let range = &callers.ranges[first & (MAX_CALLER_RANGES - 1)];
    range.start <= address && address < range.end
}

/// A search by halves goes as deep as the number of ranges has bits.
const _: () = assert!(MAX_CALLER_RANGES.is_power_of_two());

/// Whether this is the call that the thread is known to be inside of.
#[inline(always)]
pub(crate) fn is_outermost(key: &InFlightKey) -> bool {
    // SAFETY: the value is copied at once; this thread alone writes its entry.
    unsafe { OUTERMOST.get(&key.pid_tgid) }.copied() == Some(key.stack_pointer)
}

/// Remembers that the thread is inside of a call that may jump to another allocation function.
#[inline(always)]
pub(crate) fn enter(pid_tgid: u64, stack_pointer: u64) {
    // A failure would count an inner call of its own; the map cannot be full, because it is an LRU map.
    let _ = OUTERMOST.insert(&pid_tgid, &stack_pointer, BPF_ANY.into());
}

/// The call is over.
#[inline(always)]
pub(crate) fn leave(pid_tgid: u64) {
    let _ = OUTERMOST.remove(&pid_tgid);
}
