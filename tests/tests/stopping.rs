//! However a recording ends, the profile is written; and what a launched command said by its exit is passed on.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use memtrace_tests::fixture::{LATE, LEAK};
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorded, Recorder, Recording};
use memtrace_tests::stacks::Values;
use memtrace_tests::target::Leak;

/// Attaches to a process that then leaks, lets `end` bring the recording about its end, and asserts that
/// the profile was written.
fn assert_written(recorder: Recorder, end: impl FnOnce(Recording, Leak) -> Recorded) {
    let mut leak = Leak::serve(LEAK);
    let recording = recorder.attach(leak.pid());
    leak.perform("leak_a 10 100");
    let recorded = end(recording, leak).expect_success();
    assert_eq!(recorded.stacks().of("leak_a"), Values::live(10, 100));
}

#[test]
fn interrupt_writes_the_profile() {
    assert_written(Recorder::exact(), |recording, _leak| recording.stop(libc::SIGINT));
}

#[test]
fn termination_writes_the_profile() {
    assert_written(Recorder::exact(), |recording, _leak| recording.stop(libc::SIGTERM));
}

#[test]
fn the_duration_ends_the_recording() {
    let started = Instant::now();
    assert_written(Recorder::exact().option("-d").option("6"), |recording, _leak| recording.finish());
    assert!(started.elapsed() >= Duration::from_secs(6));
}

/// The time of a command that takes its own until it can allocate begins when it can.
#[test]
fn the_duration_begins_with_the_allocator() {
    let leak = LEAK.path();
    let command = ["5000", leak.to_str().unwrap(), "run", "leak_a", "10", "100"];
    let recorded = Recorder::exact().option("-d").option("4").launch(&LATE.path(), &command);
    assert_eq!(recorded.expect_success().stacks().of("leak_a"), Values::live(10, 100));
}

#[test]
fn the_profile_says_when_and_how_long() {
    let leak = Leak::serve(LEAK);
    let before = std::time::SystemTime::now();
    let recorded = Recorder::exact().option("-d").option("2").attach(leak.pid()).finish().expect_success();
    let profile = recorded.pprof();
    let seconds = profile.duration_nanos as f64 / 1e9;
    assert!((1.5..100.0).contains(&seconds), "{seconds} s");
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(profile.time_nanos as u64);
    assert!(time >= before && time <= std::time::SystemTime::now(), "{time:?}");
}

#[test]
fn the_targets_exit_ends_the_recording_and_names_are_kept() {
    // Dropping the guard of its stdin lets it return from main.
    assert_written(Recorder::exact(), |recording, leak| {
        leak.0.finish().expect_success();
        recording.finish()
    });
}

#[test]
fn the_targets_death_ends_the_recording_and_names_are_kept() {
    assert_written(Recorder::exact(), |recording, leak| {
        leak.0.signal(libc::SIGKILL);
        recording.finish()
    });
}

#[test]
fn the_commands_exit_status_is_passed_through() {
    for (script, code) in
        [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)]
    {
        let recorded = Recorder::new().run(&["--", "/bin/sh", "-c", script]);
        assert_eq!(recorded.outcome.code(), code, "{script}:\n{}", recorded.outcome.stderr);
        assert!(recorded.output().is_file(), "{script}: a profile is written all the same");
    }
}

#[test]
fn the_command_has_memtraces_streams_arguments_and_environment() {
    let recorder = Recorder::new();
    let script = r#"read line; echo "$line $VARIABLE $1" && pwd && echo to-stderr >&2"#;
    let mut command = recorder.command(&["--", "/bin/sh", "-c", script, "sh", "-d"]);
    let dir = recorder.dir().canonicalize().unwrap();
    let mut recording = Recording::of(Process::spawn(command.env("VARIABLE", "from-environment")), recorder);
    assert_eq!(recording.process.ask("from-stdin"), "from-stdin from-environment -d");
    let outcome = recording.finish().expect_success().outcome;
    assert_eq!(
        outcome.stdout.lines().nth(1),
        dir.to_str(),
        "nothing but the command's own words is on stdout"
    );
    outcome.assert_says(&["to-stderr"]);
}

#[test]
fn a_launched_command_is_traced_from_its_first_allocation() {
    // A program that has ended before anyone could have attached to it.
    for _ in 0..5 {
        let recorded =
            Recorder::exact().launch(&LEAK.path(), &["run", "leak_a", "1", "100"]).expect_success();
        assert_eq!(recorded.stacks().of("leak_a"), Values::live(1, 100));
    }
}

/// A terminal sends SIGINT to both: the command ends by it, and memtrace writes the profile.
#[test]
fn ctrl_c_ends_the_command_and_writes_the_profile() {
    let recorder = Recorder::exact();
    let program = LEAK.path();
    let mut command = recorder.command(&["--", program.to_str().unwrap(), "serve"]);
    let mut recording = Recording::of(Process::spawn(command.process_group(0)), recorder);
    recording.process.stdout_line(|line| line == "ready");
    recording.process.ask("leak_a 10 100");
    recording.process.signal_group(libc::SIGINT);
    let recorded = recording.finish();
    assert_eq!(recorded.outcome.code(), 128 + libc::SIGINT, "{}", recorded.outcome.stderr);
    assert_eq!(recorded.stacks().of("leak_a"), Values::live(10, 100));
}

#[test]
fn an_exec_in_the_command_is_followed() {
    // What sh allocated is gone with its memory; what it becomes is a process of the same pid.
    let script = format!("exec {} run leak_a 10 100", LEAK.path().display());
    let recorded = Recorder::exact().run(&["--", "/bin/sh", "-c", &script]);
    assert_eq!(recorded.expect_success().stacks().of("leak_a"), Values::live(10, 100));
}
