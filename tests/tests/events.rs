//! `--events`, and what `memtrace report` makes of the file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use memtrace_tests::fixture::{LEAK, RANDOM_C};
use memtrace_tests::process::{Outcome, PATIENCE, Process};
use memtrace_tests::record::{self, Recorded, Recorder, Recording};
use memtrace_tests::target::Leak;
use memtrace_tests::tools;
use serde_json::Value;

const EVENTS: &str = "events.ndjson";

fn with_events(recorder: Recorder) -> Recorder {
    recorder.option("--events").option(EVENTS)
}

/// `memtrace report --format json` with more options, of a file.
#[track_caller]
fn report(options: &[&str], file: &Path) -> Value {
    let words = [&["report", "--format", "json"], options, &[file.to_str().unwrap()]].concat();
    let outcome = record::run(&words).expect_success();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
}

fn of_events(recorded: &Recorded) -> Value {
    report(&[], &recorded.dir().join(EVENTS))
}

/// The stack whose leaf is `function`, of which there is one.
#[track_caller]
fn stack<'a>(report: &'a Value, function: &str) -> &'a Value {
    let stacks = report["stacks"].as_array().unwrap();
    let mut found = stacks.iter().filter(|stack| stack["frames"][0]["function"] == function);
    let stack = found.next().unwrap_or_else(|| panic!("no {function} in {stacks:#?}"));
    assert_eq!(found.next(), None, "{function} is there twice");
    stack
}

fn objects(sums: &Value, what: &str) -> i64 {
    sums[what]["objects"].as_i64().unwrap_or_else(|| panic!("no {what} in {sums}"))
}

fn bytes(sums: &Value, what: &str) -> i64 {
    sums[what]["bytes"].as_i64().unwrap_or_else(|| panic!("no {what} in {sums}"))
}

/// Asserts that nothing is missing between the lines.
#[track_caller]
fn assert_whole(report: &Value) {
    assert_eq!(report["complete"], true);
    let counts = report["counts"].as_object().unwrap();
    for (name, count) in counts {
        assert!(["allocations", "frees", "execs"].contains(&&**name) || *count == 0, "{name}: {count}");
    }
}

#[test]
fn the_report_knows_what_is_temporary_and_what_stays() {
    let recorder = with_events(Recorder::exact());
    // 20 blocks, of which 15 are freed after 50 ms.
    let operations = "run churn 500 48 hold 20 100 rest 1 50000 release 15 0 leak_a 3 4096";
    let words: Vec<_> = operations.split(' ').collect();
    let recorded = recorder.launch(&LEAK.path(), &words).expect_success();
    let all = of_events(&recorded);
    assert_whole(&all);
    assert_eq!(all["sampled"], false);

    let churn = stack(&all, "churn");
    assert_eq!((objects(churn, "allocated"), bytes(churn, "allocated")), (500, 24_000));
    assert_eq!((objects(churn, "freed"), objects(churn, "live")), (500, 0));
    assert_eq!((objects(churn, "temporary"), objects(churn, "freed_next")), (500, 500));
    assert_eq!(churn["frames"][0]["place"].as_str().map(|place| place.contains("leak.c:")), Some(true));

    let hold = stack(&all, "hold");
    assert_eq!((objects(hold, "allocated"), objects(hold, "freed"), objects(hold, "live")), (20, 15, 5));
    assert_eq!(bytes(hold, "live"), 500);
    // The newest is released first, and that is the next thing that the thread does.
    assert_eq!((objects(hold, "temporary"), objects(hold, "short_lived")), (1, 0));
    let lived = hold["lifetimes"]["min_ns"].as_u64().unwrap();
    assert!((50_000_000..PATIENCE.as_nanos() as u64).contains(&lived), "{lived}");
    assert!(hold["oldest_age_ns"].as_u64().unwrap() >= 50_000_000);
    let patient = report(&["--temporary-within", "1h"], &recorded.dir().join(EVENTS));
    assert_eq!(objects(stack(&patient, "hold"), "temporary"), 15);

    let leak_a = stack(&all, "leak_a");
    assert_eq!((objects(leak_a, "live"), bytes(leak_a, "live")), (3, 12_288));
    assert_eq!(leak_a["lifetimes"], Value::Null);

    let path = recorded.dir().join(EVENTS);
    let text = record::run(&["report", path.to_str().unwrap()]).expect_success().stdout;
    let position = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
    assert!(position("Top stacks by temporary") < position("churn leak.c"));
    assert!(position("churn leak.c") < position("Top stacks by bytes"));
    assert!(position("Top stacks by bytes") < position("leak_a leak.c"), "{text}");
}

