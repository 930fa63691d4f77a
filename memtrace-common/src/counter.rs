//! Everything the kernel program counts about itself.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A slot of the per-CPU counter array.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// The counter of walks that ended in this way.
            pub const fn of_walks(end: crate::StackEnd) -> Self {
                match end {
                    crate::StackEnd::Root => Self::WalksComplete,
                    crate::StackEnd::Truncated => Self::WalksTruncated,
                    crate::StackEnd::NoMapping => Self::WalksNoMapping,
                    crate::StackEnd::NoTable => Self::WalksNoTable,
                    crate::StackEnd::Unreadable => Self::WalksBadRead,
                    crate::StackEnd::Unsupported => Self::WalksUnsupportedRule,
                    crate::StackEnd::TooDeep => Self::WalksTooDeep,
                }
            }

            /// Every counter, in the order of the slots.
            pub const ALL: &'static [Counter] = &[$(Counter::$name,)*];
            /// How many slots there are.
            pub const COUNT: usize = Self::ALL.len();
        }
    };
}

counters! {
    /// Hits of probes on an instruction that the kernel single-steps. Hits as such are counted by function.
    SteppedHits,
    /// Return probes that fired.
    ReturnHits,
    /// Allocations that were sampled and recorded.
    Sampled,
    /// Frees of a recorded allocation.
    FreesMatched,
    /// Sampled calls that returned no memory.
    AllocationsFailed,
    /// Sampled calls dropped because another allocation function had made them; they are counted as
    /// that function's.
    Nested,
    /// The table of calls between entry and return was full: a sampled allocation was not recorded.
    InFlightFull,
    /// A sampled call never returned (exception, `longjmp`, the thread ended): nothing to record.
    MissedReturns,
    /// The address of a new allocation was recorded as live: its free was not seen. The old one was
    /// taken off the books when this was found.
    MissedFrees,
    /// The live table was full: an allocation is in the allocation totals but not in the in-use totals.
    LiveFull,
    /// The stack table was full: an allocation is counted under the stack "not recorded".
    StacksFull,
    /// The ring buffer was full when a stack was to be announced; it is announced again with the next
    /// sample of that stack.
    RingFull,
    /// The ring buffer was full when a process executed a program or loaded libraries: probes there were
    /// set late or not at all.
    ImageChangesLost,
    /// The ring buffer was full when an allocation or free was to be sent.
    EventsLost,
    /// All scratch space was in use by preempted programs: an allocation is counted under the stack
    /// "not recorded".
    ScratchBusy,
    /// Frames that were found by walks of stacks, those of the Python interpreter among them.
    FramesWalked,
    /// Walks of a stack that reached the thread's first function. This and the following are in the order of
    /// [`StackEnd`](crate::StackEnd).
    WalksComplete,
    /// Walks that ended because as many frames were found as were asked for.
    WalksTruncated,
    /// Walks that ended outside of all executable mappings that are known.
    WalksNoMapping,
    /// Walks that ended in code without unwind table, where frame pointers did not go on.
    WalksNoTable,
    /// Walks that ended at memory that could not be read or cannot be a frame.
    WalksBadRead,
    /// Walks that ended at an unwind rule that the kernel program does not understand.
    WalksUnsupportedRule,
    /// Walks that ended because no more frames can be kept.
    WalksTooDeep,
    /// The address that `posix_memalign` stored could not be read: an allocation was not recorded.
    ResultUnreadable,
    /// Processes that a watched process has created and that are not watched.
    Children,
    /// The frames of the Python interpreter could not be read to their end.
    PythonUnreadable,
    /// A stack had more Python frames than are kept.
    PythonTruncated,
    /// The interpreter had more threads than were looked at: the Python frames of a stack are missing.
    PythonTooManyThreads,
    /// The arguments of a USDT probe could not be read, or no allocation can have such: it was not recorded.
    UsdtUnreadable,
    /// The ring buffer was full when a [`Capture`](crate::Capture) was to be sent.
    CapturesLost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_numbered_in_order() {
        for (slot, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, slot);
        }
    }

    #[test]
    fn walks_are_counted_in_the_order_of_their_ends() {
        for end in crate::StackEnd::ALL {
            assert_eq!(Counter::of_walks(end) as u32, Counter::WalksComplete as u32 + end as u32);
        }
    }
}
