//! Names that are not in the program itself, or are found later.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use memtrace_tests::debuginfod::Debuginfod;
use memtrace_tests::fixture::{Build, JIT, LEAK, build_id, split};
use memtrace_tests::gopprof::{pprof, pprof_symbolizing};
use memtrace_tests::pprof::proto::{Location, Mapping, Profile, Sample, ValueType};
use memtrace_tests::process::{Outcome, PATIENCE, Process};
use memtrace_tests::record::{self, Recorded, Recorder};
use memtrace_tests::stacks::{Stacks, Values};
use memtrace_tests::target::Leak;
use memtrace_tests::tools;
use prost::Message;

const OPERATIONS: [&str; 7] = ["run", "leak_a", "10", "100", "inlined", "3", "50"];

/// A copy of a fixture in a directory of its own, which may be changed.
fn copy(build: Build) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(build.name());
    tools::copy_program(&build.path(), &path);
    (dir, path)
}

#[track_caller]
fn assert_names_and_lines(stacks: &Stacks) {
    assert_eq!(stacks.of("leak_a"), Values::live(10, 100), "{stacks:#?}");
    let leaf = &stacks.with_leaf("leak_a").next().unwrap().frames[0];
    assert_eq!(leaf.file, LEAK.source().to_str().unwrap());
    assert_eq!(leaf.line as u64, LEAK.line("leak_a"));
    let inlined = &stacks.with_leaf("inlined_leak").next().unwrap().frames[0];
    assert!(inlined.inlined, "{inlined:?}");
    assert_eq!(inlined.line as u64, LEAK.line("inlined_leak"));
}

#[track_caller]
fn assert_without_names(stacks: &Stacks) {
    let own =
        stacks.0.iter().flat_map(|stack| &stack.frames).filter(|frame| frame.mapping.ends_with("/leak"));
    assert!(own.clone().count() > 0);
    assert!(own.clone().all(|frame| frame.function.is_empty()), "{stacks:#?}");
}

#[test]
fn a_stripped_program_with_its_debug_file_elsewhere() {
    let (_dir, program) = copy(LEAK);
    let debug = tempfile::tempdir().unwrap();
    split(&program, debug.path());
    let without = Recorder::exact().launch(&program, &OPERATIONS).expect_success();
    assert_without_names(&without.stacks());
    assert!(without.outcome.stderr.contains("addresses have no symbol"), "{}", without.outcome.stderr);
    let option = debug.path().to_str().unwrap();
    let with = Recorder::exact().option("--debug-dir").option(option).launch(&program, &OPERATIONS);
    assert_names_and_lines(&with.expect_success().stacks());
}

#[test]
fn a_deleted_program_and_one_that_was_replaced() {
    for replaced in [false, true] {
        let (_dir, program) = copy(LEAK);
        let mut leak = Leak::start(Command::new(&program).arg("serve"));
        std::fs::remove_file(&program).unwrap();
        if replaced {
            std::fs::copy(JIT.path(), &program).unwrap();
        }
        let recording = Recorder::exact().attach(leak.pid());
        leak.perform("leak_a 10 100 inlined 3 50");
        let recorded = recording.stop(libc::SIGINT).expect_success();
        assert_names_and_lines(&recorded.stacks());
    }
}

#[test]
fn generated_code_has_the_name_that_the_compiler_wrote() {
    for (when, expected) in
        [("early", "compiled_function script:2"), ("late", "compiled_function script:2"), ("never", "")]
    {
        let mut process = Process::spawn(Command::new(JIT.path()).arg(when));
        process.stdout_line(|line| line == "ready");
        let map = PathBuf::from(format!("/tmp/perf-{}.map", process.pid()));
        let recording = Recorder::exact().output("out.json").attach(process.pid());
        assert_eq!(process.ask("go"), "done");
        process.finish().expect_success();
        let recorded = recording.finish().expect_success();
        assert_eq!(std::fs::remove_file(map).is_ok(), when != "never");
        let profile = recorded.json();
        let stacks = profile.stacks();
        let generated: Vec<_> = stacks.0.iter().filter(|stack| stack.frames[0].mapping == "[anon]").collect();
        assert_eq!(generated.len(), 1, "{stacks:#?}");
        assert_eq!(
            (generated[0].frames[0].function.as_str(), generated[0].values),
            (expected, Values::live(1, 100))
        );
        assert_eq!(profile.loss("frames_without_file"), u64::from(expected.is_empty()));
    }
}

