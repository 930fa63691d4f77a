//! The books: which blocks are live, and what each stack has allocated and freed.
//!
//! At all times, per stack: allocated - freed - untracked = the sum over its live blocks, except for
//! blocks that are in the hands of a `realloc` at that moment.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap},
};
use memtrace_common::{
    Block, Counter, EVENT_ALLOCATED, EVENT_FREED, InFlight, LiveKey, OTHER_ALLOCATIONS, STACK_NOT_RECORDED,
    StackTotals, inherited_stack, sampling,
};

use crate::{arch, atomic, control, counters::count, diagnostics, events, filter::Filter, stack, task};

/// The live blocks. Allocated as it fills, so that a large limit costs nothing until it is needed.
#[map]
static LIVE: HashMap<LiveKey, Block> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);

const FILTER_BITS: u32 = 16;

#[map]
static LIVE_FILTER: Array<u64> = Array::with_max_entries(1 << FILTER_BITS, 0);

/// By address alone: frees of blocks that are not on the books are spared asking for their process.
const FILTER: Filter = Filter::new(&LIVE_FILTER, FILTER_BITS);

/// By stack id. Userspace puts in [`STACK_NOT_RECORDED`] before the first probe is set.
#[map]
static STACKS: HashMap<u64, StackTotals> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

#[inline(always)]
fn key(pid_tgid: u64, address: u64) -> LiveKey {
    LiveKey { address, tgid: task::tgid(pid_tgid), reserved: 0 }
}

/// Whether there may be a block at `address` on the books.
#[inline(always)]
pub(crate) fn may_hold(address: u64) -> bool {
    FILTER.may_hold(address)
}

/// Enters a block at an address, with the flags of `bpf_map_update_elem`. Says whether that was possible.
#[inline(always)]
fn insert(key: &LiveKey, block: &Block, flags: u32) -> bool {
    FILTER.add(key.address);
    let inserted = LIVE.insert(key, block, flags.into()).is_ok();
    if !inserted {
        FILTER.subtract(key.address);
    }
    inserted
}

/// Takes the block at `address` off the live table, into `block`. Where there is none, or another
/// thread was faster, `block` stays empty. Totals stay as they are.
///
/// A function of its own, so that its variables do not add to the caller's 512 bytes of stack.
#[inline(never)]
pub(crate) fn take_out(pid_tgid: u64, address: u64, block: &mut Block) {
    let key = key(pid_tgid, address);
    // SAFETY: the value is copied at once; a block is changed only by whoever owns the memory.
    let Some(found) = (unsafe { LIVE.get(&key) }).copied() else { return };
    if LIVE.remove(&key).is_ok() {
        FILTER.subtract(address);
        *block = found;
    }
}

/// Puts a block back that was taken out.
#[inline(always)]
pub(crate) fn put_back(pid_tgid: u64, address: u64, block: &Block) {
    if !insert(&key(pid_tgid, address), block, BPF_ANY) {
        untracked(pid_tgid, block);
    }
}

/// The live table, for a walk over it.
#[inline(always)]
pub(crate) fn live() -> *mut c_void {
    (&raw const LIVE).cast_mut().cast()
}

/// Enters a block that a new process has inherited. A function of its own, so that its variables do not add to the
/// caller's 512 bytes of stack.
#[inline(never)]
pub(crate) fn inherited(tgid: u32, address: u64, block: &Block) {
    let pid_tgid = u64::from(tgid) << 32;
    // Without room for its totals, the copy is not entered: its free finds nothing, as that of older memory.
    let Some(totals) = totals_of(block.stack_id, pid_tgid, OTHER_ALLOCATIONS.into()) else {
        count(Counter::StacksFull);
        return;
    };
    // SAFETY: as in `freed`.
    unsafe {
        atomic::add(&raw mut (*totals).allocated_objects, block.objects);
        atomic::add(&raw mut (*totals).allocated_bytes, block.bytes);
        atomic::add(&raw mut (*totals).samples, 1);
    }
    if !insert(&key(pid_tgid, address), block, BPF_ANY) {
        untracked(pid_tgid, block);
    }
}

/// Counts a block that was taken out as freed.
#[inline(always)]
pub(crate) fn freed(pid_tgid: u64, address: u64, block: &Block) {
    // What was inherited has no event of its allocation in this process.
    if block.stack_id != inherited_stack(task::tgid(pid_tgid)) {
        events::block(EVENT_FREED, pid_tgid, address, block);
    }
    diagnostics::say(|| diagnostics::freed(pid_tgid, address, block.size, block.stack_id));
    if let Some(totals) = STACKS.get_ptr_mut(&block.stack_id) {
        // SAFETY: a pointer to a map value; its fields are aligned and stay valid while this runs.
        unsafe {
            atomic::add(&raw mut (*totals).freed_objects, block.objects);
            atomic::add(&raw mut (*totals).freed_bytes, block.bytes);
            atomic::add(&raw mut (*totals).freed_samples, 1);
        }
    }
}

