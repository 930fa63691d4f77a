//! A recording while it runs.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::{
    EventWriter, PythonMode, Recording, SessionError, engine::Engine, observed::Observed, pause::Pauses,
    silence::Silence,
};
use crate::{
    allocator::Selection,
    collect::{Announced, CapturedWalk, Event},
    kernel::{AttachMode, Counters, LoadError},
    readable::readable,
    target::{ExitWatch, Launched, Target, TargetError},
};

/// A process under observation. Dropping it takes all probes off.
pub struct Session {
    engine: Engine,
    process: Observed,
    events: AsyncFd<RingBuf<MapData>>,
    begun: (SystemTime, Instant),
    ended: Option<Duration>,
    events_out: Option<EventWriter>,
    captures_out: Option<mpsc::Sender<CapturedWalk>>,
    pauses: Pauses,
    silence: Silence,
    unknown_events: u64,
}

impl Session {
    /// Sets probes on a running process and opens the books.
    ///
    /// # Errors
    /// See [`SessionError`]. Nothing stays behind.
    pub fn attach(
        engine: Engine,
        target: Target,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        let pid = target.pid;
        if target.has_lost_main_thread() && engine.kernel.mode() != AttachMode::Perf {
            return Err(TargetError::MainThreadEnded(pid).into());
        }
        let mut session = Self::new(engine, target, None, python, selection)?;
        let (engine, process) = (&mut session.engine, &mut session.process);
        process.probe_new_code(engine).map_err(|error| process.explain(error))?;
        if let Some(missing) = process.discovery.missing().next() {
            let (library, function) = (missing.library.clone(), missing.symbol.clone());
            return Err(SessionError::NoSuchFunction { pid, library, function });
        }
        if !process.discovery.can_allocate() {
            return Err(process.no_allocator());
        }
        engine.kernel.watch(pid, false)?;
        session.open_books()?;
        Ok(session)
    }