/// Eight threads and the whole API: event for event, the file has what the profile has.
#[test]
fn the_events_add_up_to_the_profile() {
    let recorded = with_events(Recorder::exact()).option("--ring-size").option("256MiB");
    let recorded = recorded.launch(&RANDOM_C.path(), &["run", "1", "3"]).expect_success();
    let all = of_events(&recorded);
    assert_whole(&all);
    let profile = recorded.stacks().sum();
    let total = &all["total"];
    assert_eq!(objects(total, "allocated"), profile.alloc_objects);
    assert_eq!(bytes(total, "allocated"), profile.alloc_space);
    assert_eq!(objects(total, "live"), profile.inuse_objects);
    assert_eq!(bytes(total, "live"), profile.inuse_space);
    assert!(profile.alloc_objects > 1000 && profile.inuse_objects > 10, "{profile:?}");
}

#[test]
fn a_sampled_events_file_adds_up_to_the_profile() {
    let operations = ["run", "churn", "20000", "500", "leak_a", "5000", "300"];
    let recorded = with_events(Recorder::new().interval("4KiB")).launch(&LEAK.path(), &operations);
    let recorded = recorded.expect_success();
    let all = of_events(&recorded);
    assert_whole(&all);
    assert_eq!((&all["sampled"], &all["sample_interval"]), (&Value::Bool(true), &Value::from(4096)));
    let (profile, total) = (recorded.stacks().sum(), &all["total"]);
    // The kernel rounds the bytes of each sample to a sixteenth, and the profile each stack.
    let near = |a: i64, b: i64| (a - b).abs() <= b / 1000;
    assert!(near(objects(total, "allocated"), profile.alloc_objects), "{profile:?} {total}");
    assert!(near(bytes(total, "live"), profile.inuse_space), "{profile:?} {total}");
    // 20,000 with a standard error of about 400.
    let temporary = objects(stack(&all, "churn"), "temporary");
    assert!((16_000..24_000).contains(&temporary), "{temporary}");
}

#[test]
fn nothing_outlives_an_exec() {
    let leak = LEAK.path();
    let script = format!("x=$(seq 100); exec {} run leak_a 10 1000", leak.display());
    let recorded = with_events(Recorder::exact()).run(&["--", "sh", "-c", &script]).expect_success();
    let all = of_events(&recorded);
    assert_whole(&all);
    assert_eq!(objects(stack(&all, "leak_a"), "live"), 10);
    let total = &all["total"];
    assert!(objects(total, "gone") > 0, "the shell has allocated: {total}");
    assert_eq!(objects(total, "live"), recorded.stacks().sum().inuse_objects);
}

#[test]
fn a_full_disk_does_not_cost_the_profile() {
    let recorder = Recorder::exact().option("--events").option("/dev/full");
    let recorded = recorder.launch(&LEAK.path(), &["run", "leak_a", "10", "100"]);
    recorded.outcome.assert_refused(&[1], &["failed to write the events", "/dev/full", "no space"]);
    assert_eq!(recorded.stacks().of("leak_a").inuse_objects, 10);
}

