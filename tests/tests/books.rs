//! Exact books: at `--sample-interval 1` every function's objects and bytes are the truth.

use memtrace_tests::fixture::{API, Build, LEAK, LEAK_FRAME_POINTERS, OPS};
use memtrace_tests::record::{Recorded, Recorder};
use memtrace_tests::stacks::Values;
use memtrace_tests::target::Leak;

const LEAKING: [&str; 10] = ["run", "leak_a", "1000", "64", "leak_b", "500", "3000", "churn", "5000", "32"];

/// Launches the fixture and asserts that its profile is the truth which it told.
fn assert_exact(build: Build, program: &str, arguments: &[&str]) -> Recorded {
    let recorded = Recorder::exact().launch(&build.path(), arguments).expect_success();
    recorded.stacks().assert_books(program, &recorded.truth());
    recorded
}

#[test]
fn two_leaks_and_a_churner_launched() {
    let stacks = assert_exact(LEAK, "leak", &LEAKING).stacks();
    // The same again without the fixture's word for it.
    assert_eq!(stacks.of("leak_a"), Values::live(1000, 64));
    assert_eq!(stacks.of("leak_b"), Values::live(500, 3000));
    assert_eq!(stacks.of("churn"), Values::freed(5000, 32));
}

#[test]
fn two_leaks_and_a_churner_with_frame_pointers() {
    assert_exact(LEAK_FRAME_POINTERS, "leak", &LEAKING);
}

#[test]
fn two_leaks_and_a_churner_attached() {
    let mut leak = Leak::serve(LEAK);
    let recording = Recorder::exact().attach(leak.pid());
    let truth = leak.perform("leak_a 1000 64 leak_b 500 3000 churn 5000 32");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    recorded.stacks().assert_books("leak", &truth);
}

#[test]
fn what_was_before_the_attachment_is_not_in_the_books() {
    let mut leak = Leak::serve(LEAK);
    leak.perform("leak_a 100 64 hold 50 100 churn 10 10");
    let recording = Recorder::exact().attach(leak.pid());
    // Of these 70 objects, 20 are freed; then 30 of the 50 that nobody saw being allocated.
    leak.perform("hold 70 200 release 20 0 leak_a 3 64");
    leak.perform("release 80 0 hold 5 300");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let stacks = recorded.stacks();
    assert_eq!(stacks.of("leak_a"), Values::live(3, 64));
    let mut hold = Values::freed(70, 200);
    hold += Values::live(5, 300);
    assert_eq!(stacks.of("hold"), hold);
    assert_eq!(stacks.of("churn"), Values::default());
}

#[test]
fn what_was_after_the_recording_is_not_in_the_books() {
    let mut leak = Leak::serve(LEAK);
    let recording = Recorder::exact().attach(leak.pid());
    leak.perform("hold 10 100");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    leak.perform("release 10 0 leak_a 10 10");
    assert_eq!(recorded.stacks().of("hold"), Values::live(10, 100));
    assert_eq!(recorded.stacks().of("leak_a"), Values::default());
}

#[test]
fn two_recordings_of_one_process_do_not_disturb_each_other() {
    let mut leak = Leak::serve(LEAK);
    let first = Recorder::exact().attach(leak.pid());
    leak.perform("leak_a 10 100");
    let second = Recorder::exact().attach(leak.pid());
    leak.perform("leak_a 20 100");
    let first = first.stop(libc::SIGINT).expect_success();
    leak.perform("leak_a 40 100");
    let second = second.stop(libc::SIGINT).expect_success();
    assert_eq!(first.stacks().of("leak_a"), Values::live(30, 100));
    assert_eq!(second.stacks().of("leak_a"), Values::live(60, 100));
}

#[test]
fn only_the_target_is_in_the_books() {
    let mut target = Leak::serve(LEAK);
    let mut bystander = Leak::serve(LEAK);
    let recording = Recorder::exact().attach(target.pid());
    target.perform("leak_a 10 100");
    bystander.perform("leak_a 1000 100");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_eq!(recorded.stacks().of("leak_a"), Values::live(10, 100));
}

#[test]
fn every_function_of_the_allocation_api() {
    assert_exact(API, "api", &[]);
}

#[test]
fn every_form_of_operator_new() {
    let recorded = assert_exact(OPS, "ops", &[]);
    let stacks = recorded.stacks();
    let new_array = stacks.with_leaf("ops::by_new_array").next().unwrap();
    assert_eq!(new_array.frames[0].function, "ops::by_new_array(unsigned long)", "demangled in full");
}

#[test]
fn nothing_is_lost_and_nothing_is_said_to_be() {
    let recorded = Recorder::exact().output("out.json").launch(&LEAK.path(), &LEAKING).expect_success();
    let profile = recorded.json();
    profile.assert_nothing_lost();
    profile.stacks().assert_books("leak", &recorded.truth());
}

#[test]
fn inlined_functions_have_frames_of_their_own() {
    let recorded = Recorder::exact().launch(&LEAK.path(), &["run", "inlined", "10", "20"]).expect_success();
    let stacks = recorded.stacks();
    assert_eq!(stacks.of("inlined_leak"), Values::live(10, 20));
    let stack = stacks.with_leaf("inlined_leak").next().unwrap();
    let [inlined, caller, ..] = &stack.frames[..] else { panic!("{stack:?}") };
    let source = LEAK.source().to_str().unwrap().to_owned();
    assert_eq!(
        (inlined.inlined, &inlined.file, inlined.line as u64),
        (true, &source, LEAK.line("inlined_leak"))
    );
    assert_eq!(caller.name(), "inlining_caller");
    assert_eq!(
        (caller.inlined, &caller.file, caller.line as u64),
        (false, &source, LEAK.line("inlining_caller"))
    );
    assert_eq!(inlined.address, caller.address);
}

#[test]
fn every_caller_is_there_where_there_are_frame_pointers() {
    let recorded = Recorder::exact().launch(&LEAK_FRAME_POINTERS.path(), &["run", "chain", "10", "20"]);
    let stacks = recorded.expect_success().stacks();
    assert_eq!(stacks.of("chain_leaf"), Values::live(10, 20));
    let stack = stacks.with_leaf("chain_leaf").next().unwrap();
    assert_eq!(stack.names()[..4], ["chain_leaf", "chain_inner", "chain_outer", "perform"]);
}
