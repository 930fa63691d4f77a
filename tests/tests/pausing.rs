//! Probes go off and on again at a signal, and the books stay honest about the gap.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::record::{Recorder, Recording};
use memtrace_tests::residue;
use memtrace_tests::stacks::Values;
use memtrace_tests::target::Leak;

/// Sends the signal and returns how many milliseconds memtrace says the change has taken.
fn toggle(recording: &mut Recording, word: &str) -> f64 {
    recording.process.signal(libc::SIGUSR1);
    let line = recording.process.stderr_line(|line| line.contains(word));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "ms").expect("it says how long it took");
    words[at - 1].parse().expect("a number of milliseconds")
}

#[test]
fn what_happens_in_a_pause_is_not_seen_and_the_profile_says_so() {
    for mode in ["session", "multi", "perf"] {
        let mut leak = Leak::serve(LEAK);
        let mut recording = Recorder::exact().output("out.json").attach_mode(mode).attach(leak.pid());
        leak.perform("leak_a 10 100");
        toggle(&mut recording, "paused");
        residue::assert_no_probe_left(leak.pid());
        leak.perform("leak_a 1000 100");
        toggle(&mut recording, "resumed");
        leak.perform("leak_b 5 64");
        let recorded = recording.stop(libc::SIGINT).expect_success();
        let profile = recorded.json();
        assert_eq!(profile.stacks().of("leak_a"), Values::live(10, 100), "{mode}");
        assert_eq!(profile.stacks().of("leak_b"), Values::live(5, 64), "{mode}");
        assert!(profile.loss("pauses_milliseconds") > 0, "{mode}: the gap is not stated");
        assert_eq!(profile.loss("samples_from_before_a_pause"), 10, "{mode}");
    }
}

#[test]
fn a_recording_that_is_never_paused_says_nothing_of_pauses() {
    let mut leak = Leak::serve(LEAK);
    let recording = Recorder::exact().output("out.json").attach(leak.pid());
    leak.perform("leak_a 10 100");
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    assert_eq!(profile.loss("pauses_milliseconds"), 0);
    assert_eq!(profile.loss("samples_from_before_a_pause"), 0);
}
