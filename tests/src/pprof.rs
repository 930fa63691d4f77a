//! A reader of pprof profiles, from profile.proto (github.com/google/pprof/blob/main/proto/profile.proto)
//! and not from memtrace's writer.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use prost::Message;

use crate::stacks::{Frame, Stack, Stacks, Values};

/// The messages and fields of profile.proto, of which the file documents each.
#[allow(missing_docs)]
pub mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub comment: Vec<i64>,
        #[prost(int64, tag = "14")]
        pub default_sample_type: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub kind: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub file_offset: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
        #[prost(bool, tag = "8")]
        pub has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
        #[prost(int64, tag = "5")]
        pub start_line: i64,
    }
}

impl proto::Profile {
    /// Reads the gzipped profile at `path`.
    pub fn read(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut bytes = Vec::new();
        let unzipped = flate2::read::GzDecoder::new(file).read_to_end(&mut bytes);
        unzipped.unwrap_or_else(|error| panic!("{} is not gzipped: {error}", path.display()));
        Self::decode(&*bytes)
            .unwrap_or_else(|error| panic!("{} is no pprof profile: {error}", path.display()))
    }

    /// The string at `index` of the string table.
    pub fn text(&self, index: i64) -> &str {
        let entry = usize::try_from(index).ok().and_then(|index| self.string_table.get(index));
        entry.unwrap_or_else(|| panic!("string {index} is not in the table"))
    }

    /// A value type as pprof prints it: `inuse_space/bytes`.
    pub fn type_name(&self, value: &proto::ValueType) -> String {
        format!("{}/{}", self.text(value.kind), self.text(value.unit))
    }

    /// The mapping called `name`, by the last component of its path.
    pub fn mapping_of(&self, name: &str) -> &proto::Mapping {
        let found = self.mapping.iter().find(|m| self.text(m.filename).rsplit('/').next() == Some(name));
        found.unwrap_or_else(|| panic!("the profile has no mapping of {name}"))
    }

    /// The stacks with the four values of a heap profile, which must be there in Go's order.
    pub fn stacks(&self) -> Stacks {
        let types: Vec<_> = self.sample_type.iter().map(|value| self.type_name(value)).collect();
        assert_eq!(
            types,
            ["alloc_objects/count", "alloc_space/bytes", "inuse_objects/count", "inuse_space/bytes"]
        );
        let mappings: HashMap<_, _> = self.mapping.iter().map(|m| (m.id, self.text(m.filename))).collect();
        let functions: HashMap<_, _> = self.function.iter().map(|f| (f.id, f)).collect();
        let locations: HashMap<_, _> = self.location.iter().map(|l| (l.id, l)).collect();
        let frames = |id: &u64| {
            let location = locations.get(id).unwrap_or_else(|| panic!("no location {id}"));
            let mapping = mappings.get(&location.mapping_id).copied();
            let mapping = mapping.unwrap_or_else(|| panic!("no mapping on {location:?}"));
            let blank = Frame {
                function: String::new(),
                file: String::new(),
                line: 0,
                address: location.address,
                mapping: mapping.to_owned(),
                inlined: false,
            };
            if location.line.is_empty() {
                return vec![blank];
            }
            let last = location.line.len() - 1;
            let lines = location.line.iter().enumerate().map(|(index, line)| {
                let function =
                    functions.get(&line.function_id).unwrap_or_else(|| panic!("no function for {line:?}"));
                Frame {
                    function: self.text(function.name).to_owned(),
                    file: self.text(function.filename).to_owned(),
                    line: line.line,
                    inlined: index < last,
                    ..blank.clone()
                }
            });
            lines.collect()
        };
        let stack = |sample: &proto::Sample| {
            let value: [i64; 4] = sample.value.as_slice().try_into().expect("a sample has a value per type");
            let [alloc_objects, alloc_space, inuse_objects, inuse_space] = value;
            Stack {
                frames: sample.location_id.iter().flat_map(frames).collect(),
                values: Values { alloc_objects, alloc_space, inuse_objects, inuse_space },
            }
        };
        Stacks(self.sample.iter().map(stack).collect())
    }
}
