//! A line of an events file, read. The file comes from anywhere, so numbers are checked for what they can be.

use std::borrow::Cow;

use memtrace_common::sampling;
use serde::Deserialize;

use super::ReadError;

/// No thread has a greater id (PID_MAX_LIMIT, include/linux/threads.h).
const HIGHEST_ID: u32 = 1 << 22;

/// No address space is larger (x86_64 with five levels of page tables).
const LARGEST_SIZE: u64 = 1 << 57;

/// One byte at the largest interval that `record` takes, 1 TiB.
const LARGEST_WEIGHT: f64 = (1u64 << 40) as f64;

/// A recorded block, at its allocation or its free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// When that was, in nanoseconds.
    pub(super) time_ns: u64,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) address: u64,
    pub(super) stack: u64,
    /// In bytes.
    pub(super) size: u64,
    /// For how many allocations it stands, in 1/65536 ([`sampling::OBJECT_UNIT`]).
    pub(super) weight: u64,
}

/// One line.
#[derive(Debug, PartialEq)]
pub(super) enum Event<'a> {
    Begin { schema: Cow<'a, str>, sample_interval: Option<u64> },
    Alloc(Block),
    Free { block: Block, age_ns: u64 },
    Exec { time_ns: u64, pid: u32 },
    Stack { stack: u64, frames: Vec<Cow<'a, str>>, places: Vec<Cow<'a, str>> },
    End { time_ns: u64, losses: Vec<Loss<'a>> },
    Unknown,
}

/// What was lost while recording.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Loss<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) count: u64,
    #[serde(borrow, default)]
    pub(super) meaning: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

#[derive(Deserialize)]
struct BlockLine<'a> {
    time_ns: u64,
    pid: u32,
    tid: u32,
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow)]
    stack: Cow<'a, str>,
    size: u64,
    weight: f64,
    #[serde(default)]
    age_ns: Option<u64>,
}

impl BlockLine<'_> {
    fn block(&self) -> Option<Block> {
        let is_possible = self.tid <= HIGHEST_ID
            && self.size <= LARGEST_SIZE
            && self.weight > 0.0
            && self.weight <= LARGEST_WEIGHT;
        is_possible.then_some(Block {
            time_ns: self.time_ns,
            pid: self.pid,
            tid: self.tid,
            address: u64::from_str_radix(self.address.strip_prefix("0x")?, 16).ok()?,
            stack: hex(&self.stack)?,
            size: self.size,
            weight: (self.weight * sampling::OBJECT_UNIT as f64).round() as u64,
        })
    }
}

#[derive(Deserialize)]
struct BeginLine<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
    sample_interval: Option<u64>,
}

#[derive(Deserialize)]
struct ExecLine {
    time_ns: u64,
    pid: u32,
}

#[derive(Deserialize)]
struct StackLine<'a> {
    #[serde(borrow)]
    stack: Cow<'a, str>,
    #[serde(borrow)]
    frames: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    places: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct EndLine<'a> {
    time_ns: u64,
    #[serde(borrow, default)]
    losses: Vec<Loss<'a>>,
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

fn from<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

impl<'a> Event<'a> {
    /// Reads one line; `None` where it is none.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let Kind { event } = from(line)?;
        Some(match &*event {
            "alloc" => Self::Alloc(from::<BlockLine<'_>>(line)?.block()?),
            "free" => {
                let line: BlockLine<'_> = from(line)?;
                let age_ns = line.age_ns.filter(|&age| age <= line.time_ns)?;
                Self::Free { block: line.block()?, age_ns }
            }
            "stack" => {
                let StackLine { stack, frames, places } = from(line)?;
                Self::Stack { stack: hex(&stack)?, frames, places }
            }
            "begin" => {
                let BeginLine { schema, sample_interval } = from(line)?;
                Self::Begin { schema, sample_interval }
            }
            "exec" => {
                let ExecLine { time_ns, pid } = from(line)?;
                Self::Exec { time_ns, pid }
            }
            "end" => {
                let EndLine { time_ns, losses } = from(line)?;
                Self::End { time_ns, losses }
            }
            _ => Self::Unknown,
        })
    }
}

/// Whether this can be the beginning of a line of an events file.
pub(super) fn may_begin_one(line: &[u8]) -> bool {
    const BEGINNING: &[u8] = br#"{"event":""#;
    let common = line.len().min(BEGINNING.len());
    common > 0 && line[..common] == BEGINNING[..common]
}

/// What a file is whose first line is no event.
pub(super) fn what_else(line: &[u8]) -> ReadError {
    #[derive(Deserialize)]
    struct Other<'a> {
        #[serde(borrow)]
        schema: Cow<'a, str>,
    }
    match from(line) {
        Some(Other { schema }) if schema == crate::output::json::SCHEMA => ReadError::JsonProfile,
        _ => ReadError::NotEvents,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOC: &str = r#"{"event":"alloc","time_ns":5000,"pid":7,"tid":9,"address":"0x7f1234","stack":"0abc","size":100,"weight":1.5}"#;

    fn parse(line: &str) -> Option<Event<'_>> {
        Event::parse(line.as_bytes())
    }

    #[test]
    fn fields_may_be_added_and_kinds_too() {
        let block = Block {
            time_ns: 5000,
            pid: 7,
            tid: 9,
            address: 0x7f_1234,
            stack: 0xabc,
            size: 100,
            weight: 3 << 15,
        };
        assert_eq!(parse(ALLOC), Some(Event::Alloc(block)));
        assert_eq!(parse(&ALLOC.replace("\"pid\"", "\"new\":[{}],\"pid\"")), Some(Event::Alloc(block)));
        assert_eq!(parse(r#"{"event":"mmap","size":"large"}"#), Some(Event::Unknown));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for (old, new) in [
            ("1.5", "-1"),
            ("1.5", "0"),
            ("1.5", "1e300"),
            ("1.5", "null"),
            (":100", ":-100"),
            (":100", ":18446744073709551615"),
            (":9", ":4294967295"),
            ("0x7f1234", "7f1234"),
            ("0x7f1234", "0x"),
            ("0abc", "0abcg"),
            ("alloc", "free"),
        ] {
            assert!(ALLOC.contains(old));
            assert_eq!(parse(&ALLOC.replacen(old, new, 1)), None, "{old} -> {new}");
        }
        let free = ALLOC.replace("alloc", "free").replace("1.5", "1.5,\"age_ns\":5001");
        assert_eq!(parse(&free), None, "older than time");
        assert!(parse(&free.replace("5001", "5000")).is_some());
    }

    #[test]
    fn any_beginning_of_an_event_may_begin_one() {
        for end in 1..ALLOC.len() {
            assert!(may_begin_one(&ALLOC.as_bytes()[..end]), "{end}");
            assert_eq!(parse(&ALLOC[..end]), None, "{end}");
        }
        assert!(!may_begin_one(b"{\"schema\""));
        assert!(!may_begin_one(b""));
    }
}
