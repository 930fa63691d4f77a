//! Any profile that passes [`Profile::check`], for property tests: hostile names, extreme numbers.

use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Function, Line, Location, Mapping, Profile, Sample};

/// Names as a malicious or merely unlucky target may have them.
pub(crate) fn name() -> impl Strategy<Value = String> {
    let unlucky = [
        "",
        " ",
        "main",
        "f (.cold)",
        "f  g",
        "thunk 16",
        "a 10 5",
        "[u8; 8]",
        "# note",
        "-->]]><script>&\"'",
        "\u{1b}[31mred",
        "x\ny;z 3",
        "名前\u{202e}\u{ffff}\0",
        "f_[k]",
        "--",
    ];
    prop_oneof![
        prop::sample::select(unlucky.to_vec()).prop_map(str::to_owned),
        vec(any::<char>(), 0..12).prop_map(String::from_iter),
        // Numbers and spaces are what folded stacks can be misread by.
        vec(prop::sample::select(vec!['a', ' ', ';', '1', '.', '#', '(']), 0..8).prop_map(String::from_iter),
    ]
}

fn value() -> impl Strategy<Value = i64> {
    prop_oneof![9 => -4096..1_i64 << 40, 1 => any::<i64>()]
}

fn mapping() -> impl Strategy<Value = Mapping> {
    (any::<[u64; 3]>(), name(), "([0-9a-f]{2}){0,20}").prop_map(
        |([start, end, file_offset], path, build_id)| Mapping { start, end, file_offset, path, build_id },
    )
}

fn function() -> impl Strategy<Value = Function> {
    (name(), prop::option::of(name()), name(), any::<u32>()).prop_map(
        |(name, system_name, file, start_line)| Function {
            system_name: system_name.unwrap_or_else(|| name.clone()),
            name,
            file,
            start_line,
        },
    )
}

type Index = prop::sample::Index;

fn lines() -> impl Strategy<Value = Vec<(Index, u32)>> {
    vec((any::<Index>(), any::<u32>()), 0..4)
}

/// Any consistent profile with the heap's value types.
pub(crate) fn profile() -> impl Strategy<Value = Profile> {
    let tables =
        (vec(mapping(), 1..4), vec(function(), 1..5), vec((any::<u64>(), any::<Index>(), lines()), 1..8));
    let samples = vec((vec(any::<Index>(), 0..8), vec(value(), 4), vec((name(), name()), 0..3)), 0..8);
    let run = (any::<u64>(), any::<i32>(), any::<u32>(), prop::option::of(any::<Index>()), vec(name(), 0..3));
    (tables, samples, run).prop_map(|((mappings, functions, locations), samples, run)| {
        let (interval, seconds, milliseconds, main, comments) = run;
        let offset = Duration::from_secs(seconds.unsigned_abs().into());
        let time = match seconds {
            0.. => SystemTime::UNIX_EPOCH + offset * 200,
            _ => SystemTime::UNIX_EPOCH - offset,
        };
        let mut profile = Profile::heap(interval, time, Duration::from_millis(milliseconds.into()));
        profile.mappings.extend(mappings);
        profile.functions.extend(functions);
        profile.main_mapping = main.map(|main| main.index(profile.mappings.len()));
        for (address, mapping, lines) in locations {
            let mapping = mapping.index(profile.mappings.len());
            let functions = profile.functions.len();
            let lines =
                lines.into_iter().map(|(function, line)| Line { function: function.index(functions), line });
            let lines = lines.collect();
            profile.locations.insert(Location { address, mapping, lines });
        }
        for (stack, values, labels) in samples {
            let stack = stack.iter().map(|location| location.index(profile.locations.len())).collect();
            profile.samples.push(Sample { stack, values, labels, ..Sample::default() });
        }
        profile.losses.add("ring_full", u64::from(milliseconds % 3), "Records were lost.");
        profile.comments = comments;
        profile
    })
}
