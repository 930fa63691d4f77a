//! Where the profile goes: the default name, and never over an existing file without a word.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::pprof::proto::Profile;
use memtrace_tests::record::Recorder;
use memtrace_tests::target::Leak;

#[test]
fn the_default_name_has_comm_and_pid_and_numbers_follow() {
    let leak = Leak::serve(LEAK);
    let pid = leak.pid().to_string();
    let recorder = Recorder::new().default_output();
    // What is there already, and must stay as it is.
    let first = format!("memtrace.leak.{pid}.pb.gz");
    std::fs::write(recorder.dir().join(&first), "precious").unwrap();
    let second = format!("memtrace.leak.{pid}.1.pb.gz");
    std::fs::write(recorder.dir().join(&second), "precious too").unwrap();
    let recorded = recorder.run(&["-p", &pid, "-d", "1"]).expect_success();
    let third = format!("memtrace.leak.{pid}.2.pb.gz");
    assert_eq!(std::fs::read_to_string(recorded.dir().join(first)).unwrap(), "precious");
    assert_eq!(std::fs::read_to_string(recorded.dir().join(second)).unwrap(), "precious too");
    Profile::read(&recorded.dir().join(&third));
    recorded.outcome.assert_says(&[&third]);
    assert_eq!(recorded.files().len(), 3, "{:?}", recorded.files());
}

#[test]
fn a_launched_command_gives_its_name_to_the_file() {
    let recorded = Recorder::new().default_output().launch(&LEAK.path(), &["run", "leak_a", "1", "1"]);
    let files = recorded.expect_success().files();
    let [name] = &files[..] else { panic!("one file, not {files:?}") };
    assert!(name.starts_with("memtrace.leak.") && name.ends_with(".pb.gz"), "{name}");
}

#[test]
fn overwriting_a_named_file_is_said() {
    let leak = Leak::serve(LEAK);
    let recorder = Recorder::new();
    let output = recorder.dir().join("out.pb.gz");
    std::fs::write(&output, "old").unwrap();
    let recorded = recorder.run(&["-p", &leak.pid().to_string(), "-d", "1"]).expect_success();
    recorded.outcome.assert_says(&["overw|replace", "out.pb.gz"]);
    assert_eq!(recorded.files(), ["out.pb.gz"]);
    Profile::read(&output);

    let recorded = Recorder::new().run(&["-p", &leak.pid().to_string(), "-d", "1"]).expect_success();
    assert!(
        !["overw", "replace"].iter().any(|word| recorded.outcome.stderr.contains(word)),
        "nothing was there:\n{}",
        recorded.outcome.stderr
    );
}

#[test]
fn a_recording_that_fails_leaves_an_existing_file_alone() {
    let recorder = Recorder::new();
    let output = recorder.dir().join("out.pb.gz");
    std::fs::write(&output, "old").unwrap();
    let recorded = recorder.run(&["--", "/no/such/command"]);
    assert_ne!(recorded.outcome.code(), 0);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "old");
    assert_eq!(recorded.files(), ["out.pb.gz"]);
}

/// A process chooses its own comm, and 15 bytes are enough for a path.
#[test]
fn a_hostile_comm_does_not_leave_the_directory() {
    let mut command = std::process::Command::new(LEAK.path());
    let leak = Leak::start(command.arg("serve").env("LEAK_COMM", "../../x y\n\u{1b}[31m"));
    let recorder = Recorder::new().default_output();
    let recorded = recorder.run(&["-p", &leak.pid().to_string(), "-d", "1"]).expect_success();
    let files = recorded.files();
    let [name] = &files[..] else { panic!("one file, not {files:?}") };
    assert!(name.ends_with(&format!(".{}.pb.gz", leak.pid())), "{name}");
    assert!(!name.chars().any(char::is_control), "{name:?}");
    assert!(!recorded.outcome.stderr.contains('\u{1b}'), "{:?}", recorded.outcome.stderr);
}
