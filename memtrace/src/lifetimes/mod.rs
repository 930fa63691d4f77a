//! How long allocations live: what an events file (`memtrace record --events`, docs/events.md) says of each
//! stack.
//!
//! [`read()`] goes through the file once, and keeps sums and a histogram per stack, not events. What it needs
//! grows with the number of distinct stacks and with the number of blocks that are live at once, and both
//! have a limit ([`Limits`]), so a file may be longer than memory.
//!
//! For each stack, exactly and at all times: allocated = freed + live + gone. *Gone* are blocks that are live no
//! more although no line says when they were freed: because the line was lost, or because the process
//! has executed another program. They have no lifetime.
//!
//! An allocation is **temporary** if it was freed within a given time, or by the same thread as the next
//! thing that is recorded of that thread; the latter is the definition of heaptrack.
//!
//! Nothing is lost without a count ([`Counts`]): a line that was cut off because memtrace was killed, one that is no
//! event, frees without their allocation.

mod axis;
mod books;
mod event;
mod histogram;
mod json;
mod lines;
mod stacks;
mod sums;
mod text;

pub use books::{Counts, Limits, Loss};
pub use histogram::Histogram;
pub use json::SCHEMA;
pub use stacks::{Lifetimes, Stack};
pub use sums::{Amount, Sums};

use std::io::{self, BufRead};
use std::time::Duration;

use books::Books;
use event::Event;
use lines::{Line, Lines};

/// What to take for temporary, and how much to keep in memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// An allocation that lives no longer is temporary. Default: 1 ms.
    pub temporary_within: Duration,
    /// How much is kept.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { temporary_within: Duration::from_millis(1), limits: Limits::default() }
    }
}

/// Why there are no lifetimes. The texts go on from a file's name and a colon.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// Its first line is no event.
    #[error("its first line is not an event of `memtrace record --events`")]
    NotEvents,
    /// It is something else that memtrace writes.
    #[error(
        "it is a profile in JSON, which `memtrace report` does not read: record with --events for lifetimes, or with -o FILE.pb.gz"
    )]
    JsonProfile,
    /// It is of a later version of memtrace.
    #[error("its layout is {0:?}, but this version of memtrace reads {schema:?} only", schema = crate::record::EVENTS_SCHEMA)]
    Schema(String),
}

/// Reads an events file to its end, or to where memtrace was killed.
///
/// # Errors
/// When `input` cannot be read or is no events file, which its first line decides.
pub fn read(input: impl BufRead, options: &Options) -> Result<Lifetimes, ReadError> {
    let mut lines = Lines::new(input);
    let mut books = Books::new(options);
    let mut first = true;
    loop {
        let (line, is_whole) = match lines.next()? {
            Line::Whole(line) => (line, true),
            Line::Last(line) => (line, false),
            Line::TooLong if first => return Err(ReadError::NotEvents),
            Line::TooLong => {
                books.counts.malformed_lines += 1;
                continue;
            }
            Line::End if first => return Err(ReadError::Empty),
            Line::End => break,
        };
        match Event::parse(line) {
            Some(Event::Begin { schema, .. }) if schema != crate::record::EVENTS_SCHEMA => {
                return Err(ReadError::Schema(schema.into_owned()));
            }
            Some(event) => books.enter(event),
            None if first && is_whole => return Err(event::what_else(line)),
            None if first && !event::may_begin_one(line) => return Err(event::what_else(line)),
            None if is_whole => books.counts.malformed_lines += 1,
            None => books.counts.cut_lines += 1,
        }
        first = false;
    }
    Ok(books.close())
}

#[cfg(test)]
mod tests;
