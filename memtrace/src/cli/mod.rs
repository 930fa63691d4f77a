//! The command line: one file per subcommand, one way out for errors.

mod allocators;
mod destination;
mod doctor;
mod events;
mod guard;
mod logging;
mod progress;
mod record;
mod report;
mod selection;
mod size;
mod symbolize;
mod symbols;
mod terminal;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use memtrace::{record::SessionError, target::LaunchError};

/// Heap profiles of unmodified Linux processes.
///
/// memtrace watches the allocators of running processes from the kernel (eBPF uprobes): nothing is
/// injected, preloaded or restarted, and what runs is never stopped. It needs root, or CAP_BPF,
/// CAP_PERFMON, CAP_SYS_PTRACE and CAP_SYS_ADMIN.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Say more on standard error: -v what memtrace does, -vv also what its kernel program does
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  memtrace record -p 1234 -d 30          30 seconds of process 1234
  memtrace record --port 6379            the process that listens on this port
  memtrace record --container web        all processes of a container, and new ones
  memtrace record -- ./start-server.sh   a command and its children, from their first allocation
  go tool pprof -http : memtrace.server.1234.pb.gz
  memtrace report events.ndjson          lifetimes, from `record --events events.ndjson`
  memtrace symbolize heap.pb.gz          names for a profile of `record --no-symbolize`
  memtrace doctor -p 1234                what can be traced here, and what is missing";

#[derive(Debug, Subcommand)]
enum Command {
    Record(Box<record::Args>),
    Report(report::Args),
    Symbolize(symbolize::Args),
    Doctor(doctor::Args),
    #[command(hide = true)]
    Guard(guard::Args),
}

/// What the user asked for beside the subcommand.
#[derive(Clone, Copy, Debug)]
struct Verbosity {
    verbose: u8,
    quiet: bool,
}

/// Parses the command line, runs the subcommand, and prints what went wrong.
///
/// Exit statuses: 0 success, 1 failure, 2 wrong usage; `record` passes on that of its command.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbosity = Verbosity { verbose: cli.verbose, quiet: cli.quiet };
    logging::init(verbosity);
    let result = match cli.command {
        Command::Record(args) => record::run(&args, verbosity),
        Command::Report(args) => report::run(&args),
        Command::Symbolize(args) => symbolize::run(&args, verbosity),
        Command::Doctor(args) => doctor::run(&args, verbosity),
        Command::Guard(args) => guard::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Whoever reads our output has had enough (`memtrace ... | head`): not an error of ours.
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("memtrace: {}", terminal::error_chain(error));
    ExitCode::from(exit_status(error))
}

/// That of a command that could not be started is the one a shell would give; all else is 1.
fn exit_status(error: &anyhow::Error) -> u8 {
    let launch = error.downcast_ref::<LaunchError>().or(match error.downcast_ref::<SessionError>() {
        Some(SessionError::Launch(error)) => Some(error),
        _ => None,
    });
    launch.map_or(1, LaunchError::exit_status)
}
