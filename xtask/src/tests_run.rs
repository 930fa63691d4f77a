//! Runs a test harness, and what failed once more, alone.
//!
//! The tests here watch real processes on a machine that others share, so that one in thousands of runs may fail for
//! what the machine did. Such a test is a bug, too, and is named at the end of the run; but it must not hide what
//! all the others say. A test that fails twice has failed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// More failures than this are no accident.
const ACCIDENTS: usize = 3;

/// Runs `cargo test … -- <options> <filters>`, and returns the names of the tests that failed at first, but not when they
/// ran once more, alone.
///
/// # Errors
/// When a test fails twice, more than [`ACCIDENTS`] tests fail, or the tests could not be built or run.
pub(crate) fn run(
    cargo_test: impl Fn() -> Command,
    options: &[&str],
    filters: &[String],
) -> Result<Vec<String>> {
    run_showing(&mut std::io::stdout(), cargo_test, options, filters)
}

/// The same, with what the harness says written to `shown`.
fn run_showing(
    shown: &mut impl Write,
    cargo_test: impl Fn() -> Command,
    options: &[&str],
    filters: &[String],
) -> Result<Vec<String>> {
    let mut all = cargo_test();
    all.args(["--no-fail-fast", "--"]).args(options).args(filters);
    let (passed, said) = run_aloud(&mut all, shown)?;
    if passed {
        return Ok(Vec::new());
    }
    let failed = failures(&said);
    if failed.is_empty() || failed.len() > ACCIDENTS {
        bail!("tests failed");
    }
    writeln!(shown, "== once more, alone: {}", failed.join(", "))?;
    let mut again = cargo_test();
    again.args(["--no-fail-fast", "--", "--exact"]).args(options).args(&failed).env("RUST_TEST_THREADS", "1");
    let (passed, _) = run_aloud(&mut again, shown)?;
    match passed {
        true => Ok(failed),
        false => bail!("tests failed twice"),
    }
}

/// Runs `command`, writes what it says on its standard output to `shown`, and returns whether it succeeded, and that.
fn run_aloud(command: &mut Command, shown: &mut impl Write) -> Result<(bool, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut output = child.stdout.take().context("cargo has no standard output")?;
    let mut said = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = output.read(&mut part)?;
        if length == 0 {
            break;
        }
        shown.write_all(&part[..length])?;
        shown.flush()?;
        said.extend_from_slice(&part[..length]);
    }
    Ok((child.wait()?.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The names in the last list of failures of each test program in `said`, which libtest ends with its result.
fn failures(said: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut last: Option<Vec<String>> = None;
    for line in said.lines() {
        if line == "failures:" {
            last = Some(Vec::new());
        } else if line.starts_with("test result: ") {
            all.extend(last.take().unwrap_or_default());
        } else if let (Some(names), Some(name)) = (&mut last, line.strip_prefix("    ")) {
            names.push(name.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "running 2 tests\n\nfailures:\n\n---- a::b stdout ----\n    a line of its output\n\n\
        failures:\n    a::b\n    c::d\n\ntest result: FAILED. 0 passed; 2 failed\n\n\
        running 1 test\n.\ntest result: ok. 1 passed\n\n\
        failures:\n    memtrace/src/lib.rs - e (line 3)\n\ntest result: FAILED. 0 passed; 1 failed\n";

    #[test]
    fn the_tests_that_failed_are_named() {
        assert_eq!(failures(SAID), ["a::b", "c::d", "memtrace/src/lib.rs - e (line 3)"]);
        assert!(failures("running 0 tests\n\ntest result: ok.\n").is_empty());
    }

    /// A command that fails as libtest does when `test` is not true.
    fn harness(test: &str) -> impl Fn() -> Command {
        let script =
            format!("({test}) && exit; printf 'failures:\\n    a\\n\\ntest result: FAILED.\\n'; exit 101");
        move || {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, "cargo"]);
            shell
        }
    }

    #[test]
    fn a_test_that_passes_alone_is_named_and_one_that_fails_twice_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        // Not to this test's own output: there it would be read as that of a test that has failed.
        let run = |harness: &dyn Fn() -> Command| run_showing(&mut Vec::new(), harness, &[], &[]);
        assert!(run(&harness("true")).unwrap().is_empty());
        let second = format!("test -e {ran} || ! touch {ran}", ran = ran.display());
        assert_eq!(run(&harness(&second)).unwrap(), ["a"]);
        assert_eq!(run(&harness("false")).unwrap_err().to_string(), "tests failed twice");
    }
}
