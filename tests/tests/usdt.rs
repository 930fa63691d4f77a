//! Processes that sample their own allocations and tell of them by probes of their own: the profile is what they say.

use memtrace_tests::fixture::{Build, USDT, USDT_SEMAPHORES, USDT_STATIC_STRIPPED};
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorded, Recorder, attach_modes, run};
use memtrace_tests::stacks::truth;
use memtrace_tests::tools;

/// At the default interval, by which nothing is drawn here.
fn recorder(mode: &str) -> Recorder {
    Recorder::new().attach_mode(mode).output("out.json").option("--allocator").option("otel_memory")
}

#[track_caller]
fn assert_true(recorded: &Recorded, program: &str) {
    let profile = recorded.json();
    profile.assert_nothing_lost();
    let truth = recorded.truth();
    assert_eq!(truth.len(), 5, "every site was sampled");
    profile.stacks().assert_books(program, &truth);
    let allocators: Vec<_> = profile.stacks_by("allocator").into_keys().collect();
    assert_eq!(allocators, ["otel_memory"]);
    for stack in &profile.stacks().0 {
        let names = stack.names();
        assert_eq!(names[1..3], ["run", "main"], "{names:?}");
    }
}

fn launched(build: Build, mode: &str) {
    let recorded = recorder(mode).launch(&build.path(), &[]).expect_success();
    assert_true(&recorded, build.name());
}

#[test]
fn what_a_process_samples_itself_is_exact() {
    attach_modes().for_each(|mode| launched(USDT, mode));
}

#[test]
fn semaphores_are_raised_while_a_process_is_recorded() {
    attach_modes().for_each(|mode| launched(USDT_SEMAPHORES, mode));
    // Without a recording nothing is told.
    let alone = tools::command(USDT_SEMAPHORES.path().to_str().unwrap()).output().unwrap();
    assert!(truth(&String::from_utf8(alone.stdout).unwrap()).is_empty());
}

#[test]
fn semaphores_are_lowered_when_a_recording_ends() {
    for mode in attach_modes() {
        let mut command = tools::command(USDT_SEMAPHORES.path().to_str().unwrap());
        let mut target = Process::spawn(command.arg("wait"));
        target.stdout_line(|line| line == "ready");
        let recording = recorder(mode).attach(target.pid());
        let books = truth(&target.ask("run"));
        let recorded = recording.stop(libc::SIGINT).expect_success();
        assert_eq!(books.len(), 5);
        recorded.json().stacks().assert_books(USDT_SEMAPHORES.name(), &books);
        assert_eq!(target.ask("end"), "semaphores 0 0");
    }
}

#[test]
fn a_process_without_known_allocator_is_seen_by_its_own_probes() {
    let recorded =
        Recorder::new().output("out.json").launch(&USDT_STATIC_STRIPPED.path(), &[]).expect_success();
    let profile = recorded.json();
    profile.assert_lost_only(&["frames_without_symbol"]);
    let sum = recorded.truth().into_values().fold(Default::default(), |mut sum, values| {
        sum += values;
        sum
    });
    assert_eq!(profile.stacks().sum(), sum);
}

#[test]
fn blocks_are_not_counted_by_functions_and_by_probes_of_the_process() {
    let mut target = Process::spawn(tools::command(USDT.path().to_str().unwrap()).arg("wait"));
    target.stdout_line(|line| line == "ready");
    let pid = target.pid().to_string();
    let report = run(&["doctor", "-p", &pid]).stdout;
    assert!(report.contains("`--allocator otel_memory` uses these probes instead"), "{report}");
    let recording = Recorder::exact().output("out.json").attach(target.pid());
    target.ask("run");
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    assert!(!profile.stacks_by("allocator").contains_key("otel_memory"));
}
