//! Doing a recording: from what was asked for to the files.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use memtrace::{
    descriptors,
    kernel::{AttachMode, Kernel, KernelLog, Limits, Settings},
    output::{self, Format},
    profile::{Profile, printable},
    record::{self, Engine, EventWriter, Options, Recording, Scope, Session},
    report::{SummaryOptions, summary, units},
    symbolize::{Names, Symbolizer},
    target::{Labels, Launched, Selected, Target, launch, shell_status},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    super::{
        Verbosity, allocators,
        destination::{self, Destination},
        events,
        guard::{Guard, Line},
        progress::Progress,
        symbols, terminal,
    },
    Args,
};

/// Does a recording.
pub(super) struct Recorder<'a> {
    pub(super) args: &'a Args,
    pub(super) verbosity: Verbosity,
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
    /// From what was asked for to the files.
    pub(super) async fn run(&self) -> Result<ExitCode> {
        let args = self.args;
        descriptors::raise_limit();
        // Everything that can be wrong with the output is found before anything is traced.
        let format = args
            .format
            .or_else(|| args.output.as_deref().and_then(Format::for_path))
            .unwrap_or(Format::Pprof);
        let symbols = args.symbols.options()?;
        let named = args.output.as_deref().map(Destination::named).transpose()?;
        let found = args.selection.find(|text| self.say(text))?;
        let (selection, selected) = match found {
            Some((selection, selected)) => (Some(selection), Some(selected)),
            None => (None, None),
        };
        let follow = args.follow(selection)?;
        let targets = selected.map(|selected| self.open(selected)).transpose()?;
        let mut signals = Signals::new().context("cannot listen for signals")?;

        let settings = Settings {
            limits: self.limits(),
            mode: args.attach_mode.unwrap_or_else(|| match targets.as_deref() {
                Some([(target, _)]) if target.has_lost_main_thread() => AttachMode::Perf,
                _ => AttachMode::best(),
            }),
            max_frames: args.max_frames,
            events: args.events.is_some(),
            log: self.verbosity.verbose >= 2,
            newcomers: follow.newcomers(),
            threads: args.threads,
            ..Settings::new(args.sample_interval)
        };
        let line = targets.is_none().then(Line::new).transpose()?;
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
        let guard = line.and_then(|line| {
            // Without one, the worst is that a process has to be told to go on by hand.
            Guard::start(line, engine.kernel())
                .inspect_err(|error| {
                    tracing::warn!("{error:#}; if memtrace is killed, SIGCONT lets processes go on");
                })
                .ok()
        });
        let allocators =
            allocators::selection(args.allocator.as_deref(), &args.alloc, &args.free, args.python_objects);
        let options = Options { python: args.python, follow, allocators };
        let mut session = match targets {
            Some(targets) => Session::attach(engine, targets, options)?,
            None => Session::launch(engine, launch(&args.command[0], &args.command[1..])?, options)?,
        };
        if let Some(file) = events {
            let events = EventWriter::start(file, args.sample_interval);
            session.write_events(events.context("cannot start the thread that writes events")?);
        }
        let destination = match named {
            Some(destination) => destination,
            None if session.launched().is_none() => self.unnamed(session.first(), format)?,
            // The command's name is known when it has been executed, so the file is opened later; that
            // the directory can be written to is checked now.
            None => {
                self.unnamed(session.first(), format)?;
                Destination::Stdout
            }
        };
        let named_later = args.output.is_none() && session.launched().is_some();
        self.say(&match session.probes() {
            // A launched command gets its probes when it has executed.
            0 => format!("tracing pid {} from its start", session.first().pid),
            probes => {
                let Target { pid, comm, .. } = session.first();
                match session.processes() {
                    1 => format!("tracing pid {pid} ({comm}, {probes} probes)"),
                    more => format!(
                        "tracing {more} processes ({probes} probes), the first of them pid {pid} ({comm})"
                    ),
                }
            }
        });

        let end = self.watch(&mut session, &mut signals).await?;
        let ended_ns = record::monotonic_ns();
        let (mut recording, launched) = session.finish()?;
        drop(guard);
        if let Some(log) = log {
            log.finish().await;
        }
        let destination =
            if named_later { self.unnamed(&recording.processes[0].target, format)? } else { destination };

        let servers = symbols.debuginfod.clone();
        let mut names = if args.no_symbolize {
            Names::off()
        } else {
            Names::new(Symbolizer::start(symbols).context("cannot start the symbolizer")?)
        };
        let profile = record::profile(&recording, Scope::All, args.sample_interval, &mut names);
        let profile = match &servers {
            Some(servers) => {
                self.say("looking for debug information, also on debuginfod servers; Ctrl-C ends that");
                symbols::interruptible(profile, servers, async || signals.next().await).await
            }
            None => profile.await,
        };
        // Neither's failure keeps the other from being written.
        let directory = destination.directory_beside(format.ending());
        let written = match self.write(destination, format, &profile) {
            Ok(()) => self.write_each(directory, format, &recording, &mut names).await,
            failed => failed,
        };
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
        let stem = format!("memtrace.{}.{}", file_name(&target.comm), target.pid);
        Destination::unused(Path::new(&stem), format.ending())
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
        let mut said = false;
        let mut progress = Progress::new(terminal::is_terminal() && !self.verbosity.quiet);
        let end = loop {
            if !loaded && session.has_allocator() {
                (loaded, deadline) = (true, Instant::now() + duration);
            }
            if session.is_over() {
                break End::Exited;
            }
            if !said && session.has_first_ended() && session.launched().is_some() {
                said = true;
                progress.clear();
                self.say(
                    "the command has ended, but others that it has started go on: Ctrl-C ends the recording",
                );
            }
            tokio::select! {
                biased;
                _ = signals.interrupt.recv() => break End::Signal(libc::SIGINT),
                _ = signals.terminate.recv() => break End::Signal(libc::SIGTERM),
                _ = signals.pause.recv() => self.toggle(session)?,
                () = sleep_until(deadline) => break End::Duration,
                result = session.process_events() => result?,
                _ = tick.tick() => {
                    session.tick()?;
                    let counters = session.counters()?;
                    if let Some(bytes) = session.look_for_growth(&counters) {
                        progress.clear();
                        self.say(&unseen(session.first().pid, bytes));
                    }
                    let others = session.processes() - 1;
                    let name = match others {
                        0 => session.first().comm.clone(),
                        others => format!("{} and {others} more", session.first().comm),
                    };
                    progress.show(&name, session.elapsed(), session.stacks(), &counters);
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

    /// Writes a profile of each process, if there are several.
    async fn write_each(
        &self,
        directory: Option<PathBuf>,
        format: Format,
        recording: &Recording,
        names: &mut Names,
    ) -> Result<()> {
        let with_samples: Vec<_> = (0..recording.processes.len())
            .filter(|&index| recording.processes[index].has_samples())
            .collect();
        let Some(directory) = directory.filter(|_| with_samples.len() > 1) else { return Ok(()) };
        let directory = destination::create_unused(&directory)?;
        for &index in &with_samples {
            let target = &recording.processes[index].target;
            let stem = directory.join(format!("{}.{}", file_name(&target.comm), target.pid));
            let profile =
                record::profile(recording, Scope::One(index), self.args.sample_interval, names).await;
            let destination = Destination::unused(&stem, format.ending())?;
            destination.write(|out| output::write(&profile, format, out))?;
        }
        let count = with_samples.len();
        self.say(&format!("wrote {count} more, one of each process, to {}", directory.display()));
        Ok(())
    }

    /// The processes that were selected. With several, those that have ended meanwhile are left out.
    fn open(&self, selected: Vec<Selected>) -> Result<Vec<(Target, Labels)>> {
        let mut targets = Vec::new();
        let mut failure = None;
        for process in selected {
            match Target::open(process.pid) {
                Ok(target) => targets.push((target, process.labels)),
                Err(error) => {
                    if let Some(earlier) = failure.replace(error) {
                        self.say(&format!("not recorded: {earlier}"));
                    }
                }
            }
        }
        match failure {
            Some(error) if targets.is_empty() => Err(error.into()),
            Some(error) => {
                self.say(&format!("not recorded: {error}"));
                Ok(targets)
            }
            None => Ok(targets),
        }
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

/// A process's name as part of a file's: it chooses its name, but must not choose a directory with it.
fn file_name(comm: &str) -> String {
    comm.chars().map(|c| if c.is_alphanumeric() || "-_+.".contains(c) { c } else { '_' }).collect()
}
