//! Stacks and what was allocated by them.

/// The most frames of a stack that are kept, the innermost ones.
pub const MAX_FRAMES: usize = 127;

/// The stack id of allocations whose stack could not be recorded. Their totals are kept under it, so
/// that nothing is missing from the sums, and no real stack has it.
pub const STACK_NOT_RECORDED: u64 = 0;

/// How the walk of a stack ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackEnd {
    /// The chain of frame pointers ended in a null pointer or return address.
    Root = 0,
    /// The next frame pointer was not one: not aligned, or not further up the stack.
    NoFramePointer = 1,
    /// Memory at the next frame pointer could not be read.
    Unreadable = 2,
    /// [`MAX_FRAMES`] frames were found and there are more.
    TooDeep = 3,
}

impl StackEnd {
    /// The end with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Root, Self::NoFramePointer, Self::Unreadable, Self::TooDeep]
            .into_iter()
            .find(|end| *end as u32 == number)
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
        assert_eq!(size_of::<StackTotals>(), 72);
    }
}
