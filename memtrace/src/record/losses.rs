//! What the kernel program could not record, in words.

use memtrace_common::Counter;

use crate::{kernel::Counters, profile::Losses};

/// The counters that are losses: name and meaning.
const LOSSES: &[(Counter, &str, &str)] = &[
    (
        Counter::InFlightFull,
        "in_flight_full",
        "sampled allocations were not recorded because too many calls were under way at once; they are missing from all totals",
    ),
    (
        Counter::MissedReturns,
        "missed_returns",
        "sampled calls never returned (an exception, a longjmp, the end of a thread); nothing was recorded for them",
    ),
    (
        Counter::MissedFrees,
        "missed_frees",
        "frees were not seen; the block was taken off the books when its address was handed out again",
    ),
    (
        Counter::LiveFull,
        "live_table_full",
        "samples did not fit into the live table: they are in the allocation totals but not in the in-use totals; raise --max-live or --sample-interval",
    ),
    (
        Counter::StacksFull,
        "stack_table_full",
        "samples had a new stack that did not fit into the stack table: they are counted under [stack not recorded]; raise --max-stacks",
    ),
    (
        Counter::EventsLost,
        "events_lost",
        "allocations or frees were not written to the events file because the ring buffer was full; raise --ring-size or --sample-interval (the profile is not affected)",
    ),
    (
        Counter::ScratchBusy,
        "scratch_busy",
        "stacks could not be walked because too many programs were preempted at once: the samples are counted under [stack not recorded]",
    ),
    (
        Counter::ResultUnreadable,
        "result_unreadable",
        "addresses stored by posix_memalign could not be read: those allocations were not recorded",
    ),
    (
        Counter::UsdtUnreadable,
        "usdt_unreadable",
        "times the arguments of the process's own probes (otel_memory) could not be read or were impossible: those allocations or frees were not recorded",
    ),
    (
        Counter::ImageChangesLost,
        "image_changes_lost",
        "times the process executed a program or loaded libraries unnoticed: allocations there may be missing",
    ),
    (
        Counter::WalksTruncated,
        "stacks_truncated",
        "samples have a stack of more frames than --max-frames: only the innermost are kept",
    ),
    (
        Counter::WalksNoMapping,
        "stacks_no_mapping",
        "samples have a stack that ends in memory that is no known code",
    ),
    (
        Counter::WalksNoTable,
        "stacks_no_table",
        "samples have a stack that ends in code without call frame information and without frame pointers",
    ),
    (
        Counter::WalksBadRead,
        "stacks_bad_read",
        "samples have a stack that ends where memory could not be read or is no frame",
    ),
    (
        Counter::WalksUnsupportedRule,
        "stacks_unsupported_rule",
        "samples have a stack that ends at call frame information that memtrace cannot follow",
    ),
    (
        Counter::WalksTooDeep,
        "stacks_too_deep",
        "samples have a stack of more than 255 frames: only the innermost are kept",
    ),
    (
        Counter::PythonUnreadable,
        "python_unreadable",
        "samples have a stack whose Python frames could not be read to the first; they carry the label python=incomplete",
    ),
    (
        Counter::PythonTruncated,
        "python_truncated",
        "samples have a stack of more than 100 Python frames: only the innermost are kept; they carry the label python=incomplete",
    ),
    (
        Counter::PythonTooManyThreads,
        "python_too_many_threads",
        "samples have no Python frames because the interpreter has too many threads to find theirs; they carry the label python=incomplete",
    ),
];

/// Adds the losses that the kernel program has counted.
pub(super) fn add(losses: &mut Losses, counters: &Counters) {
    for (counter, name, meaning) in LOSSES {
        losses.add(name, counters.get(*counter), meaning);
    }
}

#[cfg(test)]
mod tests;
