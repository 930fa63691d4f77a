//! `memtrace doctor`: what can be traced here.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use memtrace::{
    doctor::{Report, TextOptions},
    profile::printable,
};

use super::{Verbosity, selection, selection::SelectionArgs, terminal};

/// Say what this kernel, these privileges and this process allow, and what is missing
///
/// What can be tried is tried: probes are set on memtrace itself and, with -p or another choice, for a moment on the
/// process's most rarely called allocation functions. The exit status is 0 when recording is possible
/// (with -p and the like: of that process), and 1 otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Print JSON, described in docs/doctor.md
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(super) fn run(args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    let say = |text: &str| {
        if !verbosity.quiet {
            eprintln!("memtrace: {}", printable(text));
        }
    };
    let found = args.selection.find(say)?;
    let pid = found.map(|(_, selected)| selection::only(&selected)).transpose()?;
    let report = Report::new(pid)?;
    let mut out = io::stdout().lock();
    if args.json {
        report.json(&mut out)?;
    } else {
        let color = io::stdout().is_terminal() && terminal::colors();
        let text = report.text(&TextOptions { color, width: terminal::width() });
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(if report.can_record() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
