//! `go tool pprof` is the reader that matters: every report of it works on memtrace's profiles.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::gopprof::{pprof, top};
use memtrace_tests::record::{Recorded, Recorder};
use memtrace_tests::stacks::Values;
use memtrace_tests::tools;

/// 2 MiB from leak_a, 64 KiB from leak_b, and 8 MiB that are freed again.
fn capture() -> Recorded {
    capture_of(&["run", "leak_b", "64", "1024", "churn", "1024", "8192", "leak_a", "2048", "1024"])
}

fn capture_of(operations: &[&str]) -> Recorded {
    Recorder::exact().launch(&LEAK.path(), operations).expect_success()
}

#[test]
fn top_lists_the_leaking_function_first() {
    let capture = capture();
    let rows = top("inuse_space", &[], &capture.output());
    assert_eq!((rows[0].function.as_str(), rows[0].flat.as_str()), ("leak_a", "2048kB"), "{rows:#?}");
    let leak_b = rows.iter().find(|row| row.function == "leak_b").expect("leak_b is in the table");
    assert_eq!(leak_b.flat, "64kB");
    assert!(!rows.iter().any(|row| row.function == "churn" && row.flat != "0"), "{rows:#?}");
    // In-use bytes are what is shown when nothing is asked for.
    assert!(pprof(&["-top"], &capture.output()).contains("Type: inuse_space"));
    // What churned is first among what was allocated.
    assert_eq!(top("alloc_space", &[], &capture.output())[0].function, "churn");
    assert_eq!(top("alloc_objects", &[], &capture.output())[0].flat, "2048");
    assert_eq!(top("inuse_objects", &[], &capture.output())[0].flat, "2048");
}

#[test]
fn base_leaves_only_the_growth() {
    let before = capture();
    let after =
        capture_of(&["run", "leak_b", "128", "1024", "churn", "1024", "8192", "leak_a", "2048", "1024"]);
    let base = format!("-base={}", before.output().display());
    let rows = top("inuse_space", &[&base], &after.output());
    let grown: Vec<_> = rows.iter().filter(|row| row.flat != "0").collect();
    assert_eq!(grown.len(), 1, "{rows:#?}");
    assert_eq!((grown[0].function.as_str(), grown[0].flat.as_str()), ("leak_b", "64kB"));
}

#[test]
fn list_shows_the_source_line() {
    let listing = pprof(&["-list=^leak_a$"], &capture().output());
    let line = listing.lines().find(|line| line.contains("/* LINE leak_a */")).expect("the line is listed");
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields[..3], ["2MB", "2MB", &format!("{}:", LEAK.line("leak_a"))], "{listing}");
}

#[test]
fn every_report_works() {
    tools::command("dot");
    let capture = capture();
    for (report, expected) in [
        ("-peek=leak_a", "leak_a"),
        ("-tree", "leak_a"),
        ("-traces", "leak_a"),
        ("-svg", "</svg>"),
        ("-dot", "leak_a"),
        ("-raw", "Mappings"),
    ] {
        let text = pprof(&[report], &capture.output());
        assert!(text.contains(expected), "{report} does not contain {expected}:\n{text}");
    }
}

/// The head of `-raw` is where pprof shows what the profile says of itself.
#[test]
fn the_profile_describes_itself_as_gos_heap_profile_does() {
    let capture = capture();
    let raw = pprof(&["-raw"], &capture.output());
    assert!(raw.contains("PeriodType: space bytes"), "{raw}");
    assert!(raw.contains("Period: 1"), "{raw}");
    let types = "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]";
    assert!(raw.contains(types), "{raw}");
    let profile = capture.pprof();
    assert_eq!(profile.type_name(&profile.period_type.unwrap()), "space/bytes");
    assert_eq!(profile.text(profile.default_sample_type), "inuse_space");
    let leak_a =
        profile.function.iter().find(|f| profile.text(f.name) == "leak_a").expect("leak_a is a function");
    assert_eq!(profile.text(leak_a.filename), LEAK.source().to_str().unwrap());
    // Where it is declared, or, from the line table, where its body opens: two lines and one above the call.
    let start = LEAK.line("leak_a") - 2;
    assert!((start..=start + 1).contains(&(leak_a.start_line as u64)), "{leak_a:?}");
}

#[test]
fn the_mapping_is_that_of_the_file() {
    let capture = capture();
    let profile = capture.pprof();
    let mapping = profile.mapping_of("leak");
    let program = LEAK.path();
    let notes = tools::command("readelf").args(["-n", "--wide"]).arg(&program).output().unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let build_id = notes
        .split_once("Build ID: ")
        .and_then(|(_, rest)| rest.lines().next())
        .expect("the linker sets one");
    assert_eq!(profile.text(mapping.build_id), build_id);

    // The program header from which the kernel mapped the code: offset, type, address, physical, file size, ...
    let headers = tools::command("readelf").args(["-l", "--wide"]).arg(&program).output().unwrap();
    let headers = String::from_utf8(headers.stdout).unwrap();
    let code = headers.lines().find(|line| line.trim().starts_with("LOAD") && line.contains("R E")).unwrap();
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    let fields: Vec<_> = code.split_whitespace().collect();
    assert_eq!(mapping.file_offset, hex(fields[1]), "{code}");

    // An address in the file is what readelf says of the symbol: leak_a's leaf lies inside of leak_a.
    let symbols = tools::command("readelf").args(["-s", "--wide"]).arg(&program).output().unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let symbol = symbols.lines().find(|line| line.ends_with(" leak_a")).unwrap();
    let fields: Vec<_> = symbol.split_whitespace().collect();
    let (start, size) = (hex(fields[1]), fields[2].parse::<u64>().unwrap());
    let stacks = capture.stacks();
    let leaf = &stacks.with_leaf("leak_a").next().unwrap().frames[0];
    let offset = leaf.address - mapping.memory_start + mapping.file_offset;
    assert!((start..start + size).contains(&offset), "{offset:#x} is not in {symbol}");
}

/// Our reader of pprof and memtrace's JSON agree on a program, in all four values.
#[test]
fn pprof_and_json_say_the_same() {
    let operations = ["run", "leak_a", "7", "100", "churn", "5", "7"];
    let pprof = capture_of(&operations).stacks();
    let json = Recorder::exact().output("out.json").launch(&LEAK.path(), &operations).expect_success();
    assert_eq!(pprof.books_of("leak"), json.json().stacks().books_of("leak"));
    assert_eq!(pprof.of("leak_a"), Values::live(7, 100));
}
