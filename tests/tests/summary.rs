//! What a recording says while it runs and when it ends.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::process::Process;
use memtrace_tests::record::Recorder;
use memtrace_tests::tools;

const OPERATIONS: [&str; 7] = ["run", "leak_a", "1024", "1024", "leak_b", "10", "10"];

#[test]
fn the_closing_summary_names_the_top_stacks_the_losses_and_the_file() {
    let recorded = Recorder::exact().launch(&LEAK.path(), &OPERATIONS).expect_success();
    recorded.outcome.assert_says(&["leak_a", "leak_b", "in use|in-use", "lost|loss", "out.pb.gz"]);
    let leak_a = recorded.outcome.stderr.find("leak_a");
    assert!(
        leak_a < recorded.outcome.stderr.find("leak_b"),
        "the largest first:\n{}",
        recorded.outcome.stderr
    );
    recorded.outcome.assert_says(&["1 MiB|1.0 MiB|1.00 MiB|1048576|1,048,576|1024 KiB|1024.0 KiB"]);
}

#[test]
fn there_is_no_progress_line_where_there_is_no_terminal() {
    let recorded = Recorder::new().run(&["--", "sleep", "2"]).expect_success();
    assert!(!recorded.outcome.stderr.contains(['\r', '\u{1b}']), "{:?}", recorded.outcome.stderr);
}

#[test]
fn there_is_a_progress_line_on_a_terminal() {
    let recorder = Recorder::new();
    let plain = recorder.command(&["--", "sleep", "3"]);
    let words: Vec<_> = std::iter::once(plain.get_program()).chain(plain.get_args()).collect();
    let line = words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut script = tools::command("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(recorder.dir());
    let outcome = Process::spawn(&mut script).finish().expect_success();
    // The terminal makes a line's end of "\r\n": a lone "\r" goes back to the start of the line.
    let shown = outcome.stdout.replace("\r\n", "\n");
    assert!(shown.contains('\r'), "{:?}", outcome.stdout);
}
