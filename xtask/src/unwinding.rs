//! `cargo xtask unwinding`: how many stacks of real programs reach their root, and whether another unwinder
//! finds the same frames.
//!
//! The work is done by the crate `oracle`, which depends on memtrace, as xtask must not.

use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::repo::Repo;
use crate::setup::apt;

/// Walks stacks of Debian's programs under load and compares them with framehop's; needs root.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these programs
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    programs: Vec<String>,
    /// Put the tables into docs/unwinding.md; takes all programs
    #[arg(long, conflicts_with = "programs")]
    write: bool,
    /// Instead of them this command, every allocation of it, to look into a program by hand
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["programs", "write"])]
    command: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    apt::install(apt::UNWINDING)?;
    process::run(repo.cargo().args(["build", "--quiet", "--release", "--package", "memtrace-oracle"]))?;
    let mut oracle = Command::new(repo.target.join("release/memtrace-oracle"));
    if arguments.write {
        oracle.arg("--write").arg(repo.root.join("docs/unwinding.md"));
    }
    if !arguments.programs.is_empty() {
        oracle.arg("--programs").arg(arguments.programs.join(","));
    }
    if !arguments.command.is_empty() {
        oracle.arg("--").args(&arguments.command);
    }
    process::run(&mut oracle)
}