/// The reader of a pipe goes to sleep. The target runs on, the profile is complete, and memtrace can be ended.
#[test]
fn a_reader_that_sleeps_holds_nobody_up() {
    let recorder = Recorder::exact().option("--events").option("pipe");
    let pipe = recorder.dir().join("pipe");
    let made = tools::command("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Opened for both, a pipe has a reader at once (fifo(7)).
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    // More than fits into the pipe, the buffer and the queue.
    let program = LEAK.path();
    let rest = ["--", program.to_str().unwrap(), "run", "churn", "100000", "16"];
    let mut process = Process::spawn(&mut recorder.command(&rest));
    process.stderr_line(|line| line.contains("wrote out.pb.gz"));
    assert!(process.is_running(), "it still has events to write");
    let recorded = Recording::of(process, recorder).stop(libc::SIGTERM);
    assert_eq!(recorded.outcome.code(), 128 + libc::SIGTERM);
    assert_eq!(recorded.stacks().of("churn").alloc_objects, 100_000);
    let profile = recorded.pprof();
    let is_dropped = |comment: &i64| profile.text(*comment).starts_with("loss: events_dropped ");
    assert!(profile.comment.iter().any(is_dropped), "{}", recorded.outcome.stderr);
    drop(reader);
}

#[test]
fn a_file_of_a_killed_memtrace_is_read_as_far_as_it_goes() {
    let mut leak = Leak::serve(LEAK);
    let recorder = with_events(Recorder::exact());
    let path = recorder.dir().join(EVENTS);
    let recording = recorder.attach(leak.pid());
    leak.perform("leak_a 50 100 churn 100 16");
    let limit = Instant::now() + PATIENCE;
    // It does not keep lines to itself.
    while !fs::read_to_string(&path).unwrap().contains("\"free\"") {
        assert!(Instant::now() < limit, "no line of a free was written");
        std::thread::sleep(Duration::from_millis(20));
    }
    let recorded = recording.stop(libc::SIGKILL);
    let all = of_events(&recorded);
    assert_eq!((&all["complete"], &all["losses"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(all["counts"]["malformed_lines"], 0);
    let objects = objects(&all["total"], "allocated");
    assert!(objects > 0, "{all}");
    let text = record::run(&["report", path.to_str().unwrap()]).expect_success().stdout;
    assert!(text.contains("memtrace was killed"), "{text}");

    // The same, cut in the middle of a line.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    assert_eq!(of_events(&recorded)["counts"]["cut_lines"], 1);
}

#[test]
fn a_pprof_profile_is_summed_up() {
    let recorded =
        Recorder::exact().launch(&LEAK.path(), &["run", "leak_a", "10", "100", "leak_b", "1", "7"]);
    let recorded = recorded.expect_success();
    let all = report(&[], &recorded.output());
    assert_eq!((&all["schema"], &all["sample_type"]), (&"memtrace-top/1".into(), &"inuse_space".into()));
    let [first, second] = [0, 1].map(|index| &all["functions"][index]);
    assert_eq!((&first["name"], &first["flat"]), (&"leak_a".into(), &1000.into()));
    assert_eq!((&second["name"], &second["flat"]), (&"leak_b".into(), &7.into()));
    let text = record::run(&["report", recorded.output().to_str().unwrap()]).expect_success().stdout;
    for word in ["Top functions by inuse_space", "leak_a", "every allocation recorded", "allocation_calls"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn standard_input_can_be_read() {
    let mut process = Process::spawn(record::memtrace().args(["report", "-"]));
    process.tell(r#"{"event":"begin","schema":"memtrace-events/1","sample_interval":1}"#);
    let outcome = process.finish().expect_success();
    assert!(outcome.stdout.contains("0 allocations"), "{}", outcome.stdout);
}

#[track_caller]
fn refused(content: &[u8]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, content).unwrap();
    let outcome = record::run(&["report", path.to_str().unwrap()]);
    outcome.assert_refused(&[1], &["cannot report on", "file"]);
    assert_eq!(outcome.stderr.lines().count(), 1, "one sentence: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    outcome
}

#[test]
fn what_is_neither_events_nor_a_profile_is_refused() {
    refused(b"").assert_says(&["empty"]);
    refused(b"hello\nworld\n").assert_says(&["neither an events file", "nor a pprof profile"]);
    refused(&[0xff; 1000]).assert_says(&["neither an events file"]);
    refused(&[0x1f, 0x8b, 8, 0, 0, 0]).assert_says(&["gzip"]);
    refused(b"{\"name\": \"something else\"}\n").assert_says(&["not an event"]);
    refused(br#"{"event":"begin","schema":"memtrace-events/99"}"#).assert_says(&["memtrace-events/99"]);
    let json = Recorder::exact().output("out.json").launch(&LEAK.path(), &["run", "leak_a", "1", "1"]);
    refused(&fs::read(json.expect_success().output()).unwrap()).assert_says(&["profile in JSON", "--events"]);
    let none = record::run(&["report", "/no/such/file"]);
    none.assert_refused(&[1], &["cannot read /no/such/file", "no such file"]);
    record::run(&["report", "/"]).assert_refused(&[1], &["cannot read /", "directory"]);
}

#[test]
fn the_profile_and_the_events_need_a_file_each() {
    let recorded = Recorder::exact().option("--events").option("out.pb.gz").run(&["--", "true"]);
    recorded.outcome.assert_refused(&[1], &["cannot both", "--events"]);
    assert_eq!(recorded.files(), [""; 0]);
}

#[test]
fn replacing_an_events_file_is_said() {
    let recorder = with_events(Recorder::exact());
    fs::write(recorder.dir().join(EVENTS), "old").unwrap();
    let recorded = recorder.run(&["--", "true"]).expect_success();
    recorded.outcome.assert_says(&["replacing events.ndjson"]);
    assert_whole(&of_events(&recorded));
}
