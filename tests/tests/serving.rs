//! The target comes first: it serves while it is traced and after, however memtrace ends.

use std::time::Duration;

use memtrace_tests::fixture::LEAK;
use memtrace_tests::record::Recorder;
use memtrace_tests::residue::{self, KernelObjects};
use memtrace_tests::stacks::{Stacks, Values};
use memtrace_tests::target::{Leak, Python, Redis};

/// Asserts that functions of the file called `program`, by `names` among others, allocated.
fn assert_names(stacks: &Stacks, program: &str, names: impl Fn(&str) -> bool) {
    let frames = stacks.0.iter().filter(|stack| stack.values.alloc_space > 0).flat_map(|stack| &stack.frames);
    let of_program: Vec<_> =
        frames.filter(|frame| frame.mapping.rsplit('/').next() == Some(program)).collect();
    let known = of_program.iter().any(|frame| names(&frame.function));
    assert!(known, "no known function of {program} among {of_program:#?}");
}

/// Attaches, asserts that the target is patched and memtrace loaded, kills memtrace, and asserts that neither
/// is so any more.
fn kill_while_tracing(pid: u32, meanwhile: impl FnOnce()) {
    let recording = Recorder::exact().attach(pid);
    let objects = KernelObjects::held_by(recording.process.pid());
    objects.assert_present();
    assert_ne!(residue::patches(pid), Vec::<String>::new(), "a traced process has probes in it");
    meanwhile();
    recording.process.signal(libc::SIGKILL);
    recording.process.finish();
    residue::assert_no_probe_left(pid);
    objects.assert_gone();
}

#[test]
fn redis_under_load_is_profiled_and_serves() {
    let redis = Redis::serve();
    let _load = redis.benchmark();
    let recording = Recorder::new().interval("64KiB").attach(redis.pid());
    redis.wait_for_commands(20_000);
    redis.assert_serves();
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_names(&recorded.stacks(), &redis.program(), |name| {
        ["zmalloc", "ztrymalloc", "sds"].iter().any(|s| name.contains(s))
    });
    redis.assert_serves();
    residue::assert_no_probe_left(redis.pid());
}

#[test]
fn redis_serves_after_memtrace_is_killed() {
    let redis = Redis::serve();
    let load = redis.benchmark();
    kill_while_tracing(redis.pid(), || redis.assert_serves());
    redis.wait_for_commands(100);
    drop(load);
    redis.assert_serves();
}

#[test]
fn python_is_profiled_and_serves() {
    let mut python = Python::serve();
    let recording = Recorder::new().interval("16KiB").attach(python.pid());
    python.wait_for_work(Duration::from_millis(500));
    python.assert_serves();
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_names(&recorded.stacks(), "[python]", |name| name == "<module>");
    python.assert_serves();
    residue::assert_no_probe_left(python.pid());
}

#[test]
fn python_serves_after_memtrace_is_killed() {
    let mut python = Python::serve();
    kill_while_tracing(python.pid(), || python.assert_serves());
    python.assert_serves();
}

#[test]
fn a_process_can_be_recorded_again_after_memtrace_was_killed() {
    let mut leak = Leak::serve(LEAK);
    let pid = leak.pid();
    kill_while_tracing(pid, || {
        leak.perform("leak_a 10 10 hold 10 10");
    });
    let recording = Recorder::exact().attach(pid);
    leak.perform("leak_a 5 10 release 10 0");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_eq!(recorded.stacks().of("leak_a"), Values::live(5, 10));
    assert_eq!(recorded.stacks().of("hold"), Values::default());
}

#[test]
fn a_stopped_recording_leaves_nothing_behind() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut leak = Leak::serve(LEAK);
        let recording = Recorder::exact().attach(leak.pid());
        let objects = KernelObjects::held_by(recording.process.pid());
        recording.stop(signal).expect_success();
        residue::assert_no_probe_left(leak.pid());
        objects.assert_gone();
        assert_eq!(leak.perform("leak_a 1 10")["leak_a"], Values::live(1, 10));
    }
}
