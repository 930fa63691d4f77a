//! Stacks and what was allocated by them.

/// The most frames of a stack that can be kept, the innermost ones.
pub const MAX_FRAMES: usize = 255;

/// The stack id of allocations whose stack could not be recorded. Their totals are kept under it, so
/// that nothing is missing from the sums, and no real stack has it.
pub const STACK_NOT_RECORDED: u64 = 0;

/// The stack id of what process `tgid` has inherited from its creator: all in one, because by what stacks it was
/// allocated the creator's profile says. A hash of a real stack is this by an accident of 1 in 2^64.
pub const fn inherited_stack(tgid: u32) -> u64 {
    0x1a7e_4173_0000_0000 | tgid as u64
}

/// How the walk of a stack ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackEnd {
    /// At the thread's first function: the stack is whole.
    Root = 0,
    /// As many frames were found as were asked for, and there are more.
    Truncated = 1,
    /// An address is in no executable mapping that is known.
    NoMapping = 2,
    /// There is no unwind table for the code, and frame pointers do not go on.
    NoTable = 3,
    /// Memory could not be read, or a frame did not lie above the one that it called.
    Unreadable = 4,
    /// The unwind table says more than the kernel program understands.
    Unsupported = 5,
    /// [`MAX_FRAMES`] frames were found and there are more.
    TooDeep = 6,
}

impl StackEnd {
    /// Every end, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Root,
        Self::Truncated,
        Self::NoMapping,
        Self::NoTable,
        Self::Unreadable,
        Self::Unsupported,
        Self::TooDeep,
    ];

    /// The end with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|end| *end as u32 == number)
    }
}

/// What one stack has allocated and freed. All fields only grow. Objects are in 1/65536 and bytes
/// in 1/16, and both are weighted: they estimate the truth under sampling.
///
/// In use = allocated - freed - untracked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackTotals {
    /// Allocations, in 1/65536.
    pub allocated_objects: u64,
    /// Bytes allocated, in 1/16.
    pub allocated_bytes: u64,
    /// Of these, freed, in 1/65536.
    pub freed_objects: u64,
    /// Of these, freed, in 1/16.
    pub freed_bytes: u64,
    /// Of these, not followed because the live table was full, in 1/65536.
    pub untracked_objects: u64,
    /// Of these, not followed because the live table was full, in 1/16.
    pub untracked_bytes: u64,
    /// Variance of the estimate of the objects allocated, in the unit of
    /// [`Variance`](crate::sampling::Variance).
    pub objects_variance: u64,
    /// The same of the bytes allocated.
    pub bytes_variance: u64,
    /// How many samples were taken.
    pub samples: u64,
    /// How many of the samples were freed again.
    pub freed_samples: u64,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// 1 once the frames were sent to userspace.
    pub announced: u32,
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
unsafe impl aya::Pod for StackTotals {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<StackTotals>(), 88);
    }
}