/// Counts a block as one whose fate will not be known.
#[inline(always)]
fn untracked(pid_tgid: u64, block: &Block) {
    count(Counter::LiveFull);
    diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::LiveFull));
    if let Some(totals) = STACKS.get_ptr_mut(&block.stack_id) {
        // SAFETY: as in `freed`.
        unsafe {
            atomic::add(&raw mut (*totals).untracked_objects, block.objects);
            atomic::add(&raw mut (*totals).untracked_bytes, block.bytes);
        }
    }
}

/// Enters a new block that stands for `weight`. The stack is that at `at`.
#[inline(always)]
pub(crate) fn allocated(
    at: &arch::Registers,
    pid_tgid: u64,
    address: u64,
    call: &InFlight,
    weight: sampling::Weight,
) {
    let mut stack_id = stack::record(at, pid_tgid, call);
    if totals_of(stack_id, pid_tgid, call.function).is_none() {
        count(Counter::StacksFull);
        diagnostics::say(|| diagnostics::no_room(pid_tgid, Counter::StacksFull));
        stack_id = STACK_NOT_RECORDED;
    }
    let Some(totals) = STACKS.get_ptr_mut(&stack_id) else { return };
    let block = Block {
        stack_id,
        size: call.size,
        objects: weight.objects,
        bytes: weight.bytes,
        // SAFETY: the helper takes nothing and returns a number.
        time_ns: unsafe { bpf_ktime_get_ns() },
        tid: pid_tgid as u32,
        present: 1,
    };
    // SAFETY: as in `freed`.
    unsafe {
        atomic::add(&raw mut (*totals).allocated_objects, block.objects);
        atomic::add(&raw mut (*totals).allocated_bytes, block.bytes);
        atomic::add(&raw mut (*totals).samples, 1);
    }
    if call.threshold < sampling::CERTAIN {
        add_variance(totals, weight.objects, weight.bytes, call.threshold);
    }
    count(Counter::Sampled);

    let key = key(pid_tgid, address);
    let mut inserted = insert(&key, &block, BPF_NOEXIST);
    if !inserted {
        let mut stale = Block::default();
        take_out(pid_tgid, address, &mut stale);
        if stale.present != 0 {
            // The allocator hands the address out again, so it was freed where no probe saw it.
            diagnostics::say(|| diagnostics::missed_free(pid_tgid, address, stale.stack_id));
            freed(pid_tgid, address, &stale);
            count(Counter::MissedFrees);
        }
        // Userspace may have been faster: it takes blocks off that an exec has made an end of.
        inserted = insert(&key, &block, BPF_ANY);
    }
    events::block(EVENT_ALLOCATED, pid_tgid, address, &block);
    diagnostics::say(|| diagnostics::recorded(pid_tgid, address, block.size, stack_id));
    if !inserted {
        untracked(pid_tgid, &block);
    }
}

/// A function of its own, so that its variables do not add to the caller's 512 bytes of stack.
#[inline(never)]
fn add_variance(totals: *mut StackTotals, objects: u64, bytes: u64, threshold: u64) {
    let shift = control::config().variance_shift;
    let variance = sampling::variance(&sampling::Weight { objects, bytes }, threshold, shift);
    // SAFETY: as in `freed`.
    unsafe {
        atomic::add(&raw mut (*totals).objects_variance, variance.objects);
        atomic::add(&raw mut (*totals).bytes_variance, variance.bytes);
    }
}

/// The totals of a stack of calls of `function`, made where the stack is new. `None` where the table is full.
#[inline(always)]
pub(crate) fn totals_of(stack_id: u64, pid_tgid: u64, function: u32) -> Option<*mut StackTotals> {
    if let Some(totals) = STACKS.get_ptr_mut(&stack_id) {
        return Some(totals);
    }
    // Another CPU may have been faster, which is as good; so the result is the look-up's.
    insert_empty(stack_id, task::tgid(pid_tgid), function);
    STACKS.get_ptr_mut(&stack_id)
}

/// Makes the totals of a stack, unless they are there. A function of its own, so that its variables do not add to
/// the caller's 512 bytes of stack.
#[inline(never)]
fn insert_empty(stack_id: u64, tgid: u32, function: u32) {
    let empty = StackTotals {
        allocated_objects: 0,
        allocated_bytes: 0,
        freed_objects: 0,
        freed_bytes: 0,
        untracked_objects: 0,
        untracked_bytes: 0,
        objects_variance: 0,
        bytes_variance: 0,
        samples: 0,
        freed_samples: 0,
        tgid,
        announced: 0,
        function: function as u16,
    };
    let _ = STACKS.insert(&stack_id, &empty, BPF_NOEXIST.into());
}
