//! `memtrace record`: the heap profile of one process.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use memtrace::{
    allocator::Custom,
    kernel::{AttachMode, Kernel, KernelLog, Limits, Settings},
    output::{self, Format},
    profile::{Profile, printable},
    record::{self, Engine, EventWriter, PythonMode, Session},
    report::{SummaryOptions, summary, units},
    symbolize::{Names, Symbolizer},
    target::{Launched, Target, launch, shell_status},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    Verbosity, allocators, destination::Destination, events, progress::Progress, selection,
    selection::SelectionArgs, size, symbols, terminal,
};

/// Record the heap of a process: who allocated what is still in use
///
/// Attaches to a running process, or starts a command and follows it from its first allocation. The
/// recording ends after the given time, at Ctrl-C or SIGTERM, or with the process; the profile is
/// written in any case. Of a process that was running before, only what it allocates from now on is seen.
///
/// SIGUSR1 takes all probes off, so that the process runs at full speed, and the next one sets them again; the
/// profile says how long the gap was.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,

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
    /// way; docs/allocators.md has the table
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

const EXAMPLES: &str = "\
Examples:
  memtrace record -p 1234                     until Ctrl-C
  memtrace record -p 1234 -d 30 -o heap.svg   30 seconds, as a flame graph
  memtrace record --name 'mini-redis' -d 30   the process with such a name
  memtrace record --port 6379                 the one that listens there
  memtrace record --container web             the one in this container
  memtrace record --pod shop/cart-0 --name java   the one of this name in this pod
  memtrace record -s 1 -- ./test              every single allocation of a command

Then:
  go tool pprof -top memtrace.test.1234.pb.gz
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
    runtime.block_on(Recorder { args, verbosity }.run())
}

struct Recorder<'a> {
    args: &'a Args,
    verbosity: Verbosity,
}

/// Signals that memtrace reacts to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    pause: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            pause: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for one that ends the recording.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
        }
    }
}

/// How long a command is waited for that has no allocator yet, before the time of its recording begins all the same.
const LOADING: Duration = Duration::from_secs(10);

/// A process grows by so many bytes, and no probe is hit.
fn unseen(pid: u32, bytes: u64) -> String {
    format!(
        "process {pid} has grown by {} and no probe was hit: it gets its memory by other functions. \
         `memtrace doctor -p {pid}` says which have probes; --alloc and --free name others",
        units::bytes(i128::from(bytes))
    )
}

/// Why a recording has ended.
enum End {
    Duration,
    Exited,
    Signal(i32),
}