/// Anybody may write into `/tmp`: what is there counts only if the process's user or root has written it.
#[test]
fn a_map_of_generated_code_by_somebody_else() {
    let mut process = Process::spawn(Command::new(JIT.path()).arg("never"));
    process.stdout_line(|line| line == "ready");
    let map = PathBuf::from(format!("/tmp/perf-{}.map", process.pid()));
    std::fs::write(&map, "0 7fffffffffffffff forged\n").unwrap();
    std::os::unix::fs::chown(&map, Some(65534), Some(65534)).unwrap();
    let recording = Recorder::exact().output("out.json").attach(process.pid());
    assert_eq!(process.ask("go"), "done");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    std::fs::remove_file(map).unwrap();
    let profile = recorded.json();
    assert_eq!(profile.stacks().with_leaf("forged").count(), 0);
    assert_eq!((profile.loss("perf_map_untrusted"), profile.loss("frames_without_file")), (1, 1));
}

/// What was recorded without names, of a program that has since gone from its path.
struct Unnamed {
    recorded: Recorded,
    /// `BUILD-ID/leak`, where pprof and memtrace find it.
    binaries: tempfile::TempDir,
    program: PathBuf,
}

fn unnamed() -> Unnamed {
    let (_dir, program) = copy(LEAK);
    let recorded = Recorder::exact().option("--no-symbolize").launch(&program, &OPERATIONS).expect_success();
    let binaries = tempfile::tempdir().unwrap();
    let place = binaries.path().join(build_id(&program));
    std::fs::create_dir(&place).unwrap();
    let program = place.join("leak");
    std::fs::copy(LEAK.path(), &program).unwrap();
    Unnamed { recorded, binaries, program }
}

/// Runs `memtrace symbolize` in the directory of `unnamed`, without an environment that names servers.
fn symbolize(unnamed: &Unnamed, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut command = record::memtrace();
    command.env_remove("PPROF_BINARY_PATH").env_remove("DEBUGINFOD_URLS");
    command.arg("symbolize").args(arguments).current_dir(unnamed.recorded.dir());
    let outcome = Process::spawn(command.envs(environment.iter().copied())).finish();
    outcome.assert_civil();
    outcome
}

#[test]
fn without_symbolization_a_profile_has_addresses_mappings_and_build_ids() {
    let unnamed = unnamed();
    let profile = unnamed.recorded.pprof();
    assert!(profile.location.iter().all(|location| location.line.is_empty()));
    assert!(profile.function.is_empty());
    for mapping in &profile.mapping {
        assert!(!mapping.has_functions && !mapping.has_filenames && !mapping.has_line_numbers, "{mapping:?}");
    }
    assert_eq!(profile.text(profile.mapping_of("leak").build_id), build_id(&LEAK.path()));
    assert_without_names(&profile.stacks());
}

/// In the file that it is given, or at the path of the mapping. (`PPROF_BINARY_PATH` is of no use to Go's own
/// pprof: it cannot read build-ids, cmd/pprof/pprof.go, and therefore takes every file there for another one.)
#[test]
fn pprof_finds_the_names_later() {
    let unnamed = unnamed();
    let output = unnamed.recorded.output();
    let assert_named = |top: &str| {
        assert!(top.lines().any(|line| line.contains("1000B") && line.contains("leak_a")), "{top}");
    };
    let options = ["-top", "-sample_index=inuse_space"];
    assert!(!pprof_symbolizing(None, &options, &output).contains("leak_a"), "the program is gone");
    assert_named(&pprof_symbolizing(Some(&unnamed.program), &options, &output));
    let listing = pprof_symbolizing(Some(&unnamed.program), &["-list=^leak_a$"], &output);
    let line = listing.lines().find(|line| line.contains("/* LINE leak_a */")).expect("the line is listed");
    assert!(line.contains("1000B"), "{listing}");

    let recorder = Recorder::exact().option("--no-symbolize");
    let in_place = recorder.launch(&LEAK.path(), &OPERATIONS).expect_success();
    assert!(!pprof(&["-top"], &in_place.output()).contains("leak_a"), "there are names already");
    assert_named(&pprof_symbolizing(None, &options, &in_place.output()));
}

