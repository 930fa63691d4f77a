//! One process under observation.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use memtrace_common::Counter;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::{EventWriter, PythonMode, Recording, cost, python::Python};
use crate::{
    allocator::{Discovered, Discovery, Selection},
    attach::{self, AttachError, Plan, Probes},
    collect::{Announced, Event, ImageChange, Stacks},
    kernel::{AttachMode, Counters, Kernel, LoadError},
    readable::readable,
    symbolize::{self, AddressSpace, Modules},
    target::{ExitWatch, LaunchError, Launched, Target, TargetError},
    unwind::{self, Unwinder, cache::Cache},
};

/// A recording could not begin, or not go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its memory cannot be looked at.
    #[error(transparent)]
    AddressSpace(#[from] symbolize::Error),
    /// The command cannot be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A probe cannot be set.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel program is not as expected.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// There is no allocator that memtrace knows.
    #[error(
        "found no allocator in {comm} (process {pid}): none of its {modules} mapped files defines malloc or \
         another function that memtrace knows. It may be a static program without symbols, or use an \
         allocator of its own; `memtrace doctor -p {pid}` lists what was looked at"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// How many files were looked at.
        modules: usize,
    },
    /// A function that the user has named is not there.
    #[error(
        "found no function {function} in {library} of process {pid}: give the file as /proc/{pid}/maps has it, or the \
         last part of that, or `exe`, and the function as `nm` or `nm -D` shows it; the file must not be stripped of it"
    )]
    NoSuchFunction {
        /// The process.
        pid: u32,
        /// The file, as the user has named it.
        library: String,
        /// The function.
        function: String,
    },
    /// The kernel's descriptors cannot be waited for.
    #[error("cannot watch process {0}")]
    Watch(u32, #[source] io::Error),
}

/// A process under observation. Dropping it takes all probes off.
pub struct Session {
    /// The process.
    pub target: Target,
    kernel: Kernel,
    probes: Probes,
    discovery: Discovery,
    unwinder: Unwinder,
    modules: Arc<Modules>,
    space: AddressSpace,
    /// What earlier programs of the process had mapped is needed for their stacks.
    stacks: Stacks,
    python: Python,
    events: AsyncFd<RingBuf<MapData>>,
    exit: Arc<ExitWatch>,
    launched: Option<Launched>,
    begun: (SystemTime, Instant),
    ended: Option<Duration>,
    events_out: Option<EventWriter>,
    cpu_time: (Duration, Option<Duration>),
    pause: Pause,
    unknown_events: u64,
    unresolved_changes: u64,
    late_errors: u64,
    unwind_errors: u64,
    /// How often the mappings had been read when unwind tables were last loaded for them.
    mappings_read: u64,
    main_thread_ended: bool,
}

/// When the books were closed for a while.
#[derive(Default)]
struct Pause {
    /// When the present pause began.
    since: Option<Instant>,
    count: u64,
    total: Duration,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    last_end_ns: u64,
}

impl Session {
    /// Sets probes on a running process and opens the books.
    ///
    /// # Errors
    /// See [`SessionError`]. Nothing stays behind.
    pub fn attach(
        kernel: Kernel,
        target: Target,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        let pid = target.pid;
        if target.has_lost_main_thread() && kernel.mode() != AttachMode::Perf {
            return Err(TargetError::MainThreadEnded(pid).into());
        }
        let mut session = Self::new(kernel, target, None, python, selection)?;
        session.probe_new_code().map_err(|error| session.explain(error))?;
        if let Some(missing) = session.discovery.missing().next() {
            let (library, function) = (missing.library.clone(), missing.symbol.clone());
            return Err(SessionError::NoSuchFunction { pid, library, function });
        }
        if !session.discovery.can_allocate() {
            return Err(session.no_allocator());
        }
        session.kernel.watch(pid, false)?;
        session.open_books()?;
        Ok(session)
    }

