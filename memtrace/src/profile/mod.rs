//! A profile: stacks with values, and all that is needed to print them.
//!
//! Every source (native heap, mappings, page faults, Go) makes a [`Profile`], and every output reads
//! one; neither knows of the other. A profile is complete in itself: it holds resolved names, the
//! losses that happened while it was taken, and how long it took.
//!
//! The model is that of pprof's `profile.proto`, with indices instead of ids: a sample is a list of
//! [`Location`]s, a location is an address in a [`Mapping`] that stands for one or more (inlined)
//! [`Line`]s, and a line is a place in a [`Function`].

mod check;
mod escape;
mod frames;
mod losses;

#[cfg(test)]
pub(crate) mod arbitrary;

pub use check::Inconsistent;
pub use escape::printable;
pub use frames::Frame;
pub use losses::{Loss, Losses};

use std::time::{Duration, SystemTime};

use indexmap::IndexSet;

/// What one of a sample's values counts: a name and a unit, e.g. `inuse_space` in `bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueType {
    /// The field's standard term, as Go's profiles have it: `alloc_objects`, `inuse_space`, ...
    pub kind: &'static str,
    /// `bytes` or `count`.
    pub unit: &'static str,
}

/// One executable (or data) mapping of the target, as in `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Mapping {
    /// First address of the mapping in the target.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// Offset in the mapped file of `start`, in bytes.
    pub file_offset: u64,
    /// The path as the target sees it, or a name in brackets such as `[vdso]`.
    pub path: String,
    /// The ELF's GNU build-id in hex, or empty where it has none.
    pub build_id: String,
}

impl Mapping {
    /// The path of the made-up mapping that stands for "in no mapping".
    pub const UNKNOWN: &str = "[unknown]";

    /// Whether a file is mapped: not so for `[vdso]`, `[heap]` and the like, nor for anonymous memory.
    pub fn is_file(&self) -> bool {
        !self.path.is_empty() && !self.path.starts_with('[')
    }

    /// The last part of the path, e.g. `libc.so.6`.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// A function, by name and by where it is defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Function {
    /// The demangled name that a person reads.
    pub name: String,
    /// The name as the symbol table has it; equal to `name` where nothing was mangled.
    pub system_name: String,
    /// The source file, or empty.
    pub file: String,
    /// The line at which the function starts, or 0 where that is not known.
    pub start_line: u32,
}

/// A place in a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Index into [`Profile::functions`].
    pub function: usize,
    /// The line in the function's file, or 0 where that is not known.
    pub line: u32,
}

/// One frame's address and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The instruction's address in the target: for a caller, an address inside of its call
    /// instruction (the return address less one), so that it belongs to the call's line.
    pub address: u64,
    /// Index into [`Profile::mappings`]; that of [`Profile::unknown_mapping`] where the address is in none.
    pub mapping: usize,
    /// Innermost inlined function first; the last is the function that stands at the address.
    /// Empty where no symbol was found.
    pub lines: Vec<Line>,
}

/// One stack with its values.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sample {
    /// Indices into [`Profile::locations`], the leaf (the allocating function) first.
    pub stack: Vec<usize>,
    /// One value per [`Profile::value_types`].
    pub values: Vec<i64>,
    /// Labels by which pprof can select (`-tagfocus`): key, value.
    pub labels: Vec<(String, String)>,
    /// The standard error of each value under sampling, in the value's unit; `None` where it is not known.
    /// Empty where none is known. 0 means that the value is exact.
    pub standard_errors: Vec<Option<f64>>,
}

/// The label that says why a stack is not whole: the way in which its walk ended.
pub const STACK_END: &str = "stack_end";

impl Sample {
    /// Why its stack does not reach the thread's first function; `None` where it does, as far as is known.
    pub fn cut_short(&self) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == STACK_END).map(|(_, end)| end.as_str())
    }
}

/// A number about the recording itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistic {
    /// A stable name in snake case.
    pub name: &'static str,
    /// `count`, `bytes`, `seconds` or `nanoseconds`.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

