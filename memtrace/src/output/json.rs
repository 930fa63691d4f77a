//! JSON for programs, described in `docs/json.md`. That document and [`SCHEMA`] change together.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use super::{Error, check};
use crate::profile::{Frame, Mapping, Profile, Sample, Statistic, ValueType};

/// The name of the layout. Its number goes up when readers of the old layout would be misled; new fields
/// alone do not change it.
pub const SCHEMA: &str = "memtrace-profile/1";

/// Writes `profile` as one JSON object.
///
/// # Errors
///
/// If `out` fails, or if the profile does not pass [`Profile::check`].
pub fn write(profile: &Profile, out: &mut dyn Write) -> Result<(), Error> {
    check(profile, profile.default_value)?;
    serde_json::to_writer(&mut *out, &Root(profile)).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Serializes through references: a profile's texts can be large, and are not copied.
struct Root<'a>(&'a Profile);

impl Serialize for Root<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let profile = self.0;
        let mut root = serializer.serialize_struct("Profile", 12)?;
        root.serialize_field("schema", SCHEMA)?;
        root.serialize_field("time", &rfc3339(profile.time))?;
        root.serialize_field("duration_seconds", &profile.duration.as_secs_f64())?;
        let ValueType { kind, unit } = profile.period_type;
        root.serialize_field("interval", &Interval { kind, unit, value: profile.period })?;
        root.serialize_field(
            "value_types",
            &Each(&profile.value_types, |it: &ValueType| Type { kind: it.kind, unit: it.unit }),
        )?;
        root.serialize_field("default_value", profile.value_types[profile.default_value].kind)?;
        root.serialize_field("main_mapping", &profile.executable())?;
        root.serialize_field("mappings", &Each(&profile.mappings, JsonMapping::from))?;
        root.serialize_field("stacks", &Each(&profile.samples, |sample| Stack { profile, sample }))?;
        let losses: Vec<_> = profile
            .losses
            .iter()
            .map(|it| Loss { name: it.name, count: it.count, meaning: it.meaning })
            .collect();
        root.serialize_field("losses", &losses)?;
        root.serialize_field("statistics", &Statistics(&profile.statistics))?;
        root.serialize_field("comments", &profile.comments)?;
        root.end()
    }
}

/// A sequence of what the function makes of each element.
struct Each<I, F>(I, F);

impl<I, T, F> Serialize for Each<I, F>
where
    I: IntoIterator + Copy,
    T: Serialize,
    F: Fn(I::Item) -> T,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.into_iter().map(&self.1))
    }
}

#[derive(Serialize)]
struct Type {
    #[serde(rename = "type")]
    kind: &'static str,
    unit: &'static str,
}

#[derive(Serialize)]
struct Interval {
    #[serde(rename = "type")]
    kind: &'static str,
    unit: &'static str,
    value: i64,
}

#[derive(Serialize)]
struct Loss {
    name: &'static str,
    count: u64,
    meaning: &'static str,
}

#[derive(Serialize)]
struct JsonMapping<'a> {
    start: String,
    end: String,
    file_offset: String,
    path: &'a str,
    build_id: Option<&'a str>,
}

impl<'a> From<&'a Mapping> for JsonMapping<'a> {
    fn from(mapping: &'a Mapping) -> Self {
        Self {
            start: hex(mapping.start),
            end: hex(mapping.end),
            file_offset: hex(mapping.file_offset),
            path: &mapping.path,
            build_id: known(&mapping.build_id),
        }
    }
}

struct Stack<'a> {
    profile: &'a Profile,
    sample: &'a Sample,
}

impl Serialize for Stack<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frames: Vec<_> = self.profile.frames(self.sample).map(JsonFrame::from).collect();
        let mut stack = serializer.serialize_struct("Stack", 4)?;
        stack.serialize_field("frames", &frames)?;
        stack.serialize_field("values", &Values(&self.profile.value_types, &self.sample.values))?;
        let errors = StandardErrors(&self.profile.value_types, &self.sample.standard_errors);
        stack.serialize_field("values_standard_error", &errors)?;
        stack.serialize_field("labels", &Each(&self.sample.labels, Label::from))?;
        stack.end()
    }
}

/// An object with one field per number: its name and its unit, and the number.
struct Statistics<'a>(&'a [Statistic]);

impl Serialize for Statistics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|it| (format!("{}_{}", it.name, it.unit), it.value)))
    }
}

/// An object with one field per value type whose standard error is known.
struct StandardErrors<'a>(&'a [ValueType], &'a [Option<f64>]);

impl Serialize for StandardErrors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = self.0.iter().zip(self.1).filter_map(|(it, error)| Some((it.kind, (*error)?)));
        serializer.collect_map(known)
    }
}

/// An object with one field per value type.
struct Values<'a>(&'a [ValueType], &'a [i64]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (value_type, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(value_type.kind, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Label<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> From<&'a (String, String)> for Label<'a> {
    fn from((key, value): &'a (String, String)) -> Self {
        Self { key, value }
    }
}

