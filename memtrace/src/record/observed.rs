//! One process under observation: its probes, its code, and the stacks that were seen in it.

use std::{sync::Arc, time::Duration};

use procfs::process::Process;

use super::{EventWriter, Options, SessionError, clock::monotonic_ns, cost, engine::Engine, python::Python};
use crate::{
    allocator::{Discovered, Discovery, Linkage},
    attach::{self, Plan, Probes},
    collect::{Announced, ImageChange, PythonStack, Stacks},
    kernel::{AttachMode, Books, Leg, LoadError},
    symbolize::AddressSpace,
    target::{self, ExitWatch, Labels, Launched, Target, TargetError},
};

/// A process under observation, or one that was. Dropping it takes its probes off.
pub(super) struct Observed {
    pub(super) target: Target,
    /// What it is called beside its name: the container and pod that it is in.
    pub(super) labels: Labels,
    /// Tells of its end, until it has ended.
    exit: Option<Arc<ExitWatch>>,
    /// It, if memtrace has started it.
    pub(super) launched: Option<Launched>,
    /// Whether it is stopped whenever its code changes, until it is let go on.
    stops: bool,
    /// How long it had run before its probes were set, as far as it was to be recorded from its start.
    pub(super) late: Duration,
    pub(super) probes: Probes,
    pub(super) discovery: Discovery,
    pub(super) space: AddressSpace,
    /// What earlier programs of the process had mapped is needed for their stacks.
    pub(super) stacks: Stacks,
    pub(super) python: Python,
    /// The CPU time that it had used when the books were opened, and what it has used from there until they
    /// were closed.
    cpu_time: CpuTime,
    /// How often the mappings had been read when unwind tables were last loaded for them.
    mappings_read: u64,
    pub(super) counts: Counts,
    /// What the books said of it, if it has ended and they were taken.
    pub(super) books: Option<Books>,
    /// Whether it is recorded because another recorded process has created it.
    pub(super) is_child: bool,
    /// Its place among the processes of the recording.
    pub(super) order: u64,
}

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
struct CpuTime {
    /// Before the books were opened for it.
    before: Duration,
    /// Until it was asked for the last time.
    latest: Option<Duration>,
    /// Whether that was when the books were closed.
    closed: bool,
}

/// What could not be done for a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Times at which its number executed a program, but it had ended when that was noticed.
    pub(super) unresolved_changes: u64,
    /// Times at which new code could not be probed.
    pub(super) late_errors: u64,
    /// Times at which its mappings could not be given to the kernel program.
    pub(super) unwind_errors: u64,
    /// Functions of which the kernel program could not be told where they stand, at the worst time.
    pub(super) functions_left_out: u64,
    /// Whether the thread that probes were set by has ended, and they with it.
    pub(super) main_thread_ended: bool,
}

impl Counts {
    fn is_any(&self) -> bool {
        let Self { unresolved_changes, late_errors, unwind_errors, functions_left_out, main_thread_ended } =
            *self;
        unresolved_changes + late_errors + unwind_errors + functions_left_out > 0 || main_thread_ended
    }
}