#[test]
fn memtrace_finds_the_names_later() {
    let unnamed = unnamed();
    let binaries = unnamed.binaries.path().to_str().unwrap();
    let outcome = symbolize(&unnamed, &["--binaries", binaries, "out.pb.gz"], &[]).expect_success();
    outcome.assert_says(&["out.symbolized.pb.gz", "have got one"]);
    let before = unnamed.recorded.pprof();
    let after = Profile::read(&unnamed.recorded.dir().join("out.symbolized.pb.gz"));
    assert_names_and_lines(&after.stacks());
    let mapping = after.mapping_of("leak");
    assert!(mapping.has_functions && mapping.has_filenames && mapping.has_line_numbers);
    assert!(mapping.has_inline_frames);
    // All else is as it was; losses of names are comments that may be added.
    assert_eq!(
        (&after.sample, &after.sample_type, after.period),
        (&before.sample, &before.sample_type, before.period)
    );
    assert_eq!((after.time_nanos, after.duration_nanos), (before.time_nanos, before.duration_nanos));
    let addresses = |profile: &Profile| -> Vec<_> {
        profile.location.iter().map(|location| (location.id, location.mapping_id, location.address)).collect()
    };
    assert_eq!(addresses(&after), addresses(&before));
    let comments = |profile: &Profile| -> Vec<_> {
        let texts = profile.comment.iter().map(|&text| profile.text(text).to_owned());
        texts.filter(|text| !text.starts_with("loss: frames_")).collect()
    };
    assert_eq!(comments(&after), comments(&before));
    // pprof reads it, and the input was not touched.
    assert!(pprof(&["-top"], &unnamed.recorded.dir().join("out.symbolized.pb.gz")).contains("leak_a"));
    assert_eq!(unnamed.recorded.pprof(), before);

    // The same as a recording with names, address by address apart.
    let direct = Recorder::exact().launch(&LEAK.path(), &OPERATIONS).expect_success().stacks();
    assert_eq!(after.stacks().books_of("leak"), direct.books_of("leak"));

    // What is there is kept, and pprof's variable is as good as the option.
    let path = [("PPROF_BINARY_PATH", binaries)];
    symbolize(&unnamed, &["out.pb.gz"], &path).expect_success().assert_says(&["out.symbolized.1.pb.gz"]);
    let outcome = symbolize(&unnamed, &["-o", "out.pb.gz", "out.pb.gz"], &path).expect_success();
    outcome.assert_says(&["replaced out.pb.gz"]);
    assert_names_and_lines(&unnamed.recorded.stacks());
}

#[test]
fn a_file_with_another_build_id_gives_no_names() {
    let unnamed = unnamed();
    std::fs::copy(JIT.path(), &unnamed.program).unwrap();
    let binaries = unnamed.binaries.path().to_str().unwrap();
    let outcome = symbolize(&unnamed, &["--binaries", binaries, "-o", "new.pb.gz", "out.pb.gz"], &[]);
    outcome.expect_success().assert_says(&["same build-id", "--binaries"]);
    let profile = Profile::read(&unnamed.recorded.dir().join("new.pb.gz"));
    assert_without_names(&profile.stacks());
    let comments: Vec<_> = profile.comment.iter().map(|&text| profile.text(text)).collect();
    assert!(comments.iter().any(|text| text.starts_with("loss: frames_in_absent_file ")), "{comments:?}");
}

#[test]
fn names_from_a_debuginfod_server() {
    let (_dir, program) = copy(LEAK);
    let debug = tempfile::tempdir().unwrap();
    let id = build_id(&program);
    let file = split(&program, debug.path());
    let url = |kind: &str| format!("/buildid/{id}/{kind}");
    let server = Debuginfod::serve(&[(url("debuginfo"), &file), (url("executable"), &program)]);
    let cache = tempfile::tempdir().unwrap();
    let environment =
        [("DEBUGINFOD_URLS", server.url.as_str()), ("DEBUGINFOD_CACHE_PATH", cache.path().to_str().unwrap())];
    let record = |option: &str| {
        let recorder = Recorder::exact().option(option);
        let mut rest = vec!["--", program.to_str().unwrap()];
        rest.extend_from_slice(&OPERATIONS);
        let mut command = recorder.command(&rest);
        let process = Process::spawn(command.envs(environment));
        record::Recording::of(process, recorder).finish().expect_success()
    };
    // Not unless it is asked for.
    assert_without_names(&record("--top=3").stacks());
    assert_eq!(server.requests(), [""; 0]);
    assert_names_and_lines(&record("--debuginfod").stacks());
    assert_eq!(server.requests().iter().filter(|path| **path == url("debuginfo")).count(), 1);
    assert!(cache.path().join(&id).join("debuginfo").is_file());

    // Later, with neither the program nor its debug file on this machine, and an empty cache.
    let recorded = record("--no-symbolize");
    let unnamed = Unnamed { recorded, binaries: tempfile::tempdir().unwrap(), program: PathBuf::new() };
    std::fs::rename(&program, program.with_extension("away")).unwrap();
    std::fs::remove_dir_all(cache.path().join(&id)).unwrap();
    let away = program.with_extension("away");
    let server = Debuginfod::serve(&[(url("debuginfo"), &file), (url("executable"), &away)]);
    let environment = [("DEBUGINFOD_URLS", server.url.as_str()), environment[1]];
    symbolize(&unnamed, &["--debuginfod", "out.pb.gz"], &environment).expect_success();
    let profile = Profile::read(&unnamed.recorded.dir().join("out.symbolized.pb.gz"));
    assert_names_and_lines(&profile.stacks());
    for kind in ["executable", "debuginfo"] {
        assert_eq!(server.requests().iter().filter(|path| **path == url(kind)).count(), 1, "{kind}");
    }
}

