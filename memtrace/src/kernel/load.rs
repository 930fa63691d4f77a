//! Loading the kernel program.

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError, UProbe},
    util::nr_cpus,
};
use memtrace_common::{
    Block, Config, InFlight, InFlightKey, InternalCallers, LiveKey, STACK_NOT_RECORDED, StackTotals, WATCH,
    WATCH_AND_STOP, Wrappers, python::PythonRuntime, sampling,
};
use thiserror::Error;

use super::{AttachMode, Counters, MultiPrograms, Prices, namespace, object, price};

/// See the map `SCRATCH` in the kernel program.
const SCRATCH_PER_CPU: u32 = 8;

/// How large the kernel program's tables may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live samples. At an interval of 512 KiB, 100 GiB of live heap are about 205,000.
    pub live: u32,
    /// Distinct stacks.
    pub stacks: u32,
    /// Bytes of the ring buffer; a power of two.
    pub ring: u32,
}

impl Limits {
    /// Limits that hold 100 GiB of live heap at the usual intervals. The live table takes memory only as it
    /// fills (about 130 bytes for each sample), so it is larger where a small interval makes many samples.
    pub fn for_interval(interval: u64) -> Self {
        let live = if interval < 64 << 10 { 1 << 20 } else { 1 << 18 };
        Self { live, stacks: 1 << 16, ring: 1 << 22 }
    }
}

/// What the kernel program is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Mean number of bytes between two samples; 1 records every allocation.
    pub interval: u64,
    /// Table sizes.
    pub limits: Limits,
    /// How probes are to be set.
    pub mode: AttachMode,
    /// Whether every recorded allocation and free is to be sent as an [event](Kernel::take_events).
    pub events: bool,
    /// Whether the kernel program logs what it does (aya-log); it costs time on every sample.
    pub log: bool,
}

