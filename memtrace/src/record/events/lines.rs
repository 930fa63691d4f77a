//! The lines of an events file.

use std::io::{self, Write};

use memtrace_common::sampling;
use serde::{Serialize, Serializer};

use crate::{collect::BlockChange, profile::Losses};

/// The name of the layout. Its number goes up when readers of the old layout would be misled; new fields and
/// new kinds of lines alone do not change it.
pub const SCHEMA: &str = "memtrace-events/1";

/// A frame of a stack in the events file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrame {
    /// The function, or the place in the file where no function is known.
    pub name: String,
    /// `file:line`, or empty where that is not known.
    pub place: String,
}

/// What is to be written.
pub(super) enum Line {
    Block(BlockChange),
    Exec { pid: u32, time_ns: u64 },
    Stack { stack_id: u64, frames: Vec<StackFrame> },
    End { time_ns: u64, losses: Losses },
}

/// A number as a string of hexadecimal digits after `0x`: it may exceed the 53 bits that many readers keep.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// A stack's identity: sixteen hexadecimal digits.
struct StackId(u64);

impl Serialize for StackId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Json<'a> {
    Begin {
        schema: &'static str,
        memtrace: &'static str,
        sample_interval: u64,
    },
    Alloc {
        time_ns: u64,
        pid: u32,
        tid: u32,
        address: Hex,
        stack: StackId,
        size: u64,
        weight: f64,
    },
    Free {
        time_ns: u64,
        pid: u32,
        tid: u32,
        address: Hex,
        stack: StackId,
        size: u64,
        weight: f64,
        age_ns: u64,
        allocated_by: u32,
    },
    Exec {
        time_ns: u64,
        pid: u32,
    },
    Stack {
        stack: StackId,
        frames: Vec<&'a str>,
        places: Vec<&'a str>,
    },
    End {
        time_ns: u64,
        losses: Vec<Loss>,
    },
}

/// As in the JSON profile.
#[derive(Serialize)]
struct Loss {
    name: &'static str,
    count: u64,
    meaning: &'static str,
}

/// Writes the first line.
pub(super) fn write_begin(out: &mut impl Write, sample_interval: u64) -> io::Result<()> {
    let memtrace = env!("CARGO_PKG_VERSION");
    write(out, &Json::Begin { schema: SCHEMA, memtrace, sample_interval })
}

fn write(out: &mut impl Write, line: &Json<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

impl Line {
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Block(change) => write(out, &block(change)),
            &Self::Exec { pid, time_ns } => write(out, &Json::Exec { time_ns, pid }),
            Self::Stack { stack_id, frames } => {
                let names = frames.iter().map(|frame| frame.name.as_str()).collect();
                let places = frames.iter().map(|frame| frame.place.as_str()).collect();
                write(out, &Json::Stack { stack: StackId(*stack_id), frames: names, places })
            }
            Self::End { time_ns, losses } => {
                let losses =
                    losses.iter().map(|it| Loss { name: it.name, count: it.count, meaning: it.meaning });
                write(out, &Json::End { time_ns: *time_ns, losses: losses.collect() })
            }
        }
    }
}

fn block(change: &BlockChange) -> Json<'static> {
    let BlockChange { pid, tid, time_ns, address, ref block, freed } = *change;
    let (address, stack, size) = (Hex(address), StackId(block.stack_id), block.size);
    let weight = block.objects as f64 / sampling::OBJECT_UNIT as f64;
    if freed {
        let (age_ns, allocated_by) = (time_ns.saturating_sub(block.time_ns), block.tid);
        Json::Free { time_ns, pid, tid, address, stack, size, weight, age_ns, allocated_by }
    } else {
        // The time from which the age is counted, which is some hundred nanoseconds before the event: so
        // a free's time less its age tells which allocation of that address it is of.
        Json::Alloc { time_ns: block.time_ns, pid, tid, address, stack, size, weight }
    }
}
