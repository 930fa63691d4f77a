//! What the encoder promises, read back with the decoder.

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::proto;
use super::*;
use crate::output::sample;
use crate::profile::{Function, Line, Location, Mapping, Sample, arbitrary};

fn written(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(profile, &mut bytes).unwrap();
    bytes
}

fn read_back(profile: &Profile) -> proto::Profile {
    decode(&written(profile)).unwrap()
}

fn small(functions: &[Function]) -> Profile {
    let mut profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::ZERO);
    let mapping = profile.unknown_mapping();
    for (index, function) in functions.iter().enumerate() {
        let function = profile.functions.insert_full(function.clone()).0;
        profile.locations.insert(Location {
            address: 16 * index as u64,
            mapping,
            lines: vec![Line { function, line: 1 }],
        });
    }
    profile
}

#[test]
fn the_types_are_those_of_gos_heap_profile() {
    let profile = read_back(&sample::profile());
    let types: Vec<_> =
        profile.sample_type.iter().map(|it| (profile.text(it.kind), profile.text(it.unit))).collect();
    assert_eq!(
        types,
        [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ]
    );
    assert_eq!(profile.text(profile.default_sample_type), "inuse_space");
    let period_type = profile.period_type.unwrap();
    assert_eq!((profile.text(period_type.kind), profile.text(period_type.unit)), ("space", "bytes"));
    assert_eq!(profile.period, 512 * 1024);
    assert_eq!(profile.time_nanos, 1_790_000_000_250_000_000);
    assert_eq!(profile.duration_nanos, 12_500_000_000);
}

#[test]
fn the_main_executable_comes_first_wherever_the_source_put_it() {
    let mut source = sample::profile();
    assert_eq!(source.mappings[0].path, "/usr/lib/x86_64-linux-gnu/libc.so.6");
    let profile = read_back(&source);
    assert_eq!(profile.text(profile.mapping[0].filename), "/srv/app/bin/cached");
    let ids: Vec<_> = profile.mapping.iter().map(|it| it.id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);

    // Not told, the first that is a file.
    source.main_mapping = None;
    source.mappings.clear();
    for path in ["[vdso]", "", "/bin/x", "/lib/y.so", "[unknown]"] {
        source.mappings.insert(Mapping { path: path.to_owned(), ..Mapping::default() });
    }
    let profile = read_back(&source);
    assert_eq!(profile.text(profile.mapping[0].filename), "/bin/x");
}

#[test]
fn the_flags_say_what_is_known_of_a_mapping() {
    let profile = read_back(&sample::profile());
    let flags: HashMap<_, _> = profile
        .mapping
        .iter()
        .map(|it| {
            let flags = (it.has_functions, it.has_filenames, it.has_line_numbers, it.has_inline_frames);
            (profile.text(it.filename), flags)
        })
        .collect();
    assert_eq!(flags["/srv/app/bin/cached"], (true, true, true, true));
    assert_eq!(flags["/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"], (true, false, false, false));
    assert_eq!(flags["/usr/lib/x86_64-linux-gnu/libc.so.6"], (false, false, false, false));
    assert_eq!(flags["[unknown]"], (false, false, false, false));
}

#[test]
fn only_unmangled_names_that_look_demangled_lose_their_system_name() {
    let of = |name: &str, system_name: &str| Function {
        name: name.to_owned(),
        system_name: system_name.to_owned(),
        ..Function::default()
    };
    let profile = read_back(&small(&[
        of("malloc_wrapper", "malloc_wrapper"),
        of("<T as app::U>::c", "<T as app::U>::c"),
        of("a::f(int)", "_ZN1a1fEi"),
        of("_ZN1a1fEi", "_ZN1a1fEi"),
    ]));
    let system_names: Vec<_> = profile.function.iter().map(|it| profile.text(it.system_name)).collect();
    assert_eq!(system_names, ["malloc_wrapper", "", "_ZN1a1fEi", "_ZN1a1fEi"]);
}

#[test]
fn samples_with_the_same_stack_and_other_labels_stay_apart() {
    let profile = read_back(&sample::profile());
    let mut stacks: HashMap<_, Vec<_>> = HashMap::new();
    for sample in &profile.sample {
        let labels = sample.label.iter().map(|it| (profile.text(it.key), profile.text(it.str)));
        stacks.entry(&sample.location_id).or_default().push(labels.collect::<Vec<_>>());
    }
    assert!(
        stacks.values().any(|labels| *labels == [[("thread", "worker-1")], [("thread", "worker-2")]]),
        "{stacks:?}"
    );
}

#[test]
fn losses_are_comments_and_no_comment_can_forge_one() {
    let mut source = sample::profile();
    source.comments.push("comm: evil\nloss: nothing 0: all is well".to_owned());
    let profile = read_back(&source);
    let comments: Vec<_> = profile.comments().collect();
    assert_eq!(
        comments,
        [
            "memtrace record -p 4711, glibc malloc",
            r"comm: evil\nloss: nothing 0: all is well",
            "loss: ring_full 12: Allocations were not recorded because the ring buffer was full; \
             in-use values are too low.",
        ]
    );
}

