//! A recording while it runs.

mod events;
mod finish;
mod newcomers;

use std::{
    sync::mpsc,
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use tokio::{io::unix::AsyncFd, sync::mpsc as async_mpsc};

use super::{
    EventWriter, Follow, Options, SessionError, engine::Engine, newcomers::Newcomers, observed::Observed,
    pause::Pauses, processes::Processes, silence::Silence,
};
use crate::{
    allocator,
    collect::CapturedWalk,
    kernel::{AttachMode, Counters, LoadError},
    readable::readable,
    target::{Labels, Launched, Selection, Target, TargetError},
};

/// Processes under observation. Dropping it takes all probes off.
pub struct Session {
    engine: Engine,
    processes: Processes,
    /// The process that was there first: the command that was launched.
    first: Target,
    options: Options,
    /// For the labels of processes that were not selected.
    unselected: Selection,
    newcomers: Newcomers,
    events: AsyncFd<RingBuf<MapData>>,
    /// The ids of processes that have ended, each once.
    ends: (async_mpsc::UnboundedSender<u32>, async_mpsc::UnboundedReceiver<u32>),
    begun: (SystemTime, Instant),
    ended: Option<Duration>,
    events_out: Option<EventWriter>,
    captures_out: Option<mpsc::Sender<CapturedWalk>>,
    pauses: Pauses,
    silence: Silence,
    unknown_events: u64,
}

impl Session {
    /// Sets probes on running processes and opens the books.
    ///
    /// Where there are several, it is enough that one of them can be recorded.
    ///
    /// # Errors
    /// See [`SessionError`]. Nothing stays behind.
    pub fn attach(
        engine: Engine,
        targets: Vec<(Target, Labels)>,
        options: Options,
    ) -> Result<Self, SessionError> {
        let Some((first, _)) = targets.first() else { return Err(SessionError::NoProcess) };
        let mut session = Self::new(engine, first.clone(), options)?;
        let only = targets.len() == 1;
        let mut failure = None;
        for (target, labels) in targets {
            let pid = target.pid;
            match session.begin(target, labels) {
                Ok(()) => {}
                Err(error) if only => return Err(error),
                Err(error) => {
                    tracing::warn!("process {pid} is not recorded: {:#}", anyhow::Error::from(error));
                    session.newcomers.missed += 1;
                    failure = Some(pid);
                }
            }
        }
        if let Some(missing) = session.missing_function() {
            let allocator::Custom { library, symbol: function, .. } = missing;
            return Err(SessionError::NoSuchFunction { pid: session.first.pid, library, function });
        }
        if !session.has_allocator() {
            return Err(match (session.processes.living().next(), failure) {
                (Some(process), _) => process.no_allocator(),
                (None, Some(pid)) => TargetError::Ended(pid).into(),
                (None, None) => SessionError::NoProcess,
            });
        }
        session.engine.kernel.tell_of_processes()?;
        session.open_books()?;
        session.look_for_more();
        Ok(session)
    }

    /// Sets the probes of a running process, while the books are closed.
    fn begin(&mut self, target: Target, labels: Labels) -> Result<(), SessionError> {
        if target.has_lost_main_thread() && self.engine.kernel.mode() != AttachMode::Perf {
            return Err(TargetError::MainThreadEnded(target.pid).into());
        }
        let pid = target.pid;
        let mut process = Observed::open(&self.engine, target, labels, &self.options)?;
        // So that no child of it is missed.
        self.engine.kernel.watch(pid, self.options.follow.watch(false))?;
        let probed = process.probe_new_code(&mut self.engine);
        if let Err(error) = probed {
            self.engine.kernel.unwatch(pid)?;
            return Err(process.explain(error));
        }
        self.add(process);
        Ok(())
    }

    /// Lets a launched process execute its command, under observation from its first allocation.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn launch(
        mut engine: Engine,
        mut launched: Launched,
        options: Options,
    ) -> Result<Self, SessionError> {
        engine.kernel.watch(launched.pid, options.follow.watch(true))?;
        let target = Target::open(launched.pid)?;
        let mut session = Self::new(engine, target.clone(), options)?;
        let labels = session.unselected.labels(target.pid);
        let process = Observed::open(&session.engine, target, labels, &session.options)?;
        session.open_books()?;
        launched.release();
        session.add(process.with_launched(launched));
        Ok(session)
    }

    fn new(mut engine: Engine, first: Target, options: Options) -> Result<Self, SessionError> {
        let events =
            readable(engine.kernel.take_events()?).map_err(|error| SessionError::Watch(first.pid, error))?;
        Ok(Self {
            engine,
            processes: Processes::default(),
            first,
            options,
            unselected: Selection::default(),
            newcomers: Newcomers::default(),
            events,
            ends: async_mpsc::unbounded_channel(),
            begun: (SystemTime::now(), Instant::now()),
            ended: None,
            events_out: None,
            captures_out: None,
            pauses: Pauses::default(),
            silence: Silence::default(),
            unknown_events: 0,
        })
    }

    /// Takes a process in, whose end is noticed from here on.
    fn add(&mut self, mut process: Observed) {
        let (ends, pid) = (self.ends.0.clone(), process.target.pid);
        if let Some(exit) = process.exit() {
            tokio::spawn(async move {
                exit.ended().await;
                // An error means that the recording is over.
                let _ = ends.send(pid);
            });
        }
        process.order = self.processes.count();
        self.processes.insert(process);
    }

    /// The process that was there first: the command that was launched.
    pub fn first(&self) -> &Target {
        let process = self.processes.all().find(|process| process.target.pid == self.first.pid);
        process.map_or(&self.first, |process| &process.target)
    }

    /// How many processes were recorded so far.
    pub fn processes(&self) -> u64 {
        self.processes.count()
    }

    /// Has every recorded allocation and free written, too. The kernel program must have been loaded with
    /// events on.
    pub fn write_events(&mut self, out: EventWriter) {
        self.events_out = Some(out);
    }

    /// Has every walk of a stack sent to `out`, as it arrives. The kernel program must have been loaded with
    /// captures on.
    pub fn send_captures(&mut self, out: mpsc::Sender<CapturedWalk>) {
        self.captures_out = Some(out);
    }

    fn open_books(&mut self) -> Result<(), SessionError> {
        self.processes.living_mut().for_each(Observed::books_opened);
        self.begun = (SystemTime::now(), Instant::now());
        Ok(self.engine.kernel.open_books()?)
    }

    /// Takes all probes off until [`resume`](Self::resume): the processes run at full speed, unseen.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn pause(&mut self) -> Result<(), SessionError> {
        if !self.pauses.is_paused() {
            self.engine.kernel.close_books()?;
            self.pauses.begin();
            let engine = &self.engine;
            self.processes.living_mut().for_each(|process| process.take_probes_off(engine));
        }
        Ok(())
    }

    /// Sets the probes again. What was live before stays on the books, and the profile says that it may
    /// have been freed meanwhile.
    ///
    /// # Errors
    /// When a probe cannot be set.
    pub fn resume(&mut self) -> Result<(), SessionError> {
        if self.pauses.is_paused() {
            for process in self.processes.living_mut() {
                match process.set_probes_again(&mut self.engine) {
                    Err(error) if !process.is_ending() => return Err(error),
                    _ => {}
                }
            }
            self.pauses.end();
            self.engine.kernel.open_books()?;
        }
        Ok(())
    }

    /// Whether the probes are off.
    pub fn is_paused(&self) -> bool {
        self.pauses.is_paused()
    }

    /// Whether all processes have ended, and no others are waited for.
    pub fn is_over(&self) -> bool {
        self.processes.living().next().is_none() && !self.options.follow.waits()
    }

    /// Whether the process that was there first has ended while others go on.
    pub fn has_first_ended(&self) -> bool {
        !self.processes.living().any(|process| process.target.pid == self.first.pid)
    }

    fn is_launched(&self) -> bool {
        self.processes.all().any(|process| process.launched.is_some())
    }

    /// The process that memtrace has started, if it has.
    pub fn launched(&mut self) -> Option<&mut Launched> {
        self.processes.all_mut().find_map(|process| process.launched.as_mut())
    }

    /// What is to be done now and then, about once a second: looks whether main threads have ended, and probes with
    /// them, and what can only be asked while processes live.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write.
    pub fn tick(&mut self) -> Result<(), SessionError> {
        self.check_main_threads();
        self.processes.living_mut().for_each(Observed::look_at_cpu_time);
        self.processes.take_books(&mut self.engine)?;
        if matches!(&self.options.follow, Follow::Matching(selection) if selection.matches_later()) {
            self.look_for_more();
        }
        Ok(())
    }

    fn check_main_threads(&mut self) {
        if !self.is_paused() {
            let mode = self.engine.kernel.mode();
            self.processes.living_mut().for_each(|process| process.check_main_thread(mode));
        }
    }

    /// Looks whether processes grow while no probe is hit: to be called now and then. Returns, once, by how many
    /// bytes they have grown.
    pub fn look_for_growth(&mut self, counters: &Counters) -> Option<u64> {
        let elapsed = self.elapsed();
        let pids = self.processes.living().map(|process| process.target.pid);
        self.silence.look(pids, elapsed, counters)
    }

    /// Whether an allocator was found: a launched command has none before its libraries are loaded.
    pub fn has_allocator(&self) -> bool {
        self.processes.all().any(|process| process.discovery.can_allocate())
    }

    /// How many probes are set.
    pub fn probes(&self) -> usize {
        self.processes.living().map(|process| process.probes.len()).sum()
    }

    /// How many distinct stacks were seen.
    pub fn stacks(&self) -> usize {
        self.processes.all().map(|process| process.stacks.len()).sum()
    }

    /// The kernel program's counters now.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        self.engine.kernel.counters()
    }

    /// How long the books have been open.
    pub fn elapsed(&self) -> Duration {
        self.ended.unwrap_or_else(|| self.begun.1.elapsed())
    }

    /// Closes the books: what happens from here on is not counted. Safe to repeat.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn close_books(&mut self) -> Result<(), LoadError> {
        self.check_main_threads();
        self.engine.kernel.close_books()?;
        if self.ended.is_none() {
            self.ended = Some(self.begun.1.elapsed());
            self.pauses.end();
        }
        for process in self.processes.living_mut() {
            process.books_closed(&mut self.engine)?;
        }
        Ok(())
    }
}