/// Servers that cannot be asked cost names, and are told, but not the profile.
#[test]
fn a_debuginfod_server_that_is_not_there() {
    let recorder = Recorder::exact().option("--debuginfod");
    let (_dir, stripped) = copy(LEAK);
    split(&stripped, tempfile::tempdir().unwrap().path());
    for (urls, code, words) in [
        ("http://127.0.0.1:1", 0, &["http://127.0.0.1:1", "debug files could not be had"][..]),
        ("", 1, &["DEBUGINFOD_URLS"]),
        ("ftp://example.org", 1, &["DEBUGINFOD_URLS", "ftp://example.org"]),
    ] {
        let rest = ["--", stripped.to_str().unwrap(), "run", "leak_a", "10", "100"];
        let mut command = recorder.command(&rest);
        let cache = tempfile::tempdir().unwrap();
        command.env("DEBUGINFOD_URLS", urls).env("DEBUGINFOD_CACHE_PATH", cache.path());
        let outcome = Process::spawn(&mut command).finish();
        outcome.assert_civil();
        assert_eq!(outcome.code(), code, "{}", outcome.stderr);
        outcome.assert_says(words);
    }
}

/// Who does not want to wait for a server gets the profile without its names.
#[test]
fn the_search_can_be_interrupted() {
    let (_dir, program) = copy(LEAK);
    split(&program, tempfile::tempdir().unwrap().path());
    let server = Debuginfod::silent();
    let cache = tempfile::tempdir().unwrap();
    let recorder = Recorder::exact().option("--debuginfod");
    let mut command = recorder.command(&["--", program.to_str().unwrap(), "run", "leak_a", "10", "100"]);
    command.env("DEBUGINFOD_URLS", &server.url).env("DEBUGINFOD_CACHE_PATH", cache.path());
    // A server may be silent for so many seconds.
    command.env("DEBUGINFOD_TIMEOUT", "600");
    let mut process = Process::spawn(&mut command);
    process.stderr_line(|line| line.contains("debuginfod servers; Ctrl-C"));
    let begun = Instant::now();
    while server.requests().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the server is not asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    process.signal(libc::SIGINT);
    let recorded = record::Recording::of(process, recorder).finish().expect_success();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    recorded.outcome.assert_says(&["debug files could not be had", "wrote out.pb.gz"]);
    assert_eq!(recorded.stacks().0.iter().map(|stack| stack.values.inuse_space).sum::<i64>(), 1000);
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0, "something was left in the cache");
}

#[test]
fn what_is_no_profile_is_refused() {
    let unnamed = unnamed();
    let dir = unnamed.recorded.dir();
    std::fs::write(dir.join("empty"), "").unwrap();
    std::fs::write(dir.join("text"), "{\"schema\": \"memtrace-profile/1\"}\n").unwrap();
    let whole = std::fs::read(unnamed.recorded.output()).unwrap();
    std::fs::write(dir.join("half.pb.gz"), &whole[..whole.len() / 2]).unwrap();
    for (file, words) in [
        ("empty", &["empty"][..]),
        ("text", &["text", "not a pprof|no pprof|not a sound", "pprof profiles"]),
        ("half.pb.gz", &["half.pb.gz", "damaged|cut off"]),
        ("no-such-file", &["no-such-file", "no such file"]),
        (".", &["directory"]),
    ] {
        symbolize(&unnamed, &[file], &[]).assert_refused(&[1], words);
    }
    for output in ["no/such/directory/out.pb.gz", "."] {
        symbolize(&unnamed, &["-o", output, "out.pb.gz"], &[])
            .assert_refused(&[1], &["cannot write", output]);
    }
    assert_eq!(symbolize(&unnamed, &[], &[]).code(), 2);
    let contradiction = record::run(&["record", "--no-symbolize", "--debuginfod", "--", "true"]);
    assert_eq!(contradiction.code(), 2);
    assert_eq!(unnamed.recorded.files(), ["empty", "half.pb.gz", "out.pb.gz", "text"]);
}

