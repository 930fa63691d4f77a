//! `-v` and `-vv`: what memtrace and its kernel program do.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::record::Recorder;

/// What memtrace says with `options` about three blocks of 4321 bytes that leak and two of 1234 that do not.
fn said(options: &[&str]) -> String {
    let recorder = options.iter().fold(Recorder::exact(), |recorder, option| recorder.option(option));
    let operations = ["run", "leak_a", "3", "4321", "churn", "2", "1234"];
    recorder.launch(&LEAK.path(), &operations).expect_success().outcome.stderr
}

fn count(said: &str, words: &str) -> usize {
    said.lines().filter(|line| line.contains(words)).count()
}

#[test]
fn the_kernel_program_says_what_it_does_in_every_mode() {
    for mode in ["session", "multi", "perf"] {
        let said = said(&["-vv", "--attach-mode", mode]);
        assert_eq!(count(&said, "recorded 4321 bytes at 0x"), 3, "{mode}:\n{said}");
        assert_eq!(count(&said, "freed 4321 bytes at 0x"), 0, "{mode}:\n{said}");
        assert_eq!(count(&said, "recorded 1234 bytes at 0x"), 2, "{mode}:\n{said}");
        assert_eq!(count(&said, "freed 1234 bytes at 0x"), 2, "{mode}:\n{said}");
        assert_eq!(count(&said, "has executed a program"), 1, "{mode}:\n{said}");
        assert!(count(&said, "loads or unloads libraries") > 0, "{mode}:\n{said}");
        assert_eq!(count(&said, " at 0x40,"), 0, "nothing of memtrace's own measurements:\n{said}");
        assert!(!said.contains('\x1b'), "no escapes where there is no terminal:\n{said}");
    }
}

/// As often as the counter says.
#[test]
fn a_full_table_is_said() {
    let said = said(&["-vv", "--max-live", "1"]);
    let times = count(&said, "the live table is full");
    assert!(times >= 4, "of five blocks one has room:\n{said}");
    assert_eq!(count(&said, &format!("live_table_full {times}:")), 1, "{said}");
}

#[test]
fn without_being_asked_it_is_silent() {
    for options in [&[][..], &["-v"]] {
        let said = said(options);
        assert_eq!(count(&said, "bytes at 0x"), 0, "{said}");
        assert_eq!(count(&said, "probes set") > 0, !options.is_empty(), "{said}");
    }
}