/// The kernel program could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel refused for lack of privileges.
    #[error(
        "not permitted to load BPF programs: run memtrace as root, or give it CAP_BPF and CAP_PERFMON \
         (`memtrace doctor` says what is missing)"
    )]
    NotPermitted,
    /// This kernel has no BTF, or no readable one.
    #[error(
        "this kernel offers no BTF at /sys/kernel/btf/vmlinux: memtrace needs Linux 5.15 or newer, built \
         with CONFIG_DEBUG_INFO_BTF, and /sys mounted"
    )]
    NoBtf(#[source] aya::BtfError),
    /// `/proc` is not usable.
    #[error("cannot tell memtrace's own PID namespace from /proc/self/ns/pid: is /proc mounted?")]
    Namespace(#[source] std::io::Error),
    /// The object does not hold what this binary expects: a bug.
    #[error("the embedded kernel program has no {0}; this is a bug in memtrace")]
    Missing(&'static str),
    /// Parsing, relocation or map creation failed.
    #[error("cannot load the kernel program")]
    Object(#[source] EbpfError),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused the program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The kernel refused a program for links that carry many probes.
    #[error("the kernel refused the program {name}; --attach-mode perf may be possible")]
    MultiProgram {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Relocation failed: a bug.
    #[error("cannot prepare the embedded kernel program; this is a bug in memtrace")]
    Relocation(#[source] anyhow::Error),
    /// A map could not be used.
    #[error("cannot set up the kernel program's tables")]
    Map(#[from] MapError),
}

fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        next = error.source();
    }
    false
}

/// Whether there simply was no such key.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The loaded kernel program.
pub struct Kernel {
    ebpf: Ebpf,
    multi: Option<MultiPrograms>,
    mode: AttachMode,
    prices: Prices,
    /// What was counted before the recording began.
    baseline: Counters,
    watches_exec: bool,
}

impl Kernel {
    /// Loads all programs and sets all tables up. No probe is set yet and the books are closed.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(settings: &Settings) -> Result<Self, LoadError> {
        let btf = Btf::from_sys_fs().map_err(LoadError::NoBtf)?;
        let (pid_namespace_dev, pid_namespace_ino) = namespace::own().map_err(LoadError::Namespace)?;
        let config = Config {
            pid_namespace_dev,
            pid_namespace_ino,
            return_always_fires: (settings.mode != AttachMode::Session).into(),
            events: settings.events.into(),
        };
        let log_level: u8 = if settings.log { u8::MAX } else { 0 };
        // Where the number of CPUs cannot be told, more places than any machine has CPUs do no harm.
        let cpus = nr_cpus().unwrap_or(512) as u32;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("CONFIG", &config, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("LIVE", settings.limits.live)
            .map_max_entries("STACKS", settings.limits.stacks)
            .map_max_entries("EVENTS", settings.limits.ring)
            .map_max_entries("SCRATCH", cpus * SCRATCH_PER_CPU)
            .load(object::bytes())
            .map_err(
                |error| if denied(&error) { LoadError::NotPermitted } else { LoadError::Object(error) },
            )?;

        for name in uprobes(settings.mode) {
            let program = uprobe(&mut ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source })?;
        }
        let multi = match settings.mode {
            AttachMode::Perf => None,
            mode => Some(MultiPrograms::load(&ebpf, mode)?),
        };
        let name = "process_exec";
        exec_tracepoint(&mut ebpf)?
            .load("sched_process_exec", &btf)
            .map_err(|source| LoadError::Program { name, source })?;

        let mut kernel = Self {
            ebpf,
            multi,
            mode: settings.mode,
            prices: Prices::default(),
            baseline: Counters::default(),
            watches_exec: false,
        };
        kernel.prices = price::measure(&mut kernel)?;
        kernel.reset(settings.interval)?;
        let mut stacks: HashMap<&mut MapData, u64, StackTotals> = kernel.map_mut("STACKS")?;
        stacks.insert(STACK_NOT_RECORDED, StackTotals { announced: 1, ..StackTotals::default() }, 0)?;
        Ok(kernel)
    }

    /// Fills the sampling table.
    pub(super) fn set_interval(&mut self, interval: u64) -> Result<(), LoadError> {
        let mut segments: Array<&mut MapData, sampling::Segment> = self.map_mut("SEGMENTS_OF_SIZE")?;
        for (index, segment) in sampling::table(interval).into_iter().enumerate() {
            segments.set(index as u32, segment, 0)?;
        }
        Ok(())
    }

    /// Removes all traces of the measurement of prices from the tables.
    fn reset(&mut self, interval: u64) -> Result<(), LoadError> {
        self.set_interval(interval)?;
        self.forget_live(std::process::id(), u64::MAX)?;
        let mut stacks: HashMap<&mut MapData, u64, StackTotals> = self.map_mut("STACKS")?;
        for stack_id in stacks.keys().collect::<Result<Vec<_>, _>>()? {
            stacks.remove(&stack_id)?;
        }
        self.baseline = self.counters()?;
        Ok(())
    }

    /// What probes cost on this machine.
    pub fn prices(&self) -> Prices {
        self.prices
    }

    /// For aya-log, which wants the whole object.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn map<'a, M>(&'a self, name: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<&'a Map, Error = MapError>,
    {
        Ok(self.ebpf.map(name).ok_or(LoadError::Missing(name))?.try_into()?)
    }

    fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<&'a mut Map, Error = MapError>,
    {
        Ok(self.ebpf.map_mut(name).ok_or(LoadError::Missing(name))?.try_into()?)
    }

    /// The uprobe program `name`.
    ///
    /// # Errors
    /// When the object has none of that name.
    pub fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, LoadError> {
        uprobe(&mut self.ebpf, name)
    }

    /// How probes are set.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// The programs for links that carry many probes, in the modes that have such.
    pub fn multi(&self) -> Option<&MultiPrograms> {
        self.multi.as_ref()
    }

    /// Opens the books: from here on allocations and frees are counted.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn open_books(&mut self) -> Result<(), LoadError> {
        self.set_running(1)
    }

    /// Closes the books: nothing that happens from here on is counted. Safe to repeat.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn close_books(&mut self) -> Result<(), LoadError> {
        self.set_running(0)
    }

    fn set_running(&mut self, value: u64) -> Result<(), LoadError> {
        let mut running: Array<&mut MapData, u64> = self.map_mut("RUNNING")?;
        Ok(running.set(0, value, 0)?)
    }

    /// Says which wrappers process `pid` has.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_wrappers(&mut self, pid: u32, wrappers: Wrappers) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, Wrappers> = self.map_mut("WRAPPERS")?;
        Ok(map.insert(pid, wrappers, 0)?)
    }

    /// Says where the Python interpreter of process `pid` keeps its frames, or that it has none.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_python(&mut self, pid: u32, runtime: Option<PythonRuntime>) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, PythonRuntime> = self.map_mut("PYTHON")?;
        match runtime {
            Some(runtime) => map.insert(pid, runtime, 0)?,
            None => match map.remove(&pid) {
                Err(error) if !is_missing(&error) => return Err(error.into()),
                _ => {}
            },
        }
        Ok(())
    }

    /// Says where the allocation functions of process `pid` stand.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_internal_callers(&mut self, pid: u32, callers: InternalCallers) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, InternalCallers> = self.map_mut("INTERNAL_CALLERS")?;
        Ok(map.insert(pid, callers, 0)?)
    }

    /// Sends [events](Self::take_events) whenever process `pid` executes a program or its dynamic loader is
    /// at work. With `stop`, the process is stopped (`SIGSTOP`) each time: only for one that memtrace has
    /// started itself.
    ///
    /// # Errors
    /// When the kernel refuses the tracepoint or the write.
    pub fn watch(&mut self, pid: u32, stop: bool) -> Result<(), LoadError> {
        let watch = if stop { WATCH_AND_STOP } else { WATCH };
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        map.insert(pid, watch, 0)?;
        if !self.watches_exec {
            exec_tracepoint(&mut self.ebpf)?
                .attach()
                .map_err(|source| LoadError::Program { name: "process_exec", source })?;
            self.watches_exec = true;
        }
        Ok(())
    }

    /// Ends what [`watch`](Self::watch) began.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn unwatch(&mut self, pid: u32) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        match map.remove(&pid) {
            Err(error) if !is_missing(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes what process `pid` has allocated before `before_ns` (`CLOCK_MONOTONIC`) off the books, as freed:
    /// it has executed another program at that time.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write.
    pub fn forget_live(&mut self, pid: u32, before_ns: u64) -> Result<(), LoadError> {
        let mut live: HashMap<&mut MapData, LiveKey, Block> = self.map_mut("LIVE")?;
        let keys: Vec<LiveKey> = live.keys().filter_map(Result::ok).filter(|key| key.tgid == pid).collect();
        let mut gone: std::collections::HashMap<u64, (u64, u64, u64)> = std::collections::HashMap::new();
        for key in keys {
            let Ok(block) = live.get(&key, 0) else { continue };
            // A free may be faster; then it has counted the block.
            if block.time_ns >= before_ns || live.remove(&key).is_err() {
                continue;
            }
            let sum = gone.entry(block.stack_id).or_default();
            *sum = (sum.0 + block.objects, sum.1 + block.bytes, sum.2 + 1);
        }
        let mut stacks: HashMap<&mut MapData, u64, StackTotals> = self.map_mut("STACKS")?;
        for (stack_id, (objects, bytes, samples)) in gone {
            let mut totals = stacks.get(&stack_id, 0)?;
            totals.freed_objects += objects;
            totals.freed_bytes += bytes;
            totals.freed_samples += samples;
            stacks.insert(stack_id, totals, 0)?;
        }
        Ok(())
    }

    /// The ring buffer, to be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        Ok(self.ebpf.take_map("EVENTS").ok_or(LoadError::Missing("EVENTS"))?.try_into()?)
    }

    /// The counters as they are now.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        let map: PerCpuArray<&MapData, u64> = self.map("COUNTERS")?;
        Ok(Counters::read(&map)?.since(&self.baseline))
    }

    /// Every live block.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn live(&self) -> Result<Vec<(LiveKey, Block)>, LoadError> {
        let map: HashMap<&MapData, LiveKey, Block> = self.map("LIVE")?;
        // A block that is freed between the two system calls that read it is no longer live.
        Ok(map.iter().filter_map(Result::ok).collect())
    }

    /// How many sampled calls are between their entry and their return, or never returned.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn in_flight(&self) -> Result<Vec<InFlight>, LoadError> {
        let map: HashMap<&MapData, InFlightKey, InFlight> = self.map("IN_FLIGHT")?;
        Ok(map.iter().filter_map(Result::ok).map(|(_, call)| call).collect())
    }

    /// Every stack's totals as they are now. While the books are open, one stack's numbers may be an
    /// allocation apart.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn totals(&self) -> Result<Vec<(u64, StackTotals)>, LoadError> {
        let map: HashMap<&MapData, u64, StackTotals> = self.map("STACKS")?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }
}

/// The programs that aya loads in this mode.
fn uprobes(mode: AttachMode) -> &'static [&'static str] {
    match mode {
        AttachMode::Perf => &["allocate_entry", "allocate_return", "free_entry", "loader_changed"],
        AttachMode::Session | AttachMode::Multi => &["loader_changed"],
    }
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}

fn exec_tracepoint(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint, LoadError> {
    let name = "process_exec";
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}
