//! A reader of memtrace's JSON profile, as `docs/json.md` describes it.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::Path;

use serde::Deserialize;

use crate::stacks::{Frame, Stack, Stacks, Values};

/// What the tests read of a `memtrace-profile/1`; a field that is not there fails the reading.
#[derive(Debug, Deserialize)]
pub struct Profile {
    schema: String,
    /// When the recording began, RFC 3339.
    pub time: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// The sampling interval.
    pub interval: Interval,
    /// The value type to show first.
    pub default_value: String,
    mappings: Vec<Mapping>,
    stacks: Vec<RawStack>,
    /// What is missing; empty when nothing is.
    pub losses: Vec<Loss>,
    /// Numbers about the recording itself.
    statistics: BTreeMap<String, f64>,
    /// Facts about the run.
    pub comments: Vec<String>,
}

/// The mean distance between two samples.
#[derive(Debug, Deserialize)]
pub struct Interval {
    /// In bytes for a heap profile.
    pub value: i64,
    /// Of `value`.
    pub unit: String,
}

/// One way in which data was lost.
#[derive(Debug, Deserialize)]
pub struct Loss {
    /// For programs.
    pub name: String,
    /// How often.
    pub count: u64,
    /// For people.
    pub meaning: String,
}

/// Losses that say how much is known of a stack above its direct caller. They are no losses of the books: where
/// a walk ends early the callers' callers are missing, and where there are no symbols their names.
const OF_STACKS: [&str; 8] = [
    "stacks_incomplete",
    "stacks_truncated",
    "stacks_too_deep",
    "stacks_no_mapping",
    "stacks_no_table",
    "stacks_bad_read",
    "stacks_unsupported_rule",
    "frames_without_symbol",
];

#[derive(Debug, Deserialize)]
struct Mapping {
    path: String,
}

#[derive(Debug, Deserialize)]
struct RawStack {
    frames: Vec<RawFrame>,
    values: Values,
    values_standard_error: Option<Errors>,
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Debug, Deserialize)]
struct Label {
    key: String,
    value: String,
}

/// The standard errors of a stack's values: the root of what their estimates vary by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Errors {
    /// Of the number of objects allocated.
    pub alloc_objects: f64,
    /// Of the bytes in them.
    pub alloc_space: f64,
    /// Of the number of objects.
    pub inuse_objects: f64,
    /// Of the bytes in them.
    pub inuse_space: f64,
}

impl AddAssign for Errors {
    /// The standard error of the sum: samples are drawn independently, so variances add up.
    fn add_assign(&mut self, other: Self) {
        self.alloc_objects = self.alloc_objects.hypot(other.alloc_objects);
        self.alloc_space = self.alloc_space.hypot(other.alloc_space);
        self.inuse_objects = self.inuse_objects.hypot(other.inuse_objects);
        self.inuse_space = self.inuse_space.hypot(other.inuse_space);
    }
}

#[derive(Debug, Deserialize)]
struct RawFrame {
    function: Option<String>,
    file: Option<String>,
    line: Option<i64>,
    address: String,
    mapping: usize,
    inlined: bool,
}

impl Profile {
    /// Reads the profile at `path`.
    pub fn read(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let profile: Self =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(profile.schema, "memtrace-profile/1");
        profile
    }

    /// How often the loss called `name` happened.
    pub fn loss(&self, name: &str) -> u64 {
        self.losses.iter().filter(|loss| loss.name == name).map(|loss| loss.count).sum()
    }

    /// The number called `name` about the recording itself.
    #[track_caller]
    pub fn statistic(&self, name: &str) -> f64 {
        *self.statistics.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.statistics))
    }

    /// Asserts that the books are complete: no loss is told but those that concern names and callers.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert_lost_only(&[]);
    }

    /// The same, except for the losses called `expected`.
    #[track_caller]
    pub fn assert_lost_only(&self, expected: &[&str]) {
        let known = |name: &str| OF_STACKS.contains(&name) || expected.contains(&name);
        let losses: Vec<_> = self.losses.iter().filter(|loss| !known(&loss.name)).collect();
        assert!(losses.is_empty(), "the books are incomplete: {losses:#?}");
    }

    /// The stated standard errors by the leaf's function.
    pub fn standard_errors(&self) -> BTreeMap<String, Errors> {
        let mut errors = BTreeMap::<_, Errors>::new();
        for stack in &self.stacks {
            let function = stack.frames[0].function.clone().unwrap_or_default();
            let stated = stack.values_standard_error;
            let stated = stated.unwrap_or_else(|| panic!("no standard error is stated for {function}"));
            *errors.entry(function).or_default() += stated;
        }
        errors
    }

    /// For each of its [stacks](Self::stacks) how its walk has ended; `None` where it is complete.
    pub fn stack_ends(&self) -> Vec<Option<String>> {
        let end = |stack: &RawStack| {
            stack.labels.iter().find(|label| label.key == "stack_end").map(|label| label.value.clone())
        };
        self.stacks.iter().map(end).collect()
    }

    /// The values of all stacks with the label `key`, by its value.
    pub fn by_label(&self, key: &str) -> BTreeMap<&str, Values> {
        let mut sums = BTreeMap::<_, Values>::new();
        for stack in &self.stacks {
            for label in stack.labels.iter().filter(|label| label.key == key) {
                *sums.entry(label.value.as_str()).or_default() += stack.values;
            }
        }
        sums
    }

    /// The stacks with the label `key`, by its values.
    pub fn stacks_by(&self, key: &str) -> BTreeMap<String, Stacks> {
        let mut by = BTreeMap::<_, Stacks>::new();
        for (raw, stack) in self.stacks.iter().zip(self.stacks().0) {
            if let Some(label) = raw.labels.iter().find(|label| label.key == key) {
                by.entry(label.value.clone()).or_insert_with(|| Stacks(Vec::new())).0.push(stack);
            }
        }
        by
    }

    /// Its stacks.
    pub fn stacks(&self) -> Stacks {
        let frame = |raw: &RawFrame| Frame {
            function: raw.function.clone().unwrap_or_default(),
            file: raw.file.clone().unwrap_or_default(),
            line: raw.line.unwrap_or_default(),
            address: raw
                .address
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .unwrap_or_else(|| panic!("`{}` is no address", raw.address)),
            mapping: self.mappings[raw.mapping].path.clone(),
            inlined: raw.inlined,
        };
        let stack =
            |raw: &RawStack| Stack { frames: raw.frames.iter().map(frame).collect(), values: raw.values };
        Stacks(self.stacks.iter().map(stack).collect())
    }
}
