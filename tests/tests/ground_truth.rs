//! Exact books under everything at once: seeded random scripts over the whole API, by 1 to 8 threads, in C, C++ and
//! Rust, and in every attach mode. At interval 1, bytes and objects per site are *equal* to the truth.
//!
//! `MEMTRACE_SEEDS` says how many scripts each program plays (8 where it is not set; 100 are a few seconds more).

use memtrace_tests::fixture::{Build, RANDOM_C, RANDOM_CPP, RANDOM_RUST};
use memtrace_tests::record::{Recorded, Recorder, attach_modes};
use memtrace_tests::stacks::{Books, truth};
use memtrace_tests::target::Leak;

fn seeds() -> String {
    let seeds = std::env::var("MEMTRACE_SEEDS").unwrap_or_else(|_| "8".to_owned());
    assert!(
        seeds.parse::<u32>().is_ok_and(|count| count > 0),
        "MEMTRACE_SEEDS={seeds} is no number of seeds"
    );
    seeds
}

/// Asserts that nothing was lost and that the profile is the truth.
#[track_caller]
fn assert_equal(recorded: Recorded, truth: &Books, program: Build) {
    let profile = recorded.expect_success().json();
    profile.assert_nothing_lost();
    profile.stacks().assert_sites(truth);
    // In C and C++ nothing else of the program allocates. Of Rust's, std is a part.
    if program != RANDOM_RUST {
        let stacks = profile.stacks();
        let elsewhere = stacks.0.iter().find(|stack| {
            let mapping = stack.frames[0].mapping.rsplit('/').next();
            mapping == Some(program.name()) && !stack.names().iter().any(|name| truth.contains_key(*name))
        });
        assert!(elsewhere.is_none(), "no site allocated {elsewhere:#?}");
    }
}

fn launched(program: Build, recorder: Recorder) {
    let recorded = recorder.alone().output("out.json").launch(&program.path(), &["run", "1", &seeds()]);
    let truth = truth(&recorded.outcome.stdout);
    assert_equal(recorded, &truth, program);
}

/// Of the blocks that are freed and resized while it is recorded, some were allocated before.
fn attached(program: Build, recorder: Recorder) {
    let mut target = Leak::serve(program);
    target.perform("1 3");
    let recording = recorder.output("out.json").attach(target.pid());
    let truth = target.perform(&format!("4 {}", seeds()));
    let recorded = recording.stop(libc::SIGINT);
    target.perform("2 1");
    assert_equal(recorded, &truth, program);
}

fn in_every_mode(program: Build, record: fn(Build, Recorder)) {
    for mode in attach_modes() {
        record(program, Recorder::exact().attach_mode(mode));
    }
}

#[test]
fn c_in_every_attach_mode() {
    in_every_mode(RANDOM_C, launched);
}

#[test]
fn cpp_in_every_attach_mode() {
    in_every_mode(RANDOM_CPP, launched);
}

#[test]
fn rust_in_every_attach_mode() {
    in_every_mode(RANDOM_RUST, launched);
}

#[test]
fn c_attached_to_in_every_attach_mode() {
    in_every_mode(RANDOM_C, attached);
}

#[test]
fn cpp_attached_to_in_every_attach_mode() {
    in_every_mode(RANDOM_CPP, attached);
}

#[test]
fn rust_attached_to_in_every_attach_mode() {
    in_every_mode(RANDOM_RUST, attached);
}

/// The mode that memtrace chooses by itself.
#[test]
fn all_by_default() {
    for program in [RANDOM_C, RANDOM_CPP, RANDOM_RUST] {
        launched(program, Recorder::exact());
    }
}