    /// Lets a launched process execute its command, under observation from its first allocation.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn launch(
        mut engine: Engine,
        launched: Launched,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        engine.kernel.watch(launched.pid, true)?;
        let target = Target::open(launched.pid)?;
        let mut session = Self::new(engine, target, Some(launched), python, selection)?;
        session.open_books()?;
        if let Some(launched) = &mut session.process.launched {
            launched.release();
        }
        Ok(session)
    }

    fn new(
        mut engine: Engine,
        target: Target,
        launched: Option<Launched>,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        let pid = target.pid;
        let events =
            readable(engine.kernel.take_events()?).map_err(|error| SessionError::Watch(pid, error))?;
        Ok(Self {
            process: Observed::open(&engine, target, launched, python, selection)?,
            engine,
            events,
            begun: (SystemTime::now(), Instant::now()),
            ended: None,
            events_out: None,
            captures_out: None,
            pauses: Pauses::default(),
            silence: Silence::default(),
            unknown_events: 0,
        })
    }

    /// The process.
    pub fn target(&self) -> &Target {
        &self.process.target
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
        self.process.books_opened();
        self.begun = (SystemTime::now(), Instant::now());
        Ok(self.engine.kernel.open_books()?)
    }

    /// Takes all probes off until [`resume`](Self::resume): the process runs at full speed, unseen.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn pause(&mut self) -> Result<(), SessionError> {
        if !self.pauses.is_paused() {
            self.engine.kernel.close_books()?;
            self.pauses.begin();
            self.process.take_probes_off();
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
            self.process.set_probes_again(&mut self.engine)?;
            self.pauses.end();
            self.engine.kernel.open_books()?;
        }
        Ok(())
    }

    /// Whether the probes are off.
    pub fn is_paused(&self) -> bool {
        self.pauses.is_paused()
    }

    /// Waits until the kernel program has sent something, and takes it in.
    ///
    /// # Errors
    /// When the command that was to be launched could not be executed.
    pub async fn process_events(&mut self) -> Result<(), SessionError> {
        let batch = {
            let Ok(mut guard) = self.events.readable_mut().await else { return Ok(()) };
            let batch = take_events(guard.get_inner_mut());
            // With more to come, the descriptor stays ready, and the caller looks at all else first.
            if batch.len() < BATCH {
                guard.clear_ready();
            }
            batch
        };
        let more = batch.len() == BATCH;
        self.take_in(batch)?;
        if more {
            // Signals and timers are seen when the event loop gets to look.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn take_in(&mut self, batch: Vec<Option<Event>>) -> Result<(), SessionError> {
        // The process runs on, and may let go of Python code at any time; native code stays longer.
        for event in batch.iter().flatten() {
            if let Event::NewStack { tgid, python: Some(python), .. } = event
                && *tgid == self.process.target.pid
            {
                self.process.read_python(python);
            }
        }
        batch.into_iter().try_for_each(|event| self.handle(event))
    }

    fn handle(&mut self, event: Option<Event>) -> Result<(), SessionError> {
        match event {
            Some(Event::NewStack { tgid, stack_id, end, frames, python }) => {
                // The measurement of prices has left some of memtrace's own.
                if tgid == self.process.target.pid {
                    let announced = Announced { stack_id, end, frames: &frames, python: python.as_ref() };
                    self.process.add_stack(&mut self.engine, &announced);
                }
            }
            Some(Event::Block(change)) => {
                if let Some(out) = self.events_out.as_mut().filter(|_| change.pid == self.process.target.pid)
                {
                    out.write(&change);
                }
            }
            Some(Event::Captured(walk)) => {
                if let Some(out) = self.captures_out.as_ref().filter(|_| walk.tgid == self.process.target.pid)
                {
                    // An error means that nobody wants them any more.
                    let _ = out.send(walk);
                }
            }
            Some(Event::ImageChanged { change, time_ns, .. }) => {
                self.process.image_changed(&mut self.engine, change, time_ns, self.events_out.as_mut())?;
            }
            None => self.unknown_events += 1,
        }
        Ok(())
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

    /// Waits for the end of the process.
    pub fn exit_watch(&self) -> Arc<ExitWatch> {
        Arc::clone(&self.process.exit)
    }

    /// The process that memtrace has started, if it has.
    pub fn launched(&mut self) -> Option<&mut Launched> {
        self.process.launched.as_mut()
    }

    /// Looks whether the process's main thread has ended, and probes with it: to be called now and then.
    pub fn check_main_thread(&mut self) {
        if !self.is_paused() {
            self.process.check_main_thread(self.engine.kernel.mode());
        }
    }

    /// Looks whether the process grows while no probe is hit: to be called now and then. Returns, once, by how many
    /// bytes it has grown.
    pub fn look_for_growth(&mut self, counters: &Counters) -> Option<u64> {
        let elapsed = self.elapsed();
        self.silence.look(self.process.target.pid, elapsed, counters)
    }

    /// Whether an allocator was found: a launched command has none before its libraries are loaded.
    pub fn has_allocator(&self) -> bool {
        self.process.discovery.can_allocate()
    }

    /// How many probes are set.
    pub fn probes(&self) -> usize {
        self.process.probes.len()
    }

    /// How many distinct stacks were seen.
    pub fn stacks(&self) -> usize {
        self.process.stacks.len()
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
        self.check_main_thread();
        self.engine.kernel.close_books()?;
        if self.ended.is_none() {
            self.ended = Some(self.begun.1.elapsed());
            self.pauses.end();
        }
        self.process.books_closed(&mut self.engine)
    }

    /// Closes the books and takes all probes off. Returns what was recorded, and the launched process.
    ///
    /// # Errors
    /// When the kernel refuses a read, or nothing was recorded because the process has no known allocator.
    pub fn finish(mut self) -> Result<(Recording, Option<Launched>), SessionError> {
        self.close_books()?;
        // A `realloc` that was under way when the books were closed still takes its old block off at its
        // return, so the tables are read when no probe is left.
        std::mem::take(&mut self.process.probes).detach();
        self.drain(|event| !matches!(event, Some(Event::ImageChanged { .. })))?;
        let Self { engine: Engine { kernel, unwinder, .. }, mut process, .. } = self;
        let counters = kernel.counters()?;
        let pid = process.target.pid;
        // In the mode `perf` the kernel runs the programs for all processes that share the memory, such as a child
        // between vfork and exec.
        let of_target = |tgid| tgid == pid || tgid == 0;
        let mut totals = kernel.totals()?;
        totals.retain(|(_, totals)| of_target(totals.tgid));
        let mut live = kernel.live()?;
        live.retain(|(key, _)| of_target(key.tgid));
        if let Some(launched) = &mut process.launched {
            launched.executed()?;
        }
        if !process.discovery.can_allocate() && counters.allocation_calls() == 0 {
            return Err(process.no_allocator());
        }
        if process.discovery.misses_python() {
            tracing::warn!(
                "no PyObject_Malloc was found for --python-objects: the process is no CPython, or has not its symbols"
            );
        }
        for missing in process.discovery.missing() {
            tracing::warn!("no file {} with a function {} was loaded", missing.library, missing.symbol);
        }
        let calls = kernel.calls()?;
        let functions = process.traced.functions().iter().map(|function| {
            let calls = calls.get(usize::from(function.found.probe.function)).copied();
            (function.clone(), calls.unwrap_or_default())
        });
        let recording = Recording {
            functions: functions.collect(),
            time: self.begun.0,
            duration: self.ended.unwrap_or_default(),
            python_unsupported: process.python.unsupported(),
            target_cpu_time: process.cpu_time(),
            target: process.target,
            space: process.space,
            stacks: process.stacks,
            totals,
            live,
            in_flight: kernel.in_flight()?,
            calls_cut_off: kernel.calls_cut_off(),
            prices: kernel.prices(),
            pauses: self.pauses.sum(),
            last_pause_ns: self.pauses.last_end_ns(),
            counters,
            events: self.events_out,
            unknown_events: self.unknown_events,
            unresolved_changes: process.counts.unresolved_changes,
            late_errors: process.counts.late_errors,
            functions_left_out: process.counts.functions_left_out,
            unwind: unwinder.stats(),
            unwind_errors: process.counts.unwind_errors,
            main_thread_ended: process.counts.main_thread_ended,
            python_copies: process.discovery.python_copies,
            unseen_growth: self.silence.growth(),
        };
        recording.function_lines().iter().for_each(|line| tracing::info!("{line}"));
        Ok((recording, process.launched))
    }
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