/// A pipe in and a pipe out: nothing but the profile on standard output.
#[test]
fn from_standard_input_to_standard_output() {
    let unnamed = unnamed();
    let input = std::fs::File::open(unnamed.recorded.output()).unwrap();
    let mut command = record::memtrace();
    command.args(["symbolize", "--binaries"]).arg(unnamed.binaries.path()).arg("-").stdin(input);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = unnamed.recorded.dir().join("piped.pb.gz");
    std::fs::write(&path, output.stdout).unwrap();
    assert_names_and_lines(&Profile::read(&path).stacks());
}

const GO_PROGRAM: &str = "package main\n\ntype Store struct{ kept [][]byte }\n\n\
    //go:noinline\nfunc (s *Store) Keep(n int) { s.kept = append(s.kept, make([]byte, n)) }\n\n\
    func main() { s := &Store{}; s.Keep(100); println(len(s.kept)) }\n";

/// Go's names are as Go writes them, from the symbol table alone and with DWARF.
#[test]
fn functions_of_go_have_gos_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("keep.go"), GO_PROGRAM).unwrap();
    for (flags, line) in [("-ldflags=-w -B gobuildid", 0), ("-ldflags=-B gobuildid", 6)] {
        let program = dir.path().join("keep");
        let mut build = Command::new(tools::go());
        build.args(["build", flags, "-o"]).arg(&program).arg("keep.go").current_dir(dir.path());
        let output = build.env("CGO_ENABLED", "0").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let symbols = Command::new(tools::go()).args(["tool", "nm"]).arg(&program).output().unwrap();
        let symbols = String::from_utf8(symbols.stdout).unwrap();
        let symbol =
            symbols.lines().find(|line| line.ends_with(" main.(*Store).Keep")).expect("it is a symbol");
        let address = u64::from_str_radix(symbol.split_whitespace().next().unwrap(), 16).unwrap();
        let profile = profile_of(&program, address + 4);
        let path = dir.path().join("go.pb");
        std::fs::write(&path, profile.encode_to_vec()).unwrap();
        record::run(&[
            "symbolize",
            "-o",
            dir.path().join("named.pb.gz").to_str().unwrap(),
            path.to_str().unwrap(),
        ])
        .expect_success();
        let stacks = Profile::read(&dir.path().join("named.pb.gz")).stacks();
        let leaf = &stacks.0[0].frames[0];
        assert_eq!((leaf.function.as_str(), leaf.line), ("main.(*Store).Keep", line), "{flags}");
    }
}

/// A profile of one address in a program that is mapped where it was linked to be.
fn profile_of(program: &Path, address: u64) -> Profile {
    let headers = tools::command("readelf").args(["-l", "--wide"]).arg(program).output().unwrap();
    let headers = String::from_utf8(headers.stdout).unwrap();
    let code = headers.lines().find(|line| line.trim().starts_with("LOAD") && line.contains("R E")).unwrap();
    let fields: Vec<_> = code.split_whitespace().collect();
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    let (file_offset, start, size) = (hex(fields[1]), hex(fields[2]), hex(fields[4]));
    let id = build_id(program);
    let texts = [
        "",
        program.to_str().unwrap(),
        &id,
        "alloc_objects",
        "alloc_space",
        "inuse_objects",
        "inuse_space",
        "count",
        "bytes",
    ];
    Profile {
        string_table: texts.map(str::to_owned).to_vec(),
        sample_type: vec![
            ValueType { kind: 3, unit: 7 },
            ValueType { kind: 4, unit: 8 },
            ValueType { kind: 5, unit: 7 },
            ValueType { kind: 6, unit: 8 },
        ],
        sample: vec![Sample { location_id: vec![1], value: vec![1, 100, 1, 100] }],
        mapping: vec![Mapping {
            id: 1,
            memory_start: start,
            memory_limit: start + size,
            file_offset,
            filename: 1,
            build_id: 2,
            ..Mapping::default()
        }],
        location: vec![Location { id: 1, mapping_id: 1, address, line: vec![] }],
        ..Profile::default()
    }
}
