//! By what samples can be told apart, beside their stacks.

use memtrace_tests::fixture::NAMED_THREADS;
use memtrace_tests::record::Recorder;
use memtrace_tests::stacks::Values;

const THREADS: [&str; 4] = ["reader", "10", "writer", "30"];

#[test]
fn threads_that_allocate_by_the_same_stack() {
    let recorder = Recorder::exact().option("--threads").output("out.json");
    let recorded = recorder.launch(&NAMED_THREADS.path(), &THREADS).expect_success();
    let by_thread = recorded.json().stacks_by("thread");
    for (name, count) in [("reader", 10), ("writer", 30)] {
        assert_eq!(by_thread[name].of("leak"), Values::live(count, 100), "{name}");
    }
    assert_eq!(recorded.json().stacks_by("tid").len(), 3, "those, and the main thread");
}

#[test]
fn threads_are_one_unless_they_are_told_apart() {
    let recorder = Recorder::exact().output("out.json");
    let recorded = recorder.launch(&NAMED_THREADS.path(), &THREADS).expect_success();
    assert!(recorded.json().stacks_by("thread").is_empty());
    let stacks = recorded.json().stacks();
    assert_eq!(stacks.with_leaf("leak").count(), 1);
    assert_eq!(stacks.of("leak"), Values::live(40, 100));
}

#[test]
fn every_sample_says_whose_it_is() {
    let recorder = Recorder::exact().output("out.json");
    let recorded = recorder.launch(&NAMED_THREADS.path(), &THREADS).expect_success();
    let profile = recorded.json();
    for (label, value) in [("comm", "named_threads"), ("allocator", "glibc")] {
        let by = profile.stacks_by(label);
        assert_eq!(by.keys().collect::<Vec<_>>(), [value], "{label}");
        assert_eq!(by[value].sum(), profile.stacks().sum(), "{label}");
    }
}