#[test]
fn times_that_do_not_fit_are_the_nearest_that_do() {
    let century = Duration::from_secs(3_155_760_000);
    let at = |time, duration| {
        let profile = read_back(&Profile::heap(u64::MAX, time, duration));
        (profile.time_nanos, profile.duration_nanos, profile.period)
    };
    let late = SystemTime::UNIX_EPOCH + century * 10;
    assert_eq!(at(late, century * 10), (i64::MAX, i64::MAX, i64::MAX));
    assert_eq!(at(SystemTime::UNIX_EPOCH - century * 10, Duration::ZERO), (i64::MIN, 0, i64::MAX));
    let before = SystemTime::UNIX_EPOCH - Duration::from_nanos(5);
    assert_eq!(at(before, Duration::from_nanos(1)), (-5, 1, i64::MAX));
}

#[test]
fn writing_is_reproducible() {
    assert_eq!(written(&sample::profile()), written(&sample::profile()));
}

#[test]
fn what_is_no_profile_is_refused_with_a_reason() {
    let reason = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(reason(b""), "the file is empty");
    assert!(
        reason(b"main;f 12\n").starts_with("this is not a pprof profile ("),
        "{}",
        reason(b"main;f 12\n")
    );
    // No field of a profile, and yet a message.
    let stranger = [0xa0, 0x06, 0x01];
    assert!(reason(&stranger).contains("string table"), "{}", reason(&stranger));

    let whole = written(&sample::profile());
    assert!(reason(&whole[..whole.len() / 2]).starts_with("the file is damaged or cut off"));
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    assert!(reason(&damaged).starts_with("the file is damaged or cut off"), "{}", reason(&damaged));
}

#[test]
fn references_that_lead_nowhere_are_refused() {
    let sound = encode(&sample::profile()).unwrap();
    let refused = |change: &dyn Fn(&mut proto::Profile), reason: &str| {
        let mut message = sound.clone();
        change(&mut message);
        let error = decode(&message.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&|it| it.sample[0].location_id[0] = 999, "location 999");
    refused(&|it| it.location[0].mapping_id = 999, "mapping 999");
    refused(&|it| it.location[1].line.push(proto::Line { function_id: 0, line: 1, column: 0 }), "function 0");
    refused(&|it| it.location[1].id = it.location[0].id, "used twice");
    refused(&|it| it.function[0].id = 0, "function id 0");
    refused(&|it| it.mapping[0].filename = 9999, "string 9999");
    refused(&|it| it.comment.push(-1), "string -1");
    refused(&|it| it.string_table[0].push('x'), "string table");
    refused(&|it| it.sample[0].value.truncate(1), "1 values for 4");
    refused(&|it| it.sample_type.clear(), "no sample types");
}

#[test]
fn a_file_without_gzip_is_read_too() {
    let message = encode(&sample::profile()).unwrap();
    assert_eq!(decode(&message.encode_to_vec()).unwrap(), message);
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(&written(&sample::profile())[..]).read_to_end(&mut raw).unwrap();
    assert_eq!(raw, message.encode_to_vec());
}

/// A location: address, mapping (start, end, offset; path; build-id), lines.
type Told = (u64, (u64, u64, u64), String, String, Vec<(String, String, i64, i64)>);

type ToldSample = (Vec<Told>, Vec<i64>, Vec<(String, String)>);

/// The samples of a message in the terms of a [`Profile`]: addresses, mappings' paths, functions, lines.
fn told(profile: &proto::Profile) -> Vec<ToldSample> {
    let locations: HashMap<_, _> = profile.location.iter().map(|it| (it.id, it)).collect();
    let functions: HashMap<_, _> = profile.function.iter().map(|it| (it.id, it)).collect();
    let mappings: HashMap<_, _> = profile.mapping.iter().map(|it| (it.id, it)).collect();
    let text = |index| profile.text(index).to_owned();
    let tell = |id| {
        let location: &proto::Location = locations[id];
        let mapping = mappings[&location.mapping_id];
        let lines = location.line.iter().map(|line| {
            let function = functions[&line.function_id];
            (text(function.name), text(function.filename), function.start_line, line.line)
        });
        let range = (mapping.memory_start, mapping.memory_limit, mapping.file_offset);
        (location.address, range, text(mapping.filename), text(mapping.build_id), lines.collect())
    };
    let samples = profile.sample.iter();
    samples
        .map(|it| {
            let labels = it.label.iter().map(|label| (text(label.key), text(label.str)));
            (it.location_id.iter().map(tell).collect(), it.value.clone(), labels.collect())
        })
        .collect()
}

/// The same of the profile itself.
fn meant(profile: &Profile) -> Vec<ToldSample> {
    let tell = |&index: &usize| {
        let location = &profile.locations[index];
        let mapping = &profile.mappings[location.mapping];
        let lines = location.lines.iter().map(|line| {
            let function = &profile.functions[line.function];
            (function.name.clone(), function.file.clone(), function.start_line.into(), line.line.into())
        });
        let range = (mapping.start, mapping.end, mapping.file_offset);
        (location.address, range, mapping.path.clone(), mapping.build_id.clone(), lines.collect())
    };
    let samples = profile.samples.iter();
    samples
        .map(|Sample { stack, values, labels, .. }| {
            (stack.iter().map(tell).collect(), values.clone(), labels.clone())
        })
        .collect()
}

proptest! {
    #[test]
    fn every_profile_is_read_back_as_it_was(profile in arbitrary::profile()) {
        prop_assert_eq!(told(&read_back(&profile)), meant(&profile));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn damage_anywhere_makes_no_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encode(&sample::profile()).unwrap().encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = decode(&bytes);
    }
}
