//! git, reading the whole history of a generated repository as patches.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Load;
use super::service::{run, text};

const COMMITS: usize = 1500;
const FILES: usize = 40;

pub(super) fn start(directory: &Path) -> Result<Load> {
    let repository = directory.join("repository");
    let at = text(&repository)?;
    run(Command::new("git").args(["init", "--quiet", "--bare", at]))?;
    let history = directory.join("history");
    fs::write(&history, self::history()).context("cannot write the history")?;
    let input = fs::File::open(&history).context("cannot read the history")?;
    let mut import = Command::new("git");
    import.args(["-C", at, "fast-import", "--quiet"]).stdin(input).stdout(Stdio::null());
    let status = import.status().context("cannot start git")?;
    if !status.success() {
        bail!("git fast-import failed ({status})");
    }
    run(Command::new("git").args(["-C", at, "repack", "-adfq"]))?;
    Ok(Load::launch(&[
        "/usr/bin/git",
        "-C",
        at,
        "log",
        "-p",
        "-M",
        "-C",
        "--stat",
        "--output=/dev/null",
        "main",
    ]))
}

/// What `git fast-import` reads (git-fast-import(1)): commits that each change some lines of a file.
fn history() -> String {
    let mut text = String::new();
    let mut files = vec![String::new(); FILES];
    for commit in 0..COMMITS {
        let number = commit * 7 % FILES;
        let file = &mut files[number];
        let kept: String =
            file.lines().filter(|line| line.len() % 9 != commit % 9).flat_map(|line| [line, "\n"]).collect();
        *file = kept;
        for line in 0..12 {
            let words = "lorem ipsum dolor sit amet ".repeat(1 + (commit * 31 + line * 17) % 3);
            // Writing to a string cannot fail.
            let _ = writeln!(file, "{:x} {words}{commit}.{line}", commit * 2_654_435_761 % 65_521);
        }
        let message = format!("Change {commit}\n");
        let _ = write!(
            text,
            "commit refs/heads/main\ncommitter A U Thor <author@example.com> {} +0000\ndata {}\n{message}\n\
             M 100644 inline directory{}/file{number}.txt\ndata {}\n{file}\n",
            1_600_000_000 + commit * 60,
            message.len(),
            number % 5,
            file.len()
        );
    }
    text
}
