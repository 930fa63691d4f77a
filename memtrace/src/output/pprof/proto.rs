//! The messages of `profile.proto`, by hand: building memtrace needs no `protoc`.
//!
//! Field numbers and meanings are those of
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>. Fields of type `i64` that stand for
//! a text are indices into [`Profile::string_table`].

/// A whole profile.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    /// What each of a sample's values means.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The stacks with their values.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// What was mapped; the first is the main executable.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// The addresses of which stacks consist.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// The functions that locations refer to.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All texts, once each; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Text: a regular expression; frames that match it and all they called are not shown.
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    /// Text: a regular expression; frames that match it are shown nevertheless.
    #[prost(int64, tag = "8")]
    pub keep_frames: i64,
    /// When the recording began, in nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took, in nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What is sampled.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// The mean distance between two samples, in the unit of `period_type`.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Texts that are shown above each report.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// Text: the sample type that is shown when none is asked for.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
    /// Text: a link to documentation.
    #[prost(int64, tag = "15")]
    pub doc_url: i64,
}

impl Profile {
    /// The text at `index` of the string table; empty where there is none, which [`decode`](super::decode())
    /// rules out.
    pub fn text(&self, index: i64) -> &str {
        usize::try_from(index).ok().and_then(|index| self.string_table.get(index)).map_or("", String::as_str)
    }

    /// The comments' texts.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.comment.iter().map(|&index| self.text(index))
    }
}

/// A kind and a unit.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ValueType {
    /// Text: what is counted.
    #[prost(int64, tag = "1")]
    pub kind: i64,
    /// Text: in what unit.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// One stack with its values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    /// Ids of locations, the leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value per sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What distinguishes samples with the same stack.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A key with a text or with a number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Label {
    /// Text.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Text; 0 where the label is a number.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// The number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Text: the number's unit.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A mapping of the target's.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Mapping {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// One past the last address.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Where in the file `memory_start` is, in bytes.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Text: the file's path.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Text: the file's build-id, in hex.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Whether its locations have function names.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Whether its functions have file names.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Whether its locations have line numbers.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Whether its locations name inlined functions.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// An address and what it stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Location {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Id of the mapping in which the address is.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address in the target.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// The functions at the address, the innermost inlined one first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
    /// Whether several functions share this code.
    #[prost(bool, tag = "5")]
    pub is_folded: bool,
}

/// A place in a function.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Line {
    /// Id of the function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// The line, or 0.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// The column, or 0.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Function {
    /// Unique, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Text: the name for people.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Text: the name as the system has it.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Text: the source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// The line at which it starts, or 0.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}
