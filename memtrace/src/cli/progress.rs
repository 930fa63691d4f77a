//! The line that shows a recording going on: on a terminal only.

use std::{
    io::{self, Write},
    time::Duration,
};

use memtrace::{kernel::Counters, profile::printable, report::units};
use memtrace_common::Counter;

/// A line on standard error that overwrites itself.
#[derive(Debug)]
pub(super) struct Progress {
    enabled: bool,
    shown: bool,
}

impl Progress {
    /// Shows something only when `enabled`.
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, shown: false }
    }

    /// Shows the present state.
    pub(super) fn show(&mut self, comm: &str, elapsed: Duration, stacks: usize, counters: &Counters) {
        if !self.enabled {
            return;
        }
        let recorded = counters.get(Counter::Sampled);
        let text = format!(
            "{}: {} s, {} allocations seen, {} recorded, {} of these freed, {} stacks",
            printable(comm),
            elapsed.as_secs(),
            units::count(counters.allocation_calls().into()),
            units::count(recorded.into()),
            units::count(counters.get(Counter::FreesMatched).into()),
            units::count(stacks as i128),
        );
        // Back to the first column, and erase to the end of the line (ECMA-48 EL). A failure to show
        // progress is no reason to end a recording.
        let _ = write!(io::stderr(), "\r{text}\x1b[K");
        self.shown = true;
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.shown = false;
        }
    }
}