    /// Lets a launched process execute its command, under observation from its first allocation.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn launch(
        mut kernel: Kernel,
        launched: Launched,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        kernel.watch(launched.pid, true)?;
        let target = Target::open(launched.pid)?;
        let mut session = Self::new(kernel, target, Some(launched), python, selection)?;
        session.open_books()?;
        if let Some(launched) = &mut session.launched {
            launched.release();
        }
        Ok(session)
    }

    fn new(
        mut kernel: Kernel,
        target: Target,
        launched: Option<Launched>,
        python: PythonMode,
        selection: Arc<Selection>,
    ) -> Result<Self, SessionError> {
        let pid = target.pid;
        let watch = |error| SessionError::Watch(pid, error);
        let exit = ExitWatch::new(pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => TargetError::Ended(pid).into(),
            _ => watch(error),
        })?;
        let modules = Modules::new();
        let space = AddressSpace::open(pid, &modules)?;
        let events = readable(kernel.take_events()?).map_err(watch)?;
        let unwinder = Unwinder::new(kernel.unwind_maps()?, unwind::DEFAULT_LIMIT, open_cache());
        Ok(Self {
            target,
            kernel,
            probes: Probes::default(),
            discovery: Discovery::new(selection),
            unwinder,
            modules,
            space,
            stacks: Stacks::default(),
            python: Python::new(python),
            events,
            exit: Arc::new(exit),
            launched,
            begun: (SystemTime::now(), Instant::now()),
            ended: None,
            events_out: None,
            cpu_time: (Duration::ZERO, None),
            pause: Pause::default(),
            unknown_events: 0,
            unresolved_changes: 0,
            late_errors: 0,
            unwind_errors: 0,
            mappings_read: 0,
            main_thread_ended: false,
        })
    }

    /// Has every recorded allocation and free written, too. The kernel program must have been loaded with
    /// events on.
    pub fn write_events(&mut self, out: EventWriter) {
        self.events_out = Some(out);
    }

    /// Takes all probes off until [`resume`](Self::resume): the process runs at full speed, unseen.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn pause(&mut self) -> Result<(), SessionError> {
        if self.pause.since.is_none() {
            self.kernel.close_books()?;
            self.pause.since = Some(Instant::now());
            self.pause.count += 1;
            self.take_probes_off();
        }
        Ok(())
    }

    /// Takes all probes off while the process goes on.
    fn take_probes_off(&mut self) {
        let probes = std::mem::take(&mut self.probes);
        // The kernel waits for a grace period, but the process does not.
        std::thread::spawn(move || probes.detach());
    }

    /// Sets the probes again. What was live before stays on the books, and the profile says that it may
    /// have been freed meanwhile.
    ///
    /// # Errors
    /// When a probe cannot be set.
    pub fn resume(&mut self) -> Result<(), SessionError> {
        if let Some(since) = self.pause.since.take() {
            self.space.refresh()?;
            self.probe_new_code()?;
            self.pause.total += since.elapsed();
            self.pause.last_end_ns = monotonic_ns();
            self.kernel.open_books()?;
        }
        Ok(())
    }

    /// Whether the probes are off.
    pub fn is_paused(&self) -> bool {
        self.pause.since.is_some()
    }

    fn open_books(&mut self) -> Result<(), SessionError> {
        self.cpu_time.0 = cost::cpu_time(self.target.pid).unwrap_or_default();
        self.begun = (SystemTime::now(), Instant::now());
        Ok(self.kernel.open_books()?)
    }

    fn no_allocator(&self) -> SessionError {
        let modules = self.space.regions().filter(|region| region.is_file()).count();
        SessionError::NoAllocator { pid: self.target.pid, comm: self.target.comm.clone(), modules }
    }

    /// An error while attaching has mostly one reason: the process has ended.
    fn explain(&self, error: SessionError) -> SessionError {
        if self.exit.has_ended() { TargetError::Ended(self.target.pid).into() } else { error }
    }

    /// Finds allocator functions in code that was not looked at before, and sets probes there.
    fn probe_new_code(&mut self) -> Result<(), SessionError> {
        self.discovery.update(&self.space);
        let pid = self.target.pid;
        let (callers, _) = Plan::internal_callers(&self.discovery.functions);
        self.kernel.set_internal_callers(pid, callers)?;
        let (wrappers, _) = self.discovery.wrappers();
        self.kernel.set_wrappers(pid, wrappers)?;
        self.load_unwind_tables();
        self.python.look(&mut self.kernel, &self.space)?;
        if let Some(hook) = &self.discovery.loader_hook {
            self.probes.attach_once(&mut self.kernel, "loader_changed", self.target.thread, hook)?;
        }
        let new = self.probes.attach(&mut self.kernel, self.target.thread, &self.discovery.functions)?;
        tracing::info!(pid, functions = new, probes = self.probes.len(), "probes set");
        Ok(())
    }

    /// Tells the kernel program how to walk stacks through what is mapped now. Without that a stack ends early,
    /// and says so; nothing else is lost.
    fn load_unwind_tables(&mut self) {
        if let Err(error) = self.unwinder.update(self.target.pid, &self.space) {
            self.unwind_errors += 1;
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        self.mappings_read = self.space.counts().reads;
        let stats = self.unwinder.stats();
        tracing::info!(
            tables = stats.tables,
            rows = stats.rows,
            bytes = stats.bytes,
            compiled = stats.compiled,
            from_cache = stats.cache_hits,
            time = ?stats.time,
            "unwind tables loaded"
        );
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
                && *tgid == self.target.pid
            {
                self.python.read_code(python);
            }
        }
        batch.into_iter().try_for_each(|event| self.handle(event))
    }

    fn handle(&mut self, event: Option<Event>) -> Result<(), SessionError> {
        match event {
            Some(Event::NewStack { tgid, stack_id, end, frames, python }) => {
                // The measurement of prices has left some of memtrace's own.
                if tgid == self.target.pid {
                    let announced = Announced { stack_id, end, frames: &frames, python: python.as_ref() };
                    self.stacks.add(&mut self.space, self.python.interpreter(), &announced);
                    // It led to code that was not there before.
                    if self.space.counts().reads != self.mappings_read {
                        self.load_unwind_tables();
                    }
                }
            }
            Some(Event::Block(change)) => {
                if let Some(out) = self.events_out.as_mut().filter(|_| change.pid == self.target.pid) {
                    out.write(&change);
                }
            }
            Some(Event::ImageChanged { change, time_ns, .. }) => self.image_changed(change, time_ns)?,
            None => self.unknown_events += 1,
        }
        Ok(())
    }

    fn image_changed(&mut self, change: ImageChange, time_ns: u64) -> Result<(), SessionError> {
        if let Some(launched) = &mut self.launched {
            if change == ImageChange::Exec {
                launched.executed()?;
            }
            // Whether or not it is stopped by now: it is let go on below.
            launched.wait_stopped();
        }
        if self.exit.has_ended() {
            // Nothing is left to be looked at. And it may not have been this process at all: its number
            // may have been given to another one.
            self.unresolved_changes += u64::from(change == ImageChange::Exec);
            return Ok(());
        }
        // The process may run on without probes on its new code, but it must run on.
        if let Err(error) = self.follow(change, time_ns)
            && !self.exit.has_ended()
        {
            self.late_errors += 1;
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        if let Some(launched) = &self.launched {
            launched.resume();
        }
        Ok(())
    }

    fn follow(&mut self, change: ImageChange, time_ns: u64) -> Result<(), SessionError> {
        match change {
            ImageChange::Exec => {
                self.kernel.forget_live(self.target.pid, time_ns)?;
                if let Some(out) = &mut self.events_out {
                    out.write_exec(self.target.pid, time_ns);
                }
                let thread = self.target.thread;
                self.target.refresh();
                if self.target.thread != thread {
                    // They have ended with the thread that they were set by.
                    self.take_probes_off();
                }
                self.space = AddressSpace::open(self.target.pid, &self.modules)?;
                self.discovery = self.discovery.anew();
                self.python.forget(&mut self.kernel, self.target.pid)?;
            }
            ImageChange::Loader => self.space.refresh()?,
        }
        self.probe_new_code()
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
        let most = self.kernel.most_pending_events();
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
        Arc::clone(&self.exit)
    }

    /// The process that memtrace has started, if it has.
    pub fn launched(&mut self) -> Option<&mut Launched> {
        self.launched.as_mut()
    }

    /// Looks whether the thread that probes were set by, which is the main thread if that lived then, has ended while
    /// others go on, and the probes are gone.
    ///
    /// Those that are perf events end with the thread: the kernel compares address spaces by way of it
    /// (kernel/trace/trace_uprobe.c, `__uprobe_perf_filter`). Those of the other modes stay, but when any other
    /// tracer takes its own off the same place, the kernel asks whose are left, by the same comparison, and takes
    /// ours off, too (kernel/trace/bpf_trace.c, `uprobe_multi_link_filter`).
    pub fn check_main_thread(&mut self) {
        if self.main_thread_ended || self.is_paused() {
            return;
        }
        let thread = match Target::open(self.target.pid) {
            Ok(now) if now.thread != self.target.thread => now.thread,
            _ => return,
        };
        let is_gone = |found: &Discovered| attach::is_set(found, thread).is_ok_and(|is_set| !is_set);
        if self.kernel.mode() == AttachMode::Perf || self.discovery.functions.iter().any(is_gone) {
            self.main_thread_ended = true;
            tracing::warn!("the process's main thread has ended, and with it probes");
        }
    }

    /// Whether an allocator was found: a launched command has none before its libraries are loaded.
    pub fn has_allocator(&self) -> bool {
        self.discovery.can_allocate()
    }

    /// How many probes are set.
    pub fn probes(&self) -> usize {
        self.probes.len()
    }

    /// How many distinct stacks were seen.
    pub fn stacks(&self) -> usize {
        self.stacks.len()
    }

    /// The kernel program's counters now.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        self.kernel.counters()
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
        self.kernel.close_books()?;
        if self.ended.is_none() {
            self.ended = Some(self.begun.1.elapsed());
            let now = cost::cpu_time(self.target.pid).ok();
            self.cpu_time.1 = now.map(|now| now.saturating_sub(self.cpu_time.0));
            if let Some(since) = self.pause.since.take() {
                self.pause.total += since.elapsed();
                self.pause.last_end_ns = monotonic_ns();
            }
        }
        // A process that is stopped for our sake, or will be, must go on.
        self.kernel.unwatch(self.target.pid)?;
        if let Some(launched) = &self.launched {
            launched.resume();
        }
        Ok(())
    }

    /// Closes the books and takes all probes off. Returns what was recorded, and the launched process.
    ///
    /// # Errors
    /// When the kernel refuses a read, or nothing was recorded because the process has no known allocator.
    pub fn finish(mut self) -> Result<(Recording, Option<Launched>), SessionError> {
        self.close_books()?;
        // A `realloc` that was under way when the books were closed still takes its old block off at its
        // return, so the tables are read when no probe is left.
        std::mem::take(&mut self.probes).detach();
        self.drain(|event| !matches!(event, Some(Event::ImageChanged { .. })))?;
        let counters = self.kernel.counters()?;
        let pid = self.target.pid;
        // In the mode `perf` the kernel runs the programs for all processes that share the memory, such as a child
        // between vfork and exec.
        let of_target = |tgid| tgid == pid || tgid == 0;
        let mut totals = self.kernel.totals()?;
        totals.retain(|(_, totals)| of_target(totals.tgid));
        let mut live = self.kernel.live()?;
        live.retain(|(key, _)| of_target(key.tgid));
        if let Some(launched) = &mut self.launched {
            launched.executed()?;
        }
        if !self.discovery.can_allocate() && counters.get(Counter::AllocationHits) == 0 {
            return Err(self.no_allocator());
        }
        for missing in self.discovery.missing() {
            tracing::warn!("no file {} with a function {} was loaded", missing.library, missing.symbol);
        }
        let recording = Recording {
            target: self.target,
            time: self.begun.0,
            duration: self.ended.unwrap_or_default(),
            space: self.space,
            stacks: self.stacks,
            python_unsupported: self.python.unsupported(),
            totals,
            live,
            in_flight: self.kernel.in_flight()?,
            calls_cut_off: self.kernel.calls_cut_off(),
            prices: self.kernel.prices(),
            target_cpu_time: self.cpu_time.1,
            pauses: (self.pause.count, self.pause.total),
            last_pause_ns: self.pause.last_end_ns,
            counters,
            events: self.events_out,
            unknown_events: self.unknown_events,
            unresolved_changes: self.unresolved_changes,
            late_errors: self.late_errors,
            unwind: self.unwinder.stats(),
            unwind_errors: self.unwind_errors,
            main_thread_ended: self.main_thread_ended,
        };
        Ok((recording, self.launched))
    }
}

/// The cache of unwind tables, if there can be one.
fn open_cache() -> Option<Cache> {
    Cache::open().inspect_err(|error| tracing::warn!("unwind tables are not kept on disk: {error}")).ok()
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
