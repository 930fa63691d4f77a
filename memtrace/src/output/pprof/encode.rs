//! From a [`Profile`] to the message.
//!
//! Ids are positions in the message plus one, as Go writes them: the format only wants them unique, but
//! there are readers that take an id for a position.

use std::time::SystemTime;

use super::proto;
use super::strings::Strings;
use crate::profile::{Function, Inconsistent, Location, Loss, Profile, ValueType, printable};

/// The message for `profile`.
///
/// A function whose name is not mangled although it looks like C++ or Rust (`a::b`, `<T as U>::c`, which
/// debug information gives for inlined functions) is written with an empty `system_name`. Otherwise pprof
/// would "demangle" it: of `<T as U>::c` only `::c` would be left.
///
/// # Errors
///
/// If the profile does not pass [`Profile::check`].
pub fn encode(profile: &Profile) -> Result<proto::Profile, Inconsistent> {
    profile.check()?;
    let mut strings = Strings::new();
    let sample_type = profile.value_types.iter().map(|it| value_type(it, &mut strings)).collect();
    let default_sample_type = strings.index(profile.value_types[profile.default_value].kind);
    let period_type = Some(value_type(&profile.period_type, &mut strings));
    let (mapping, mapping_ids) = mappings(profile, &mut strings);
    let function = profile.functions.iter().enumerate();
    let function = function.map(|(index, it)| self::function(index, it, &mut strings)).collect();
    let location = profile.locations.iter().enumerate();
    let location = location.map(|(index, it)| self::location(index, it, &mapping_ids)).collect();
    let sample = samples(profile, &mut strings);
    let comment = comments(profile).map(|text| strings.index(text)).collect();
    Ok(proto::Profile {
        sample_type,
        sample,
        mapping,
        location,
        function,
        string_table: strings.into_table(),
        drop_frames: 0,
        keep_frames: 0,
        time_nanos: unix_nanos(profile.time),
        duration_nanos: i64::try_from(profile.duration.as_nanos()).unwrap_or(i64::MAX),
        period_type,
        period: profile.period,
        comment,
        default_sample_type,
        doc_url: 0,
    })
}

fn value_type(value_type: &ValueType, strings: &mut Strings<'_>) -> proto::ValueType {
    proto::ValueType { kind: strings.index(value_type.kind), unit: strings.index(value_type.unit) }
}

/// All mappings, the main executable's first: pprof takes that place for its mark. Beside them, the id of
/// each by its index in the profile.
fn mappings<'a>(profile: &'a Profile, strings: &mut Strings<'a>) -> (Vec<proto::Mapping>, Vec<u64>) {
    let mut order: Vec<usize> = (0..profile.mappings.len()).collect();
    if let Some(main) = profile.executable() {
        order[..=main].rotate_right(1);
    }
    let mut has = vec![Has::default(); order.len()];
    for location in &profile.locations {
        has[location.mapping].note(profile, location);
    }
    let mut ids = vec![0; order.len()];
    let mut message = Vec::with_capacity(order.len());
    for (position, index) in order.into_iter().enumerate() {
        let mapping = &profile.mappings[index];
        ids[index] = id(position);
        message.push(proto::Mapping {
            id: id(position),
            memory_start: mapping.start,
            memory_limit: mapping.end,
            file_offset: mapping.file_offset,
            filename: strings.index(&mapping.path),
            build_id: strings.index(&mapping.build_id),
            has_functions: has[index].functions,
            has_filenames: has[index].filenames,
            has_line_numbers: has[index].line_numbers,
            has_inline_frames: has[index].inline_frames,
        });
    }
    (message, ids)
}

/// What is known of at least one of a mapping's locations.
#[derive(Clone, Default)]
struct Has {
    functions: bool,
    filenames: bool,
    line_numbers: bool,
    inline_frames: bool,
}

impl Has {
    fn note(&mut self, profile: &Profile, location: &Location) {
        self.inline_frames |= location.lines.len() > 1;
        for line in &location.lines {
            let function = &profile.functions[line.function];
            self.functions |= !function.name.is_empty();
            self.filenames |= !function.file.is_empty();
            self.line_numbers |= line.line != 0;
        }
    }
}

fn function<'a>(index: usize, function: &'a Function, strings: &mut Strings<'a>) -> proto::Function {
    proto::Function {
        id: id(index),
        name: strings.index(&function.name),
        system_name: strings.index(system_name(&function.name, &function.system_name)),
        filename: strings.index(&function.file),
        start_line: function.start_line.into(),
    }
}

/// What is written for a function's `system_name`, see [`encode`].
pub(crate) fn system_name<'a>(name: &str, system_name: &'a str) -> &'a str {
    // pprof's looksLikeDemangledCPlusPlus, internal/symbolizer/symbolizer.go.
    let looks_demangled = name.contains(['<', '>', '[', ']']) || name.contains("::");
    if looks_demangled && system_name == name { "" } else { system_name }
}

/// A loss as a comment.
pub(crate) fn loss_comment(loss: &Loss) -> String {
    format!("loss: {} {}: {}", loss.name, loss.count, loss.meaning)
}

fn location(index: usize, location: &Location, mapping_ids: &[u64]) -> proto::Location {
    let line = location.lines.iter().map(|line| proto::Line {
        function_id: id(line.function),
        line: line.line.into(),
        column: 0,
    });
    proto::Location {
        id: id(index),
        mapping_id: mapping_ids[location.mapping],
        address: location.address,
        line: line.collect(),
        is_folded: false,
    }
}

fn samples<'a>(profile: &'a Profile, strings: &mut Strings<'a>) -> Vec<proto::Sample> {
    let samples = profile.samples.iter();
    samples
        .map(|sample| proto::Sample {
            location_id: sample.stack.iter().map(|&index| id(index)).collect(),
            value: sample.values.clone(),
            label: sample
                .labels
                .iter()
                .map(|(key, value)| proto::Label {
                    key: strings.index(key),
                    str: strings.index(value),
                    num: 0,
                    num_unit: 0,
                })
                .collect(),
        })
        .collect()
}

/// The profile's comments, its statistics and its losses, one line each whatever the target's names hold: no name
/// may forge a loss. pprof puts all comments above its reports, so statistics share one, without those that are 0.
fn comments(profile: &Profile) -> impl Iterator<Item = String> {
    let losses = profile.losses.iter().map(loss_comment);
    let statistics = profile.statistics.iter().filter(|it| it.value != 0.0);
    let statistics: Vec<String> =
        statistics.map(|it| format!("{} {} {}", it.name, it.value, it.unit)).collect();
    let statistics = (!statistics.is_empty()).then(|| format!("statistics: {}", statistics.join(", ")));
    let comments = profile.comments.iter().map(|comment| printable(comment).into_owned());
    comments.chain(statistics).chain(losses)
}

/// Ids must not be 0.
fn id(index: usize) -> u64 {
    index as u64 + 1
}

/// Nanoseconds since 1970, the nearest that fits: the years 1677 to 2262.
fn unix_nanos(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}
