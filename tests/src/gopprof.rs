//! `go tool pprof`, the reader that memtrace's profiles are made for.

use std::path::Path;
use std::process::Command;

use crate::tools;

/// A row of `-top`: a function and its values, formatted by pprof (`12kB`, `66.67%`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is allocated by the function itself.
    pub flat: String,
    /// What is allocated by it and by what it calls.
    pub cumulative: String,
    /// The function's name as pprof shortens it.
    pub function: String,
}

/// Runs `go tool pprof OPTIONS PROFILE` and returns what it prints. pprof checks a profile for validity
/// before anything else; that it refuses one fails the test.
pub fn pprof(options: &[&str], profile: &Path) -> String {
    let mut command = Command::new(tools::go());
    // Without symbolization of its own: the names are to come from the profile alone.
    command.args(["tool", "pprof", "-symbolize=none"]).args(options).arg(profile);
    let output = command.output().expect("go runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pprof {options:?} refuses {}:\n{stderr}", profile.display());
    String::from_utf8(output.stdout).expect("pprof prints UTF-8")
}

/// Runs `go tool pprof OPTIONS [BINARY] PROFILE` and lets it find names itself: in `binary`, or else in the files
/// at the paths of the profile's mappings.
pub fn pprof_symbolizing(binary: Option<&Path>, options: &[&str], profile: &Path) -> String {
    let mut command = Command::new(tools::go());
    command.args(["tool", "pprof", "-symbolize=local"]).args(options).args(binary).arg(profile);
    let output = command.output().expect("go runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pprof {options:?} refuses {}:\n{stderr}", profile.display());
    String::from_utf8(output.stdout).expect("pprof prints UTF-8")
}

/// The rows of `-top` in its order, for the sample type `value` and with further `options`. Nothing is left
/// out for being small.
pub fn top(value: &str, options: &[&str], profile: &Path) -> Vec<Row> {
    let index = format!("-sample_index={value}");
    let mut all = vec!["-top", "-nodecount=10000", "-nodefraction=0", &index];
    all.extend_from_slice(options);
    let text = pprof(&all, profile);
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("flat  flat%"));
    assert!(lines.next().is_some(), "-top printed no table:\n{text}");
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut next = || fields.next().unwrap_or_else(|| panic!("not a row of -top: {line}")).to_owned();
        let (flat, _, _, cumulative, _) = (next(), next(), next(), next(), next());
        Row { flat, cumulative, function: fields.collect::<Vec<_>>().join(" ") }
    };
    lines.map(row).collect()
}
