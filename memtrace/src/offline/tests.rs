use std::fs;

use super::*;
use crate::output::pprof::decode;
use crate::output::pprof::proto::{Label, Location, Sample, ValueType};
use crate::symbolize::Options;

/// The executable mapping of this test binary, the address of `code`, and its own symbol.
fn own() -> (u64, u64, u64, String) {
    let address = own as *const () as u64;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let line = maps.lines().find(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        (hex(start)..hex(end)).contains(&address)
    });
    let fields: Vec<_> = line.unwrap().split_whitespace().collect();
    let (start, end) = fields[0].split_once('-').unwrap();
    (hex(start), hex(end), hex(fields[2]), fields[5].to_owned())
}

/// A profile with one location in each of: this binary, a file that is not there, `[vdso]`, and none; the
/// last has a name already.
fn profile() -> Profile {
    let (start, limit, offset, path) = own();
    let texts = [
        "",
        "space",
        "bytes",
        &path,
        "/no/such",
        "abcd",
        "[vdso]",
        "known",
        "loss: frames_in_absent_file 7: old",
        "a remark",
    ];
    let mapping = |id, filename, build_id| Mapping {
        id,
        memory_start: start,
        memory_limit: limit,
        file_offset: offset,
        filename,
        build_id,
        ..Mapping::default()
    };
    let location =
        |id, mapping_id, address, line| Location { id, mapping_id, address, line, ..Location::default() };
    let known = vec![Line { function_id: 9, line: 12, column: 3 }];
    Profile {
        sample_type: vec![ValueType { kind: 1, unit: 2 }],
        sample: vec![Sample {
            location_id: vec![1, 2, 3, 4, 5],
            value: vec![77],
            label: vec![Label { key: 1, num: 5, num_unit: 2, ..Label::default() }],
        }],
        mapping: vec![mapping(1, 3, 0), mapping(2, 4, 5), mapping(3, 6, 0)],
        location: vec![
            location(1, 1, own as *const () as u64 + 4, vec![]),
            location(2, 2, start + 1, vec![]),
            location(3, 3, start + 1, vec![]),
            location(4, 0, 4711, vec![]),
            location(5, 1, own as *const () as u64 + 4, known),
        ],
        function: vec![Function { id: 9, name: 7, ..Function::default() }],
        string_table: texts.map(str::to_owned).to_vec(),
        comment: vec![8, 9],
        period: 1234,
        time_nanos: 5,
        doc_url: 7,
        ..Profile::default()
    }
}

fn run(profile: &mut Profile) -> Outcome {
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    symbolize(profile, &Files::default(), &symbolizer)
}

fn names(profile: &Profile, location: usize) -> Vec<&str> {
    let function = |line: &Line| profile.function.iter().find(|it| it.id == line.function_id).unwrap();
    profile.location[location].line.iter().map(|line| profile.text(function(line).name)).collect()
}

#[test]
fn what_has_no_name_gets_one_and_all_else_stays() {
    let before = profile();
    let mut after = before.clone();
    let outcome = run(&mut after);
    assert_eq!((outcome.asked, outcome.named), (2, 1));
    assert_eq!(outcome.files, [own().3]);
    // The profile had no build-id for it.
    assert_eq!(outcome.unchecked, outcome.files);
    let losses: Vec<_> = outcome.losses.iter().map(|loss| (loss.name, loss.count)).collect();
    assert_eq!(losses, [("frames_in_absent_file", 1)]);

    assert_eq!(names(&after, 0), ["memtrace::offline::tests::own"]);
    assert!(after.location[0].line[0].line > 0);
    let main = &after.mapping[0];
    assert!(main.has_functions && main.has_filenames && main.has_line_numbers);
    assert_eq!(after.location[1..], before.location[1..]);
    assert_eq!(after.mapping[1..], before.mapping[1..]);
    let comments: Vec<_> = after.comments().collect();
    assert_eq!(comments[0], "a remark");
    assert!(
        comments[1].starts_with("loss: frames_in_absent_file 1: ") && comments.len() == 2,
        "{comments:?}"
    );

    // Everything else is what it was, and the whole is still a profile.
    let mut rest = after.clone();
    rest.location.clone_from(&before.location);
    rest.mapping.clone_from(&before.mapping);
    rest.comment.clone_from(&before.comment);
    rest.function.truncate(before.function.len());
    rest.string_table.truncate(before.string_table.len());
    assert_eq!(rest, before);
    let mut bytes = Vec::new();
    crate::output::pprof::write_message(&after, &mut bytes).unwrap();
    assert_eq!(decode(&bytes).unwrap(), after);

    // A second time there is nothing more to be found, and nothing is said twice.
    let mut again = after.clone();
    let outcome = run(&mut again);
    assert_eq!((outcome.asked, outcome.named), (1, 0));
    assert_eq!(again.comments().collect::<Vec<_>>(), after.comments().collect::<Vec<_>>());
    assert_eq!(again.location, after.location);
}

#[test]
fn a_name_without_a_line_gets_the_line() {
    let mut profile = profile();
    profile.location[4].line[0].line = 0;
    let outcome = run(&mut profile);
    assert_eq!((outcome.asked, outcome.named), (3, 2));
    assert_eq!(names(&profile, 4), names(&profile, 0));
}

#[test]
fn addresses_outside_of_their_mapping_are_in_no_file() {
    let mut profile = profile();
    profile.location[0].address = 5;
    let outcome = run(&mut profile);
    assert_eq!(outcome.named, 0);
    let losses: Vec<_> = outcome.losses.iter().map(|loss| (loss.name, loss.count)).collect();
    assert_eq!(losses, [("frames_without_symbol", 1), ("frames_in_absent_file", 1)]);
}
