//! A recording while it runs.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use tokio::{io::unix::AsyncFd, sync::mpsc as async_mpsc};

use super::{
    EventWriter, Follow, PythonMode, Recording, SessionError, engine::Engine, observed::Observed,
    pause::Pauses, processes::Processes, recording::Process, silence::Silence,
};
use crate::{
    allocator::{self, Custom},
    collect::{Announced, CapturedWalk, Event, ImageChange},
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

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether Python functions are shown.
    pub python: PythonMode,
    /// Which new processes are recorded, too. The kernel program must have been loaded with
    /// [its newcomers](Follow::newcomers).
    pub follow: Follow,
    /// Which allocators are looked for.
    pub allocators: Arc<allocator::Files>,
}

/// What became of new processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Newcomers {
    /// They had ended before anything could be done.
    pub(super) missed: u64,
    /// They had ended before it could be seen whether they are meant.
    pub(super) unseen: u64,
    /// They were created by recorded ones, but are none of those that were meant.
    pub(super) unwanted: u64,
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
            let Custom { library, symbol: function, .. } = missing;
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

    /// Waits until the kernel program has sent something, or a process has ended, and takes it in.
    ///
    /// # Errors
    /// When the command that was to be launched could not be executed.
    pub async fn process_events(&mut self) -> Result<(), SessionError> {
        let batch = tokio::select! {
            biased;
            Some(pid) = self.ends.1.recv() => return self.process_ended(pid),
            guard = self.events.readable_mut() => {
                let Ok(mut guard) = guard else { return Ok(()) };
                let batch = take_events(guard.get_inner_mut());
                // With more to come, the descriptor stays ready, and the caller looks at all else first.
                if batch.len() < BATCH {
                    guard.clear_ready();
                }
                batch
            }
        };
        let more = batch.len() == BATCH;
        self.take_in(batch)?;
        if more {
            // Signals and timers are seen when the event loop gets to look.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether all processes have ended, and no others are waited for.
    pub fn is_over(&self) -> bool {
        self.processes.living().next().is_none() && !self.options.follow.waits()
    }

    /// Whether the process that was there first has ended while others go on.
    pub fn has_first_ended(&self) -> bool {
        !self.processes.living().any(|process| process.target.pid == self.first.pid)
    }

    fn process_ended(&mut self, pid: u32) -> Result<(), SessionError> {
        // What it has sent before, its children among that.
        self.process_pending()?;
        if self.processes.get_mut(pid).is_some_and(|process| process.has_ended()) {
            self.processes.end(&mut self.engine, pid)?;
        }
        Ok(())
    }

    fn take_in(&mut self, batch: Vec<Option<Event>>) -> Result<(), SessionError> {
        // The process runs on, and may let go of Python code at any time; native code stays longer.
        for event in batch.iter().flatten() {
            if let Event::NewStack { tgid, python: Some(python), .. } = event
                && let Some(process) = self.processes.get_mut(*tgid)
            {
                process.read_python(python);
            }
        }
        batch.into_iter().try_for_each(|event| self.handle(event))
    }

    fn handle(&mut self, event: Option<Event>) -> Result<(), SessionError> {
        match event {
            Some(Event::NewStack { tgid, stack_id, tid, end, frames, python }) => {
                // The measurement of prices has left some of memtrace's own.
                if let Some(process) = self.processes.get_mut(tgid) {
                    let announced =
                        Announced { stack_id, tid, end, frames: &frames, python: python.as_ref() };
                    process.add_stack(&mut self.engine, &announced);
                }
            }
            Some(Event::Block(change)) => {
                if let Some(out) = &mut self.events_out
                    && self.processes.get_mut(change.pid).is_some()
                {
                    out.write(&change);
                }
            }
            Some(Event::Captured(walk)) => {
                if let Some(out) = &self.captures_out
                    && self.processes.get_mut(walk.tgid).is_some()
                {
                    // An error means that nobody wants them any more.
                    let _ = out.send(walk);
                }
            }
            Some(Event::ImageChanged { tgid, change, time_ns }) => {
                let paused = self.pauses.is_paused();
                if change == ImageChange::Exec && self.is_another_program(tgid) {
                    self.leave(tgid, time_ns)?;
                } else if let Some(process) = self.processes.get_mut(tgid) {
                    let events_out = self.events_out.as_mut();
                    process.image_changed(&mut self.engine, change, time_ns, paused, events_out)?;
                }
            }
            Some(Event::Newcomer { tgid, parent, time_ns }) => self.newcomer(tgid, parent, time_ns)?,
            None => self.unknown_events += 1,
        }
        Ok(())
    }

    /// Whether a child that was recorded because it matched as its creator does, such as by the name that it has from it,
    /// has executed a program by which it does not match.
    fn is_another_program(&mut self, pid: u32) -> bool {
        let Follow::Matching(selection) = &self.options.follow else { return false };
        self.processes.get_mut(pid).is_some_and(|process| {
            process.is_child && !process.has_ended() && selection.matches(pid).is_none()
        })
    }

    /// Records a process no more, which has executed another program at `time_ns`.
    fn leave(&mut self, pid: u32, time_ns: u64) -> Result<(), SessionError> {
        self.engine.kernel.forget_live(pid, time_ns)?;
        if let Some(out) = &mut self.events_out {
            out.write_exec(pid, time_ns);
        }
        self.newcomers.unwanted += 1;
        Ok(self.processes.end(&mut self.engine, pid)?)
    }

    /// There is a new process, which is recorded if it is one that is meant. `time_ns` (nanoseconds of
    /// `CLOCK_MONOTONIC`) is when it began.
    fn newcomer(&mut self, pid: u32, parent: Option<u32>, time_ns: u64) -> Result<(), SessionError> {
        // An earlier process of the same number has ended.
        if self.processes.get_mut(pid).is_some_and(|process| process.has_ended()) {
            self.processes.end(&mut self.engine, pid)?;
            if parent.is_some() {
                self.engine.kernel.watch(pid, self.options.follow.watch(false))?;
            }
        }
        if self.processes.has_untaken(pid) {
            self.processes.take_books(&mut self.engine)?;
        }
        // The descendants of a launched command are stopped, as it is.
        let stops = parent.is_some() && !self.options.follow.waits() && self.is_launched();
        let labels = match &self.options.follow {
            Follow::Matching(selection) => selection.matches(pid).map(|selected| selected.labels),
            _ => Some(self.unselected.labels(pid)),
        };
        let Some(labels) = labels else {
            let has_ended =
                matches!(Target::open(pid), Err(TargetError::NotFound(_) | TargetError::Zombie(_)));
            self.newcomers.unseen += u64::from(has_ended);
            if parent.is_some() {
                self.newcomers.unwanted += u64::from(!has_ended);
                self.engine.kernel.unwatch(pid)?;
                self.engine.kernel.take_books(&BTreeSet::from([pid]))?;
            }
            return Ok(());
        };
        if self.processes.get_mut(pid).is_some() {
            return Ok(());
        }
        let opened = Target::open(pid)
            .map_err(SessionError::from)
            .and_then(|target| Observed::open(&self.engine, target, labels, &self.options));
        let mut process = match opened {
            Ok(process) if stops => process.stopping(),
            Ok(process) => process,
            Err(error) => {
                tracing::info!(pid, "a new process cannot be followed: {:#}", anyhow::Error::from(error));
                self.newcomers.missed += 1;
                self.engine.kernel.unwatch(pid)?;
                self.engine.kernel.take_books(&BTreeSet::from([pid]))?;
                if stops {
                    let_go(pid);
                }
                return Ok(());
            }
        };
        process.is_child = parent.is_some();
        self.engine.kernel.watch(pid, self.options.follow.watch(stops))?;
        process.begins(&mut self.engine, self.pauses.is_paused(), time_ns);
        self.add(process);
        Ok(())
    }

    /// Looks for processes that match and were not noticed.
    fn look_for_more(&mut self) {
        let Follow::Matching(selection) = &self.options.follow else { return };
        // Nothing matches any more: that is no error here.
        let Ok(found) = selection.processes() else { return };
        for selected in found.selected {
            if self.processes.get_mut(selected.pid).is_none() {
                let begun = Target::open(selected.pid)
                    .map_err(SessionError::from)
                    .and_then(|target| self.begin(target, selected.labels));
                if let Err(error) = begun {
                    tracing::info!("{:#}", anyhow::Error::from(error));
                    self.newcomers.missed += 1;
                }
            }
        }
    }

    fn is_launched(&self) -> bool {
        self.processes.all().any(|process| process.launched.is_some())
    }

    /// Takes in what the kernel program has sent so far, without waiting. The books are closed, or what is sent
    /// meanwhile is taken in, too, as far as the ring buffer is long.
    ///
    /// # Errors
    /// As [`process_events`](Self::process_events).
    pub fn process_pending(&mut self) -> Result<(), SessionError> {
        self.drain(|_| true)
    }

    /// Takes in those pending events that are `wanted`. At the most as many as the ring can hold, so that it comes
    /// to an end beside a process that sends more all the time.
    fn drain(&mut self, wanted: impl Fn(&Option<Event>) -> bool) -> Result<(), SessionError> {
        let most = self.engine.kernel.most_pending_events();
        let mut seen = 0;
        while seen < most {
            let batch = take_events(self.events.get_mut());
            if batch.is_empty() {
                break;
            }
            seen += batch.len();
            self.take_in(batch.into_iter().filter(&wanted).collect())?;
        }
        Ok(())
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

    /// A function that was asked for by name, and that no process has.
    fn missing_function(&self) -> Option<Custom> {
        let mut missing = self.processes.all().map(|process| process.discovery.missing().cloned());
        let mut everywhere: Vec<_> = missing.next()?.collect();
        for in_process in missing {
            let in_process: Vec<_> = in_process.collect();
            everywhere.retain(|function| in_process.contains(function));
        }
        everywhere.into_iter().next()
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

    /// Closes the books and takes all probes off. Returns what was recorded, and the launched process.
    ///
    /// # Errors
    /// When the kernel refuses a read, or nothing was recorded because no process has a known allocator.
    pub fn finish(mut self) -> Result<(Recording, Option<Launched>), SessionError> {
        self.close_books()?;
        // A `realloc` that was under way when the books were closed still takes its old block off at its
        // return, so the tables are read when no probe is left.
        for process in self.processes.living_mut() {
            process.take_probes_off(&self.engine);
        }
        self.engine.remover.finish();
        let stops = self.is_launched();
        let is_wanted = |event: &Option<Event>| match event {
            Some(Event::ImageChanged { tgid, .. } | Event::Newcomer { tgid, .. }) => {
                // It is stopped, and nobody looks at it any more.
                if stops {
                    let_go(*tgid);
                }
                false
            }
            _ => true,
        };
        self.drain(is_wanted)?;
        let counters = self.engine.kernel.counters()?;
        if let Some(launched) = self.launched() {
            launched.executed()?;
        }
        if !self.has_allocator()
            && counters.allocation_calls() == 0
            && let Some(process) = self.processes.all().find(|process| process.target.pid == self.first.pid)
        {
            return Err(process.no_allocator());
        }
        if let Some(missing) = self.missing_function() {
            tracing::warn!("no file {} with a function {} was loaded", missing.library, missing.symbol);
        }
        if self.processes.all().all(|process| process.discovery.misses_python()) {
            tracing::warn!(
                "no PyObject_Malloc was found for --python-objects: no process is a CPython with its symbols"
            );
        }
        let Engine { kernel, unwinder, traced, .. } = self.engine;
        let calls = kernel.calls()?;
        let functions = traced.functions().iter().map(|function| {
            let calls = calls.get(usize::from(function.found.probe.function)).copied();
            (function.clone(), calls.unwrap_or_default())
        });
        let mut books = kernel.books()?;
        let (mut all, without_samples) = self.processes.into_all();
        let launched = all.iter_mut().find_map(|process| process.launched.take());
        let processes = all.into_iter().map(|mut process| {
            let books = process.books.take().or_else(|| books.remove(&process.target.pid));
            Process::new(process, books.unwrap_or_default())
        });
        let recording = Recording {
            time: self.begun.0,
            duration: self.ended.unwrap_or_default(),
            processes: processes.collect(),
            without_samples,
            functions: functions.collect(),
            unseen_growth: self.silence.growth(),
            // In the mode `perf` the kernel runs the programs for all processes that share the memory, such as a
            // child between vfork and exec. What is left are these, and what has no stack of any process.
            without_stack: books.remove(&0).unwrap_or_default().totals,
            newcomers: self.newcomers,
            calls_cut_off: kernel.calls_cut_off(),
            prices: kernel.prices(),
            pauses: self.pauses.sum(),
            last_pause_ns: self.pauses.last_end_ns(),
            counters,
            events: self.events_out,
            unknown_events: self.unknown_events,
            unwind: unwinder.stats(),
        };
        recording.function_lines().iter().for_each(|line| tracing::info!("{line}"));
        Ok((recording, launched))
    }
}

/// Lets a process go on that was stopped for memtrace's sake, and could not be opened.
fn let_go(pid: u32) {
    // SAFETY: takes two numbers. Should the process have ended, and its number be another's by now, that one is told
    // to go on, which it does.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGCONT) };
}

/// How many events are taken in before the caller looks at all else: a few milliseconds of work.
const BATCH: usize = 4096;

/// Takes a batch out of the ring buffer; one that is not full has emptied it.
fn take_events(ring: &mut RingBuf<MapData>) -> Vec<Option<Event>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(record) = ring.next()
    {
        batch.push(Event::parse(&record));
    }
    batch
}

/// Now, as the kernel program tells the time (`bpf_ktime_get_ns`): nanoseconds of `CLOCK_MONOTONIC`.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