impl Observed {
    /// Opens a process for observation; no probe is set yet.
    pub(super) fn open(
        engine: &Engine,
        target: Target,
        labels: Labels,
        options: &Options,
    ) -> Result<Self, SessionError> {
        let pid = target.pid;
        let exit = ExitWatch::new(pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => TargetError::Ended(pid).into(),
            _ => SessionError::Watch(pid, error),
        })?;
        Ok(Self {
            space: AddressSpace::open(pid, &engine.modules)?,
            target,
            labels,
            exit: Some(Arc::new(exit)),
            launched: None,
            stops: false,
            late: Duration::ZERO,
            probes: Probes::default(),
            discovery: Discovery::new(&options.allocators),
            stacks: Stacks::default(),
            python: Python::new(options.python),
            cpu_time: CpuTime::default(),
            mappings_read: 0,
            counts: Counts::default(),
            books: None,
            is_child: false,
            order: 0,
        })
    }

    /// It is one that memtrace has started.
    pub(super) fn with_launched(mut self, launched: Launched) -> Self {
        self.launched = Some(launched);
        self.stopping()
    }

    /// It is stopped whenever its code changes.
    pub(super) fn stopping(mut self) -> Self {
        self.stops = true;
        self
    }

    /// That there is nothing to set a probe on.
    pub(super) fn no_allocator(&self) -> SessionError {
        let modules = self.space.regions().filter(|region| region.is_file()).count();
        let (pid, comm) = (self.target.pid, self.target.comm.clone());
        let main = self.space.main().map(|region| Linkage::read(region.module()));
        match main {
            Some(main) if main.is_stripped_static_program() && !main.is_go => {
                SessionError::StrippedStatic { pid, comm }
            }
            _ => SessionError::NoAllocator { pid, comm, modules },
        }
    }

    /// An error while attaching has mostly one reason: the process has ended.
    pub(super) fn explain(&self, error: SessionError) -> SessionError {
        if self.has_ended() { TargetError::Ended(self.target.pid).into() } else { error }
    }

    /// Finds allocator functions in code that was not looked at before, and sets probes there.
    pub(super) fn probe_new_code(&mut self, engine: &mut Engine) -> Result<(), SessionError> {
        self.discovery.update(&self.space);
        let pid = self.target.pid;
        engine.traced.number(&mut engine.kernel, &mut self.discovery.functions)?;
        if tracing::enabled!(tracing::Level::INFO) {
            let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
            engine.traced.bind(&self.space, process.as_ref());
        }
        let (callers, callers_left_out) = Plan::internal_callers(&self.discovery.functions);
        engine.kernel.set_internal_callers(pid, callers)?;
        let (wrappers, wrappers_left_out) = self.discovery.wrappers();
        engine.kernel.set_wrappers(pid, wrappers)?;
        let left_out = (callers_left_out + wrappers_left_out) as u64;
        self.counts.functions_left_out = self.counts.functions_left_out.max(left_out);
        self.load_unwind_tables(engine);
        self.python.look(&mut engine.kernel, &self.space)?;
        let thread = self.target.thread;
        if let Some(hook) = &self.discovery.loader_hook {
            self.probes.attach_once(&mut engine.kernel, Leg::Loader, thread, hook)?;
        }
        let new = self.probes.attach(&mut engine.kernel, thread, &self.discovery.functions)?;
        tracing::info!(pid, functions = new, probes = self.probes.len(), "probes set");
        Ok(())
    }

    /// Tells the kernel program how to walk stacks through what is mapped now. Without that a stack ends early,
    /// and says so; nothing else is lost.
    fn load_unwind_tables(&mut self, engine: &mut Engine) {
        if let Err(error) = engine.unwinder.update(self.target.pid, &self.space) {
            self.counts.unwind_errors += 1;
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        self.mappings_read = self.space.counts().reads;
        let stats = engine.unwinder.stats();
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

    /// Reads the Python code of a stack that is about to be [added](Self::add_stack).
    pub(super) fn read_python(&mut self, python: &PythonStack) {
        self.python.read_code(python);
    }

    /// Takes in a stack that was seen for the first time.
    pub(super) fn add_stack(&mut self, engine: &mut Engine, announced: &Announced<'_>) {
        self.stacks.add(&mut self.space, self.python.interpreter(), announced);
        // It led to code that was not there before.
        if self.space.counts().reads != self.mappings_read {
            self.load_unwind_tables(engine);
        }
    }

    /// A new process begins, at `time_ns` (nanoseconds of `CLOCK_MONOTONIC`), and is let go on if it is stopped.
    pub(super) fn begins(&mut self, engine: &mut Engine, paused: bool, time_ns: u64) {
        if self.stops && !paused {
            target::wait_stopped(self.target.pid);
        }
        // The process may run on without probes, but it must run on.
        if !paused
            && let Err(error) = self.probe_new_code(engine)
            && !self.is_ending()
        {
            self.counts.late_errors += 1;
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        if !self.stops {
            self.late = Duration::from_nanos(monotonic_ns().saturating_sub(time_ns));
        }
        self.let_go();
    }

    /// The process may have other code from here on, and is stopped if memtrace has started it.
    pub(super) fn image_changed(
        &mut self,
        engine: &mut Engine,
        change: ImageChange,
        time_ns: u64,
        paused: bool,
        events_out: Option<&mut EventWriter>,
    ) -> Result<(), SessionError> {
        if change == ImageChange::Exec
            && let Some(launched) = &mut self.launched
        {
            launched.executed()?;
        }
        if self.stops && !paused {
            // Whether or not it is stopped by now: it is let go on below.
            target::wait_stopped(self.target.pid);
        }
        if self.has_ended() {
            // Nothing is left to be looked at. And it may not have been this process at all: its number
            // may have been given to another one.
            self.counts.unresolved_changes += u64::from(change == ImageChange::Exec);
            return Ok(());
        }
        // The process may run on without probes on its new code, but it must run on.
        if let Err(error) = self.follow(engine, change, time_ns, events_out)
            && !self.is_ending()
        {
            self.counts.late_errors += 1;
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        self.let_go();
        Ok(())
    }

    fn follow(
        &mut self,
        engine: &mut Engine,
        change: ImageChange,
        time_ns: u64,
        events_out: Option<&mut EventWriter>,
    ) -> Result<(), SessionError> {
        let pid = self.target.pid;
        match change {
            ImageChange::Exec => {
                engine.kernel.forget_live(pid, time_ns)?;
                if let Some(out) = events_out {
                    out.write_exec(pid, time_ns);
                }
                let thread = self.target.thread;
                self.target.refresh();
                if self.target.thread != thread {
                    // They have ended with the thread that they were set by.
                    self.take_probes_off(engine);
                }
                self.space = AddressSpace::open(pid, &engine.modules)?;
                self.discovery = self.discovery.anew();
                self.python.forget(&mut engine.kernel, pid)?;
            }
            ImageChange::Loader => self.space.refresh()?,
        }
        self.probe_new_code(engine)
    }

    /// Takes all probes off while the process goes on.
    pub(super) fn take_probes_off(&mut self, engine: &Engine) {
        engine.remover.remove(std::mem::take(&mut self.probes));
    }

    /// Sets the probes again that were taken off.
    pub(super) fn set_probes_again(&mut self, engine: &mut Engine) -> Result<(), SessionError> {
        self.space.refresh()?;
        self.probe_new_code(engine)
    }

    /// Lets the process go on, if it is stopped for memtrace's sake. The kernel program sends its `SIGSTOP` before it
    /// tells of it, so this takes back one, too, that has not stopped the process yet.
    pub(super) fn let_go(&self) {
        if let (true, Some(exit)) = (self.stops, &self.exit) {
            exit.signal(libc::SIGCONT);
        }
    }

    /// Whether there is anything to be said of the process, which has ended and whose books were taken.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let has_samples =
            self.books.as_ref().is_none_or(|books| !books.totals.is_empty() || !books.in_flight.is_empty());
        has_samples || self.launched.is_some() || self.counts.is_any()
    }

    /// What tells of its end; none if it has ended.
    pub(super) fn exit(&self) -> Option<Arc<ExitWatch>> {
        self.exit.clone()
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.exit.as_ref().is_none_or(|exit| exit.has_ended())
    }

    /// Whether it has ended, or is about to: then nothing is wrong where its code cannot be looked at.
    pub(super) fn is_ending(&mut self) -> bool {
        self.has_ended() || !self.space.has_memory()
    }

    /// The process has ended. Its code and stacks are kept for their names, but no descriptor is.
    pub(super) fn ended(&mut self, engine: &mut Engine) -> Result<(), LoadError> {
        let pid = self.target.pid;
        self.look_at_cpu_time();
        self.exit = None;
        self.space.close();
        engine.kernel.unwatch(pid)?;
        self.python.forget(&mut engine.kernel, pid)?;
        engine.kernel.forget_process(pid)?;
        engine.unwinder.forget(pid);
        engine.remover.remove(std::mem::take(&mut self.probes));
        Ok(())
    }

    /// Looks whether the thread that probes were set by, which is the main thread if that lived then, has ended while
    /// others go on, and the probes are gone.
    ///
    /// Those that are perf events end with the thread: the kernel compares address spaces by way of it
    /// (kernel/trace/trace_uprobe.c, `__uprobe_perf_filter`). Those of the other modes stay, but when any other
    /// tracer takes its own off the same place, the kernel asks whose are left, by the same comparison, and takes
    /// ours off, too (kernel/trace/bpf_trace.c, `uprobe_multi_link_filter`).
    pub(super) fn check_main_thread(&mut self, mode: AttachMode) {
        if self.counts.main_thread_ended {
            return;
        }
        let thread = match Target::open(self.target.pid) {
            Ok(now) if now.thread != self.target.thread => now.thread,
            _ => return,
        };
        let is_gone = |found: &Discovered| attach::is_set(found, thread).is_ok_and(|is_set| !is_set);
        if mode == AttachMode::Perf || self.discovery.functions.iter().any(is_gone) {
            self.counts.main_thread_ended = true;
            tracing::warn!("the process's main thread has ended, and with it probes");
        }
    }

    /// The books are opened.
    pub(super) fn books_opened(&mut self) {
        self.cpu_time.before = cost::cpu_time(self.target.pid).unwrap_or_default();
    }

    /// Asks how much CPU time the process has used, as long as it can be asked.
    pub(super) fn look_at_cpu_time(&mut self) {
        if !self.cpu_time.closed
            && let Ok(now) = cost::cpu_time(self.target.pid)
        {
            self.cpu_time.latest = Some(now.saturating_sub(self.cpu_time.before));
        }
    }

    /// The books are closed, for the first time or again.
    pub(super) fn books_closed(&mut self, engine: &mut Engine) -> Result<(), LoadError> {
        self.look_at_cpu_time();
        self.cpu_time.closed = true;
        // A process that is stopped for our sake, or will be, must go on.
        engine.kernel.unwatch(self.target.pid)?;
        self.let_go();
        Ok(())
    }

    /// The CPU time that the process has used while the books were open, where it could be asked.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        self.cpu_time.latest
    }
}
