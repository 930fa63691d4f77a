//! When the books were closed for a while.

use std::time::{Duration, Instant};

use super::monotonic_ns;

/// The pauses of a recording.
#[derive(Clone, Debug, Default)]
pub(super) struct Pauses {
    /// When the present one began.
    since: Option<Instant>,
    count: u64,
    total: Duration,
    last_end_ns: u64,
}

impl Pauses {
    /// Whether there is one now.
    pub(super) fn is_paused(&self) -> bool {
        self.since.is_some()
    }

    /// One begins.
    pub(super) fn begin(&mut self) {
        self.since = Some(Instant::now());
        self.count += 1;
    }

    /// The present one ends, if there is one.
    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.total += since.elapsed();
            self.last_end_ns = monotonic_ns();
        }
    }

    /// How many there were, and how long all of them took.
    pub(super) fn sum(&self) -> (u64, Duration) {
        (self.count, self.total)
    }

    /// When the last one ended: nanoseconds of `CLOCK_MONOTONIC`, 0 where there was none.
    pub(super) fn last_end_ns(&self) -> u64 {
        self.last_end_ns
    }
}
