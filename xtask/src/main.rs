//! Everything in this repository that takes more than one cargo command.
//!
//! `cargo xtask <command>`; one file per command, and beside them what they share: [`process`] runs
//! programs, [`repo`] knows the places, [`setup`] installs what a command needs.
//!
//! xtask must not depend on the `memtrace` crate: that does not compile while the BPF object is stale,
//! and it is xtask that renews it.

mod bench;
mod build_ebpf;
mod kernels;
mod observe;
mod pictures;
mod probe;
mod process;
mod repo;
mod setup;
mod soak;
#[path = "../../memtrace/build/source_digest.rs"]
mod source_digest;
#[cfg(test)]
mod source_digest_tests;
mod test;
mod tests_run;
mod unwinding;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::repo::Repo;

/// Everything in this repository that takes more than one cargo command.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    BuildEbpf(build_ebpf::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Kernels(kernels::Arguments),
    Pictures(pictures::Arguments),
    Soak(soak::Arguments),
    Unwinding(unwinding::Arguments),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let done = Repo::find().and_then(|repo| match command {
        Command::BuildEbpf(arguments) => build_ebpf::run(&repo, &arguments),
        Command::Test(arguments) => test::run(&repo, &arguments),
        Command::Bench(arguments) => bench::run(&repo, &arguments),
        Command::Kernels(arguments) => kernels::run(&repo, &arguments),
        Command::Pictures(arguments) => pictures::run(&repo, &arguments),
        Command::Soak(arguments) => soak::run(&repo, &arguments),
        Command::Unwinding(arguments) => unwinding::run(&repo, &arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
