//! `memtrace record`: the heap profile of processes.

mod recorder;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use memtrace::{
    allocator::Custom,
    kernel::AttachMode,
    output::Format,
    record::{Follow, PythonMode},
    target::Selection,
};

use super::{Verbosity, allocators, selection::SelectionArgs, size, symbols};

/// Record the heap of processes: who allocated what is still in use
///
/// Attaches to running processes, or starts a command and follows it, and all that it starts, from the first
/// allocation. The recording ends after the given time, at Ctrl-C or SIGTERM, or with the last process; profiles are
/// written in any case. Of a process that was running before, only what it allocates from now on is seen.
///
/// Of several processes there is one profile of all, whose samples have the labels pid, comm, container and pod, and a
/// directory beside it with a profile of each. Where processes are selected by anything but their ids, new ones that
/// match are recorded as they appear, so that the recording goes on also when none is left.
///
/// SIGUSR1 takes all probes off, so that the processes run at full speed, and the next one sets them again; the
/// profile says how long the gap was.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Which new processes are recorded, too [default: for a command, its children; for processes by their ids, none;
    /// otherwise those that match]
    #[arg(long, value_enum, value_name = "WHICH")]
    follow: Option<FollowArg>,

    /// End the recording after this time: seconds, or with a unit as in 500ms, 2m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Where to write the profile; `-` is standard output [default: memtrace.COMM.PID.pb.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The format of the profile [default: by the name of the output file, or else pprof]
    #[arg(short, long, value_enum)]
    format: Option<Format>,

    /// Mean number of bytes allocated between two samples; 1 records every allocation
    #[arg(short, long, value_name = "BYTES", default_value = "512KiB", value_parser = size::interval)]
    sample_interval: u64,

    /// How to set probes; all modes give the same profile at a different price [default: the best one that
    /// this kernel has]
    #[arg(long, value_enum, value_name = "MODE")]
    attach_mode: Option<AttachMode>,

    /// Also write every recorded allocation and free to this file, one JSON object per line; `memtrace report`
    /// makes lifetimes of it
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,

    /// How many stacks the summary shows
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,

    /// How many frames of a stack to keep, the innermost ones; at most 255
    #[arg(long, value_name = "N", default_value_t = 127, value_parser = clap::value_parser!(u32).range(1..=255))]
    max_frames: u32,

    /// Tell threads apart: samples get the labels `thread` (its name) and `tid`. Makes more stacks: as many as threads
    /// use each
    #[arg(long)]
    threads: bool,

    /// Whether to show Python functions, where the process is a CPython interpreter or has one in it
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    python: PythonMode,

    /// Leave addresses as they are: `memtrace symbolize` or pprof names them later, from the files with the
    /// mappings' build-ids
    #[arg(long, conflicts_with_all = ["debuginfod", "debug_dirs"])]
    no_symbolize: bool,

    #[command(flatten)]
    symbols: symbols::SymbolArgs,

    /// Most live samples to keep track of [default: 262144, or 1048576 at intervals below 64KiB]
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    max_live: Option<u32>,

    /// Most distinct stacks to keep [default: 65536]
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u32).range(2..=1 << 24))]
    max_stacks: Option<u32>,

    /// Size of the ring buffer through which new stacks are reported; rounded up to a power of two [default: 4MiB]
    #[arg(long, value_name = "BYTES", hide_short_help = true, value_parser = ring_size)]
    ring_size: Option<u32>,

    /// Only the functions of one family in the table of allocators, for a process in which another one is in the
    /// way, or otel_memory: only the samples that the process itself draws and tells of by probes of its own (USDT);
    /// docs/allocators.md has the table
    #[arg(long, value_name = "NAME", value_parser = allocators::family())]
    allocator: Option<String>,

    /// Another function that allocates: a file, a symbol, and where its size and its result are, as in
    /// 'libpool.so:pool_alloc:size=arg1,ret'; more in docs/allocators.md
    #[arg(long, value_name = "FILE:FUNCTION:SHAPE", value_parser = Custom::allocation)]
    alloc: Vec<Custom>,

    /// Another function that frees, as in 'libpool.so:pool_free:arg1'
    #[arg(long, value_name = "FILE:FUNCTION:ARGUMENT", value_parser = Custom::free)]
    free: Vec<Custom>,

    /// Also see Python's own allocator, which serves small objects without malloc; docs/python.md says what it takes
    #[arg(long)]
    python_objects: bool,

    /// The command to start, and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Which new processes are recorded, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FollowArg {
    /// None
    None,
    /// All that a recorded process creates
    Children,
    /// Those that match what was asked for
    Matching,
}

const EXAMPLES: &str = "\
Examples:
  memtrace record -p 1234                     until Ctrl-C
  memtrace record -p 1234 -d 30 -o heap.svg   30 seconds, as a flame graph
  memtrace record --name postgres -d 30       all processes with such a name, and new ones
  memtrace record --port 6379                 who listens there
  memtrace record --container web             all in this container
  memtrace record --pod shop/cart-0 --name java   those of this name in this pod
  memtrace record -s 1 -- ./test.sh           every single allocation of a command and its children

Then:
  go tool pprof -top memtrace.test.sh.1234.pb.gz
  go tool pprof -top -tagfocus pid=1240 memtrace.test.sh.1234.pb.gz
  go tool pprof -base before.pb.gz after.pb.gz";

/// Parses a time: seconds, or with a unit.
///
/// # Errors
/// A sentence that says what is accepted.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds: Result<f64, _> = text.parse();
    match seconds {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
    .filter(|duration| !duration.is_zero() && *duration < Duration::from_secs(u32::MAX.into()))
    .ok_or_else(|| format!("{text:?} is not a time: use seconds, or a unit as in 500ms, 2m, 1h"))
}

fn ring_size(text: &str) -> Result<u32, String> {
    let (least, most) = (4096, 1 << 30);
    let bytes = size::bytes(text)?.next_power_of_two();
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (least..=most).contains(bytes))
        .ok_or_else(|| format!("{text:?} is not possible: use {least} bytes to 1 GiB"))
}

/// Runs the subcommand.
pub(super) fn run(args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    args.selection.check(&args.command).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(recorder::Recorder { args, verbosity }.run())
}

impl Args {
    /// Which new processes are recorded; `selection` is that of the processes, where there is no command.
    ///
    /// # Errors
    /// When it does not go with what else was asked for.
    fn follow(&self, selection: Option<Selection>) -> Result<Follow> {
        Ok(match (self.follow, selection) {
            (Some(FollowArg::None), _) => Follow::Nobody,
            (Some(FollowArg::Children), _) | (None, None) => Follow::Children,
            (Some(FollowArg::Matching), None) => {
                bail!(
                    "--follow matching is for processes by --name, --port and others: a command has none of these"
                )
            }
            (Some(FollowArg::Matching), Some(selection)) if selection.criteria().only_pids() => {
                bail!(
                    "no new process matches -p: use --follow children for those that the process creates, or select by \
                     --name and others"
                )
            }
            (None, Some(selection)) if selection.criteria().only_pids() => Follow::Nobody,
            (Some(FollowArg::Matching) | None, Some(selection)) => Follow::Matching(selection.into()),
        })
    }
}
