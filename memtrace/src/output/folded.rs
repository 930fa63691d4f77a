//! Folded stacks, one line each: `main;parse;read_all 4096`, the root first, then one value.
//!
//! The format is that of Brendan Gregg's `stackcollapse` scripts
//! (<https://github.com/brendangregg/FlameGraph>); flame graph tools, speedscope and others read it.
//! A stack that does not reach the thread's first function has a root of its own that says so.
//! It holds neither addresses nor lines, and each inlined function is a frame of its own. Stacks that
//! are the same by name are one line, and a stack without a value has none.
//!
//! The format has no escapes of its own. So that a name is read as one name and the value as the value,
//! names are changed a little:
//!
//! - what is not printable is escaped, newlines among it;
//! - `;` becomes `:`, as in Brendan Gregg's scripts;
//! - there is no space at either end;
//! - a space is escaped where a reader would take what follows for a value (`thunk 16`);
//! - `#` at the beginning is escaped: such lines are comments to some readers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use super::{Error, check};
use crate::profile::{Frame, Profile, printable};

/// A stack's frames with the root first, and its value.
pub(super) type Stacks = BTreeMap<Vec<String>, u64>;

/// Writes the stacks with value `index` of each, sorted by name.
///
/// # Errors
///
/// If `out` fails, if there is no value `index`, if the profile does not pass [`Profile::check`], or if
/// a stack's values add up to more than 64 bits hold.
pub fn write(profile: &Profile, index: usize, out: &mut dyn Write) -> Result<(), Error> {
    for (stack, value) in stacks(profile, index)? {
        writeln!(out, "{} {value}", stack.join(";"))?;
    }
    Ok(())
}

/// The stacks whose value `index` is more than 0.
pub(super) fn stacks(profile: &Profile, index: usize) -> Result<Stacks, Error> {
    check(profile, index)?;
    let names: Vec<Vec<String>> = profile
        .locations
        .iter()
        .map(|location| profile.frames_at(location).map(|frame| frame_name(&frame)).collect())
        .collect();
    let mut sums: BTreeMap<Vec<Cow<'_, str>>, i128> = BTreeMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.values[index] != 0) {
        let leaf_first = sample.stack.iter().flat_map(|&location| &names[location]);
        let mut stack: Vec<Cow<'_, str>> = leaf_first.map(|name| name.as_str().into()).collect();
        stack.extend(sample.cut_short().map(|end| format!("[stack cut short: {end}]").into()));
        stack.reverse();
        if stack.is_empty() {
            stack.push("[no stack]".into());
        }
        *sums.entry(stack).or_default() += i128::from(sample.values[index]);
    }
    let positive = sums.into_iter().filter(|&(_, value)| value > 0);
    positive
        .map(|(stack, value)| {
            let value = u64::try_from(value).map_err(|_| Error::TooLarge)?;
            Ok((stack.into_iter().map(Cow::into_owned).collect(), value))
        })
        .collect()
}

/// A frame's name as it can stand in a line: see the module's front page.
fn frame_name(frame: &Frame<'_>) -> String {
    let name = frame.name();
    let name = printable(&name);
    let mut name = name.trim_matches(' ').replace(';', ":");
    if let Some(space) = name.rfind(' ')
        && name[space + 1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        name.replace_range(space..=space, r"\u{20}");
    }
    if name.starts_with('#') {
        name.replace_range(..1, r"\u{23}");
    }
    if name.is_empty() {
        name.push_str("[no name]");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;
    use crate::profile::{Function, Line, Location, Sample, arbitrary};

    fn folded(profile: &Profile, index: usize) -> String {
        let mut out = Vec::new();
        write(profile, index, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn named(names: &[&str]) -> Profile {
        let mut profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::ZERO);
        let mapping = profile.unknown_mapping();
        for (address, name) in names.iter().enumerate() {
            let function = Function { name: (*name).to_owned(), ..Function::default() };
            let function = profile.functions.insert_full(function).0;
            let lines = vec![Line { function, line: 0 }];
            profile.locations.insert(Location { address: address as u64, mapping, lines });
            profile.samples.push(Sample {
                stack: vec![address],
                values: vec![1; 4],
                labels: vec![],
                ..Sample::default()
            });
        }
        profile
    }

    #[test]
    fn root_first_inlined_frames_apart_and_labels_merged() {
        insta::assert_snapshot!(folded(&sample::profile(), 3), @r"
        libc.so.6+0x27249;main;0x7f11deadb000 1048576
        libc.so.6+0x27249;main;<app::Frame<[u8: 8]> as app::Decode>::decode::{{closure}} 98304
        libc.so.6+0x27249;main;cache_insert;buffer_new 8388608
        libc.so.6+0x27249;main;std::map<std::string, std::vector<int>>::operator[](std::string&&);operator new(unsigned long) 1572864
        ");
    }

    #[test]
    fn another_value_can_be_chosen() {
        let objects = folded(&sample::profile(), 0);
        assert!(objects.contains("cache_insert;buffer_new 4096\n"), "{objects}");
        assert!(objects.contains("operator[](std::string&&) 5000000\n"), "{objects}");
        let error = write(&sample::profile(), 4, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::NoSuchValue { index: 4, count: 4 }));
    }

    #[test]
    fn names_cannot_be_taken_for_values_frames_lines_or_comments() {
        let names = ["x\ny", "[u8; 8]", "thunk 16", " padded ", "# note", " ", "f 1.5"];
        insta::assert_snapshot!(folded(&named(&names), 3), @r"
        [no name] 1
        [u8: 8] 1
        \u{23} note 1
        f\u{20}1.5 1
        padded 1
        thunk\u{20}16 1
        x\ny 1
        ");
    }

    #[test]
    fn a_sample_without_a_stack_is_kept() {
        let mut profile = named(&[]);
        profile.samples.push(Sample {
            stack: vec![],
            values: vec![1, 2, 3, 4],
            labels: vec![],
            ..Sample::default()
        });
        assert_eq!(folded(&profile, 3), "[no stack] 4\n");
    }

    #[test]
    fn sums_beyond_64_bits_are_an_error() {
        let mut profile = named(&[]);
        for _ in 0..3 {
            profile.samples.push(Sample {
                stack: vec![],
                values: vec![i64::MAX; 4],
                labels: vec![],
                ..Sample::default()
            });
        }
        assert!(matches!(write(&profile, 3, &mut Vec::new()), Err(Error::TooLarge)));
    }

    proptest! {
        #[test]
        fn every_line_is_a_stack_and_a_value(profile in arbitrary::profile()) {
            let expected = stacks(&profile, 3);
            prop_assume!(expected.is_ok());
            let expected = expected.unwrap();
            let text = folded(&profile, 3);
            let read: BTreeMap<Vec<String>, u64> = text.lines().map(|line| {
                let (stack, value) = line.rsplit_once(' ').unwrap();
                (stack.split(';').map(str::to_owned).collect(), value.parse().unwrap())
            }).collect();
            prop_assert_eq!(text.lines().count(), expected.len());
            prop_assert_eq!(read, expected);
        }
    }
}
