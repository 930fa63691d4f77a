//! `memtrace doctor`: what can be traced here.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use memtrace::{
    doctor::{Report, TextOptions},
    profile::printable,
    record,
    target::Target,
};

use super::{Verbosity, record::duration, selection, selection::SelectionArgs, terminal};

/// Say what this kernel, these privileges and this process allow, and what is missing
///
/// What can be tried is tried: probes are set on memtrace itself and, with -p or another choice, for a moment on the
/// process's most rarely called allocation functions. The exit status is 0 when recording is possible
/// (with -p and the like: of that process), and 1 otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Also set all probes that `record` would set, for this time [default: 1s], and count how often each function is
    /// called
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", value_parser = duration)]
    count_calls: Option<Duration>,

    /// Print JSON, described in docs/doctor.md
    #[arg(long)]
    json: bool,
}

/// Counts calls of the process's functions, if it can be recorded.
fn count_calls(report: &mut Report, time: Duration) -> Result<()> {
    let can_record = report.can_record();
    let Some(target) = report.target.as_mut().filter(|_| can_record) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let calls = runtime.block_on(record::count_calls(Target::open(target.pid)?, time))?;
    target.add_calls(&calls, time);
    Ok(())
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
    let mut report = Report::new(pid)?;
    if let Some(time) = args.count_calls {
        count_calls(&mut report, time)?;
    }
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