impl Statistic {
    /// How many of something there were.
    pub(crate) fn count(name: &'static str, value: u64) -> Self {
        Self { name, unit: "count", value: value as f64 }
    }

    /// How large something is.
    pub(crate) fn bytes(name: &'static str, value: u64) -> Self {
        Self { name, unit: "bytes", value: value as f64 }
    }

    /// How long something has taken.
    pub(crate) fn seconds(name: &'static str, value: Duration) -> Self {
        Self { name, unit: "seconds", value: value.as_secs_f64() }
    }

    /// How long something takes each time.
    pub(crate) fn nanoseconds(name: &'static str, value: Duration) -> Self {
        Self { name, unit: "nanoseconds", value: value.as_nanos() as f64 }
    }
}

/// Stacks with values; see the module's front page.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What each of a sample's values means.
    pub value_types: Vec<ValueType>,
    /// Index of the value type to show when the reader does not ask for another.
    pub default_value: usize,
    /// What is sampled, e.g. `space` in `bytes`.
    pub period_type: ValueType,
    /// The mean distance between two samples, in the unit of `period_type`.
    pub period: i64,
    /// When the recording began.
    pub time: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Mappings, functions and locations by index, each once.
    pub mappings: IndexSet<Mapping>,
    /// Index of the mapping that holds the main executable's code. Where it is not given, outputs take
    /// the first mapping that is a file.
    pub main_mapping: Option<usize>,
    /// See `mappings`.
    pub functions: IndexSet<Function>,
    /// See `mappings`.
    pub locations: IndexSet<Location>,
    /// The stacks. Two samples may have the same stack if their labels differ.
    pub samples: Vec<Sample>,
    /// What was lost while the profile was taken.
    pub losses: Losses,
    /// Numbers about the recording itself: what was counted, what it has cost.
    pub statistics: Vec<Statistic>,
    /// Facts about the run that a reader should see: what was traced, how, with which settings.
    pub comments: Vec<String>,
}

impl Profile {
    /// An empty profile with the four sample types of Go's heap profile, `inuse_space` first shown.
    ///
    /// `interval` is the mean number of bytes between two samples; 1 means that every allocation was
    /// recorded.
    pub fn heap(interval: u64, time: SystemTime, duration: Duration) -> Self {
        Self {
            value_types: vec![
                ValueType { kind: "alloc_objects", unit: "count" },
                ValueType { kind: "alloc_space", unit: "bytes" },
                ValueType { kind: "inuse_objects", unit: "count" },
                ValueType { kind: "inuse_space", unit: "bytes" },
            ],
            default_value: 3,
            period_type: ValueType { kind: "space", unit: "bytes" },
            period: i64::try_from(interval).unwrap_or(i64::MAX),
            time,
            duration,
            mappings: IndexSet::new(),
            main_mapping: None,
            functions: IndexSet::new(),
            locations: IndexSet::new(),
            samples: Vec::new(),
            losses: Losses::default(),
            statistics: Vec::new(),
            comments: Vec::new(),
        }
    }

    /// The index of the made-up mapping `[unknown]`, to which the locations belong that are in none.
    ///
    /// Readers of pprof files want a mapping for every location. This one is added at its first use.
    pub fn unknown_mapping(&mut self) -> usize {
        let unknown = Mapping { path: Mapping::UNKNOWN.to_owned(), ..Mapping::default() };
        self.mappings.insert_full(unknown).0
    }

    /// The mapping that holds the main executable's code: `main_mapping`, or else the first that is a file.
    pub fn executable(&self) -> Option<usize> {
        self.main_mapping.or_else(|| self.mappings.iter().position(Mapping::is_file))
    }

    /// The total of value `index` over all samples, in that value's unit.
    ///
    /// A total outside of the range of `i64` is given as the end of that range.
    pub fn total(&self, index: usize) -> i64 {
        let sum: i128 = self.samples.iter().map(|sample| i128::from(sample.values[index])).sum();
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }
}
