//! What is in a pprof file, from wherever it came: totals, the top functions, what was lost.
//!
//! This is not to replace `go tool pprof`, but to look at a file where that is not installed.

mod text;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use serde::Serialize;

use crate::output::pprof::proto::{Location, Mapping, Profile};

/// The name of the JSON layout. Its number goes up when readers of the old layout would be misled; new fields
/// alone do not change it.
pub const TOP_SCHEMA: &str = "memtrace-top/1";

/// A profile by function. It serializes to what docs/events.md describes.
#[derive(Debug, Serialize)]
pub struct Top {
    schema: &'static str,
    /// Nanoseconds since 1970, 0 where it is not known.
    time_ns: i64,
    /// 0 where it is not known.
    duration_ns: i64,
    sample_types: Vec<SampleType>,
    /// The name of the sample type by which functions are ranked.
    sample_type: String,
    #[serde(skip)]
    unit: String,
    samples: usize,
    functions: Vec<Function>,
    losses: Vec<Loss>,
    statistics: Vec<Statistic>,
    comments: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SampleType {
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    total: i128,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Function {
    name: String,
    /// Of samples whose leaf it is.
    flat: i128,
    /// Of samples that have it anywhere.
    cum: i128,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Loss {
    name: String,
    count: u64,
    meaning: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Statistic {
    name: String,
    value: f64,
    unit: String,
}

/// `loss: NAME COUNT: MEANING`, as memtrace writes it into a comment.
fn loss(comment: &str) -> Option<Loss> {
    let (head, meaning) = comment.strip_prefix("loss: ")?.split_once(": ")?;
    let (name, count) = head.split_once(' ')?;
    Some(Loss { name: name.to_owned(), count: count.parse().ok()?, meaning: meaning.to_owned() })
}

/// `statistics: NAME VALUE UNIT, ...`, as memtrace writes them into a comment.
fn statistics(comment: &str) -> Option<Vec<Statistic>> {
    comment.strip_prefix("statistics: ")?.split(", ").map(statistic).collect()
}

/// `NAME VALUE UNIT`.
fn statistic(text: &str) -> Option<Statistic> {
    let mut words = text.split(' ');
    let (name, value, unit) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    words.next().is_none().then(|| Statistic { name: name.to_owned(), value, unit: unit.to_owned() })
}

impl Top {
    /// Sums a profile up by function, as `go tool pprof -top` does. The profile must come from
    /// [`decode`](crate::output::pprof::decode), which has checked it.
    pub fn of(profile: &Profile) -> Self {
        let sample_types: Vec<SampleType> = profile
            .sample_type
            .iter()
            .enumerate()
            .map(|(index, it)| SampleType {
                kind: profile.text(it.kind).to_owned(),
                unit: profile.text(it.unit).to_owned(),
                total: profile.sample.iter().map(|sample| i128::from(sample.value[index])).sum(),
            })
            .collect();
        // As pprof does, the last one where none is named (profile.SampleIndexByName).
        let default = profile.text(profile.default_sample_type);
        let named = sample_types.iter().position(|it| it.kind == default && !default.is_empty());
        let index = named.unwrap_or(sample_types.len() - 1);
        let mut top = Self {
            schema: TOP_SCHEMA,
            time_ns: profile.time_nanos,
            duration_ns: profile.duration_nanos,
            sample_type: sample_types[index].kind.clone(),
            unit: sample_types[index].unit.clone(),
            sample_types,
            samples: profile.sample.len(),
            functions: functions(profile, index),
            losses: Vec::new(),
            statistics: Vec::new(),
            comments: Vec::new(),
        };
        for comment in profile.comments() {
            match (loss(comment), statistics(comment)) {
                (Some(loss), _) => top.losses.push(loss),
                (_, Some(statistics)) => top.statistics.extend(statistics),
                _ => top.comments.push(comment.to_owned()),
            }
        }
        top
    }

    /// Writes one JSON object on one line, with the first `top` functions.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn json(mut self, top: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        self.functions.truncate(top.unwrap_or(usize::MAX));
        serde_json::to_writer(&mut *out, &self)?;
        out.write_all(b"\n")
    }
}

/// Every function with what value `index` gives it: most flat first, then most cumulative, then by name.
fn functions(profile: &Profile, index: usize) -> Vec<Function> {
    let names = Names::of(profile);
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut functions: Vec<Function> = Vec::new();
    for sample in &profile.sample {
        let value = i128::from(sample.value[index]);
        let mut seen = HashSet::new();
        let mut is_leaf = true;
        for name in sample.location_id.iter().flat_map(|id| names.of_location(*id)) {
            let position = *at.entry(name).or_insert_with(|| {
                functions.push(Function { name: name.to_owned(), ..Function::default() });
                functions.len() - 1
            });
            if is_leaf {
                functions[position].flat += value;
                is_leaf = false;
            }
            // A recursive function is on the stack several times, and has the value once.
            if seen.insert(position) {
                functions[position].cum += value;
            }
        }
    }
    functions.retain(|it| it.flat != 0 || it.cum != 0);
    functions.sort_by(|a, b| (b.flat, b.cum, &a.name).cmp(&(a.flat, a.cum, &b.name)));
    functions
}

/// The names of locations: those of the functions inlined there, innermost first, or the place in the file.
struct Names(HashMap<u64, Vec<String>>);

impl Names {
    fn of(profile: &Profile) -> Self {
        let functions: HashMap<u64, &str> =
            profile.function.iter().map(|it| (it.id, profile.text(it.name))).collect();
        let mappings: HashMap<u64, &Mapping> = profile.mapping.iter().map(|it| (it.id, it)).collect();
        let names = |location: &Location| {
            let lines = location.line.iter().filter_map(|line| functions.get(&line.function_id));
            let names: Vec<String> =
                lines.filter(|name| !name.is_empty()).map(|name| (*name).to_owned()).collect();
            match names.is_empty() {
                true => vec![place(profile, location, mappings.get(&location.mapping_id).copied())],
                false => names,
            }
        };
        Self(profile.location.iter().map(|location| (location.id, names(location))).collect())
    }

    fn of_location(&self, id: u64) -> impl Iterator<Item = &str> {
        self.0.get(&id).into_iter().flatten().map(String::as_str)
    }
}

/// As [`Frame::name`](crate::profile::Frame::name) has it.
fn place(profile: &Profile, location: &Location, mapping: Option<&Mapping>) -> String {
    let path = mapping.map_or("", |mapping| profile.text(mapping.filename));
    match mapping {
        Some(mapping) if !path.is_empty() && path != crate::profile::Mapping::UNKNOWN => {
            let offset =
                location.address.wrapping_sub(mapping.memory_start).wrapping_add(mapping.file_offset);
            format!("{}+{offset:#x}", path.rsplit('/').next().unwrap_or(path))
        }
        _ => format!("{:#x}", location.address),
    }
}

#[cfg(test)]
mod tests;