impl Recorder<'_> {
    async fn run(&self) -> Result<ExitCode> {
        let args = self.args;
        // Everything that can be wrong with the output is found before anything is traced.
        let format = args
            .format
            .or_else(|| args.output.as_deref().and_then(Format::for_path))
            .unwrap_or(Format::Pprof);
        let symbols = args.symbols.options()?;
        let named = args.output.as_deref().map(Destination::named).transpose()?;
        let found = args.selection.find(|text| self.say(text))?;
        let pid = found.as_ref().map(|(_, selected)| selection::only(selected)).transpose()?;
        let target = pid.map(Target::open).transpose()?;
        let mut signals = Signals::new().context("cannot listen for signals")?;

        let settings = Settings {
            interval: args.sample_interval,
            limits: self.limits(),
            mode: args.attach_mode.unwrap_or_else(|| match &target {
                Some(target) if target.has_lost_main_thread() => AttachMode::Perf,
                _ => AttachMode::best(),
            }),
            max_frames: args.max_frames,
            events: args.events.is_some(),
            captures: false,
            log: self.verbosity.verbose >= 2,
            loop_helper: true,
        };
        let mut engine = Engine::new(Kernel::load(&settings)?)?;
        let log = match settings.log {
            true => Some(
                KernelLog::forward(engine.kernel().ebpf()).context("cannot read the kernel program's log")?,
            ),
            false => None,
        };
        let events = match &args.events {
            Some(path) => {
                let (file, replaces) = events::create(path, args.output.as_deref())?;
                if replaces {
                    self.say(&format!("replacing {}", path.display()));
                }
                Some(file)
            }
            None => None,
        };
        let selection =
            allocators::selection(args.allocator.as_deref(), &args.alloc, &args.free, args.python_objects);
        let mut session = match target {
            Some(target) => Session::attach(engine, target, args.python, selection)?,
            None => {
                let launched = launch(&args.command[0], &args.command[1..])?;
                Session::launch(engine, launched, args.python, selection)?
            }
        };
        if let Some(file) = events {
            let events = EventWriter::start(file, args.sample_interval);
            session.write_events(events.context("cannot start the thread that writes events")?);
        }
        let destination = match named {
            Some(destination) => destination,
            None if session.launched().is_none() => self.unnamed(session.target(), format)?,
            // The command's name is known when it has been executed, so the file is opened later; that
            // the directory can be written to is checked now.
            None => {
                self.unnamed(session.target(), format)?;
                Destination::Stdout
            }
        };
        let named_later = args.output.is_none() && session.launched().is_some();
        self.say(&match session.probes() {
            // A launched command gets its probes when it has executed.
            0 => format!("tracing pid {} from its start", session.target().pid),
            probes => {
                format!("tracing pid {} ({}, {probes} probes)", session.target().pid, session.target().comm)
            }
        });

        let end = self.watch(&mut session, &mut signals).await?;
        let ended_ns = record::monotonic_ns();
        let (mut recording, launched) = session.finish()?;
        if let Some(log) = log {
            log.finish().await;
        }
        let destination = if named_later { self.unnamed(&recording.target, format)? } else { destination };

        let servers = symbols.debuginfod.clone();
        let mut names = if args.no_symbolize {
            Names::off()
        } else {
            Names::new(Symbolizer::start(symbols).context("cannot start the symbolizer")?)
        };
        let profile = record::profile(&recording, args.sample_interval, &mut names);
        let profile = match &servers {
            Some(servers) => {
                self.say("looking for debug information, also on debuginfod servers; Ctrl-C ends that");
                symbols::interruptible(profile, servers, async || signals.next().await).await
            }
            None => profile.await,
        };
        // Neither's failure keeps the other from being written.
        let written = self.write(destination, format, &profile);
        let events = match (recording.events.take(), &args.events) {
            (Some(out), Some(path)) => {
                let ids = recording.sampled_stacks();
                tokio::select! {
                    result = events::finish(out, path, &profile, &ids, ended_ns) => result,
                    // Somebody has lost patience.
                    signal = signals.next() => std::process::exit(128 + signal),
                }
            }
            _ => Ok(()),
        };
        written?;
        let status = match launched {
            Some(launched) => self.pass_on(launched, &end, &mut signals).await,
            None => Ok(ExitCode::SUCCESS),
        };
        // The profile is there, so the command's end is waited for; but some events are missing.
        events.and(status)
    }

    fn limits(&self) -> Limits {
        let usual = Limits::for_interval(self.args.sample_interval);
        Limits {
            live: self.args.max_live.unwrap_or(usual.live),
            stacks: self.args.max_stacks.unwrap_or(usual.stacks),
            ring: self.args.ring_size.unwrap_or(usual.ring),
            ..usual
        }
    }

    /// An output whose name says what it is of.
    fn unnamed(&self, target: &Target, format: Format) -> Result<Destination> {
        // A process chooses its name; it must not choose a directory with it.
        let comm: String = target
            .comm
            .chars()
            .map(|c| if c.is_alphanumeric() || "-_+.".contains(c) { c } else { '_' })
            .collect();
        Destination::unused(&format!("memtrace.{comm}.{}", target.pid), format.ending())
    }

    /// Lets the recording go on until something ends it.
    async fn watch(&self, session: &mut Session, signals: &mut Signals) -> Result<End> {
        let begun = Instant::now();
        // Without a limit: longer than any machine runs.
        let duration = self.args.duration.unwrap_or(Duration::from_secs(u32::MAX.into()));
        // The time of a command begins when its libraries are loaded.
        let mut deadline = begun + LOADING + duration;
        let mut loaded = false;
        let mut tick = interval_at(begun + Duration::from_secs(1), Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut progress = Progress::new(terminal::is_terminal() && !self.verbosity.quiet);
        let end = loop {
            if !loaded && session.has_allocator() {
                (loaded, deadline) = (true, Instant::now() + duration);
            }
            let exited = session.exit_watch();
            tokio::select! {
                biased;
                _ = signals.interrupt.recv() => break End::Signal(libc::SIGINT),
                _ = signals.terminate.recv() => break End::Signal(libc::SIGTERM),
                _ = signals.pause.recv() => self.toggle(session)?,
                () = sleep_until(deadline) => break End::Duration,
                () = exited.ended() => break End::Exited,
                result = session.process_events() => result?,
                _ = tick.tick() => {
                    session.check_main_thread();
                    let counters = session.counters()?;
                    if let Some(bytes) = session.look_for_growth(&counters) {
                        progress.clear();
                        self.say(&unseen(session.target().pid, bytes));
                    }
                    progress.show(&session.target().comm, session.elapsed(), session.stacks(), &counters);
                }
            }
        };
        // What was sent before the end.
        session.process_pending()?;
        session.close_books()?;
        progress.clear();
        Ok(end)
    }

    /// Takes the probes off, or sets them again.
    fn toggle(&self, session: &mut Session) -> Result<()> {
        let begun = Instant::now();
        let done = if session.is_paused() {
            session.resume()?;
            "resumed"
        } else {
            session.pause()?;
            "paused"
        };
        self.say(&format!("{done} in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3));
        Ok(())
    }

    fn write(&self, destination: Destination, format: Format, profile: &Profile) -> Result<()> {
        let name = destination.name();
        let replaced = destination.write(|out| output::write(profile, format, out))?;
        if !self.verbosity.quiet {
            let options =
                SummaryOptions { top: self.args.top, width: terminal::width(), color: terminal::colors() };
            eprint!("{}", summary(profile, &options));
        }
        let verb = if replaced { "replaced" } else { "wrote" };
        self.say(&format!("{verb} {name}"));
        Ok(())
    }

    /// Waits for the command and passes its exit status on.
    async fn pass_on(&self, mut launched: Launched, end: &End, signals: &mut Signals) -> Result<ExitCode> {
        if let End::Signal(signal) = end {
            // Ctrl-C on a terminal reaches the command, too; a signal to memtrace alone is passed on.
            launched.signal(*signal);
        }
        let mut waiting = tokio::task::spawn_blocking(move || launched.wait());
        tokio::select! {
            status = &mut waiting => {
                let status = status.context("cannot wait for the command")?.context("cannot wait for the command")?;
                Ok(ExitCode::from(shell_status(status)))
            }
            // Somebody has lost patience.
            signal = signals.next() => std::process::exit(128 + signal),
        }
    }

    fn say(&self, text: &str) {
        if !self.verbosity.quiet {
            eprintln!("memtrace: {}", printable(text));
        }
    }
}
