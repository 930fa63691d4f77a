//! Live allocations, and calls between their entry and their return.

/// Key of the live table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LiveKey {
    /// The address that the allocator returned.
    pub address: u64,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// Always 0: hash maps compare keys as bytes, so there must be no hidden padding.
    pub reserved: u32,
}

/// A recorded allocation that has not been freed. What it added to its stack's totals is kept with it,
/// so that its free takes back exactly that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The stack that allocated it.
    pub stack_id: u64,
    /// The requested size in bytes.
    pub size: u64,
    /// How many allocations this one stands for, in 1/65536 ([`sampling::Weight`](crate::sampling::Weight)).
    pub objects: u64,
    /// How many bytes this one stands for, in 1/16.
    pub bytes: u64,
    /// When it was allocated: nanoseconds of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// The thread that allocated it.
    pub tid: u32,
    /// 1 where this record holds an allocation, 0 where it is an empty place.
    pub present: u32,
}

/// Key of the table of calls between entry and return. The stack pointer tells nested and interleaved
/// calls of one thread apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InFlightKey {
    /// Process id in the upper, thread id in the lower half.
    pub pid_tgid: u64,
    /// The stack pointer at the function's first instruction: the return address stands there.
    pub stack_pointer: u64,
}

/// A call between its entry and its return.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InFlight {
    /// The recorded allocation that a `realloc` was given. It is off the live table while the call runs,
    /// because another thread may be handed its address before this call returns.
    pub old: Block,
    /// That allocation's address.
    pub old_address: u64,
    /// The requested size in bytes.
    pub size: u64,
    /// The sampling threshold that the size was drawn with; 0 where the call was not sampled.
    pub threshold: u64,
    /// Where `posix_memalign`, or another such function, stores the address; 0 where the function returns it.
    pub result_pointer: u64,
    /// The address that the call returns to, where its return is seen by a probe on a `ret`; 0 elsewhere.
    pub return_address: u64,
    /// 1 where calls of other allocation functions until the return belong to this one.
    pub outermost: u32,
    /// The function's number ([`Probe::function`](crate::Probe::function)).
    pub function: u32,
    /// When the call began: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
}

/// How many ranges [`InternalCallers`] can hold.
pub const MAX_CALLER_RANGES: usize = 256;

/// The address range of an allocator function's code.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerRange {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

/// Where a process's allocator functions stand. A call that returns into one of them was made by it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InternalCallers {
    /// How many ranges are in use.
    pub len: u64,
    /// The ranges, in order of address and without overlaps; those that are not in use are all ones.
    pub ranges: [CallerRange; MAX_CALLER_RANGES],
}

impl Default for InternalCallers {
    fn default() -> Self {
        Self { len: 0, ranges: [CallerRange { start: u64::MAX, end: u64::MAX }; MAX_CALLER_RANGES] }
    }
}

/// How many ranges [`Wrappers`] can hold.
pub const MAX_WRAPPERS: usize = 32;

/// Where a process's wrappers stand: functions that do nothing for the reader of a profile but call another
/// allocation function. They get no probe, and their frames are left out of stacks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Wrappers {
    /// How many ranges are in use.
    pub len: u64,
    /// The ranges.
    pub ranges: [CallerRange; MAX_WRAPPERS],
}

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
    unsafe impl aya::Pod for LiveKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Block {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InFlightKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InFlight {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InternalCallers {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Wrappers {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<LiveKey>(), 16);
        assert_eq!(size_of::<Block>(), 48);
        assert_eq!(size_of::<InFlightKey>(), 16);
        assert_eq!(size_of::<InFlight>(), 48 + 56);
        assert_eq!(size_of::<InternalCallers>(), 8 + MAX_CALLER_RANGES * 16);
        assert_eq!(size_of::<Wrappers>(), 8 + MAX_WRAPPERS * 16);
    }
}