#[derive(Serialize)]
struct JsonFrame<'a> {
    function: Option<&'a str>,
    system_name: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    start_line: Option<u32>,
    address: String,
    mapping: usize,
    inlined: bool,
}

impl<'a> From<Frame<'a>> for JsonFrame<'a> {
    fn from(frame: Frame<'a>) -> Self {
        Self {
            function: frame.function.and_then(|it| known(&it.name)),
            system_name: frame.function.and_then(|it| known(&it.system_name)),
            file: frame.function.and_then(|it| known(&it.file)),
            line: positive(frame.line),
            start_line: frame.function.and_then(|it| positive(it.start_line)),
            address: hex(frame.location.address),
            mapping: frame.location.mapping,
            inlined: frame.inlined,
        }
    }
}

/// As text: many readers of JSON keep numbers as doubles, which hold 53 bits.
fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn positive(line: u32) -> Option<u32> {
    Some(line).filter(|&line| line > 0)
}

/// The nearest time that RFC 3339 can write: from 1970, before which nobody recorded, to the year 9999.
fn rfc3339(time: SystemTime) -> String {
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_nanos(time.clamp(SystemTime::UNIX_EPOCH, latest)).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::output::sample;
    use crate::profile::arbitrary;

    fn value(profile: &Profile) -> Value {
        let mut out = Vec::new();
        write(profile, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_head_says_when_how_and_what() {
        let mut root = value(&sample::profile());
        root.as_object_mut().unwrap().retain(|key, _| key != "stacks" && key != "mappings");
        assert_eq!(
            root,
            json!({
                "schema": "memtrace-profile/1",
                "time": "2026-09-21T14:13:20.250000000Z",
                "duration_seconds": 12.5,
                "interval": { "type": "space", "unit": "bytes", "value": 524288 },
                "value_types": [
                    { "type": "alloc_objects", "unit": "count" },
                    { "type": "alloc_space", "unit": "bytes" },
                    { "type": "inuse_objects", "unit": "count" },
                    { "type": "inuse_space", "unit": "bytes" },
                ],
                "default_value": "inuse_space",
                "main_mapping": 1,
                "losses": [{
                    "name": "ring_full",
                    "count": 12,
                    "meaning": "Allocations were not recorded because the ring buffer was full; \
                                in-use values are too low.",
                }],
                "statistics": {},
                "comments": ["memtrace record -p 4711, glibc malloc"],
            })
        );
    }

    #[test]
    fn a_stack_has_frames_values_and_labels() {
        let root = value(&sample::profile());
        assert_eq!(
            root["stacks"][0],
            json!({
                "frames": [
                    { "function": "buffer_new", "system_name": "buffer_new", "file": "/src/buffer.h",
                      "line": 14, "start_line": 10, "address": "0x55d000001310", "mapping": 1, "inlined": true },
                    { "function": "cache_insert", "system_name": "cache_insert", "file": "/src/cache.c",
                      "line": 31, "start_line": 25, "address": "0x55d000001310", "mapping": 1, "inlined": false },
                    { "function": "main", "system_name": "main", "file": "/src/main.c",
                      "line": 57, "start_line": 40, "address": "0x55d000001456", "mapping": 1, "inlined": false },
                    { "function": null, "system_name": null, "file": null,
                      "line": null, "start_line": null, "address": "0x7f1200001249", "mapping": 0, "inlined": false },
                ],
                "values": { "alloc_objects": 4096, "alloc_space": 16_777_216,
                            "inuse_objects": 2048, "inuse_space": 8_388_608 },
                "values_standard_error": {},
                "labels": [],
            })
        );
        assert_eq!(root["stacks"][1]["labels"], json!([{ "key": "thread", "value": "worker-1" }]));
        assert_eq!(
            root["mappings"][1],
            json!({
                "start": "0x55d000000000", "end": "0x55d000100000", "file_offset": "0x4000",
                "path": "/srv/app/bin/cached", "build_id": "000000000000000000000000000055d000004000",
            })
        );
        assert_eq!(root["mappings"][3]["build_id"], Value::Null);
    }

    proptest! {
        #[test]
        fn any_profile_keeps_its_values_and_names(profile in arbitrary::profile()) {
            let root = value(&profile);
            let stacks = root["stacks"].as_array().unwrap();
            prop_assert_eq!(stacks.len(), profile.samples.len());
            for (stack, sample) in stacks.iter().zip(&profile.samples) {
                for (value_type, value) in profile.value_types.iter().zip(&sample.values) {
                    prop_assert_eq!(stack["values"][value_type.kind].as_i64(), Some(*value));
                }
                let names: Vec<_> = stack["frames"].as_array().unwrap().iter()
                    .map(|frame| frame["function"].as_str().unwrap_or("")).collect();
                let expected: Vec<_> = profile.frames(sample)
                    .map(|frame| frame.function.map_or("", |function| &function.name)).collect();
                prop_assert_eq!(names, expected);
            }
        }
    }
}
