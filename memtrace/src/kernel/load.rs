//! Loading the kernel program.

use std::hash::{BuildHasher, Hasher, RandomState};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError, ProgramType, UProbe},
    sys::{BpfHelper, SyscallError, is_helper_supported},
    util::nr_cpus,
};
use memtrace_common::{
    Block, Config, InFlight, InFlightKey, InternalCallers, LiveKey, STACK_NOT_RECORDED, StackTotals, WATCH,
    WATCH_AND_STOP, Wrappers, python::PythonRuntime, sampling,
};
use thiserror::Error;

use super::{
    AttachMode, Counters, MultiPrograms, Prices, forgotten::Forgotten, multi, namespace, object, price, sys,
};

/// See the map `SCRATCH` in the kernel program.
const SCRATCH_PER_CPU: u32 = 8;

/// The programs that tell of a watched process's execs and children, and the kernel's name of each event.
const TRACEPOINTS: [(&str, &str); 2] =
    [("process_exec", "sched_process_exec"), ("task_created", "task_newtask")];

/// How large the kernel program's tables may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live samples. At an interval of 512 KiB, 100 GiB of live heap are about 205,000.
    pub live: u32,
    /// Distinct stacks.
    pub stacks: u32,
    /// Bytes of the ring buffer; a power of two.
    pub ring: u32,
    /// Executable mappings of all processes together.
    pub mappings: u32,
}

impl Limits {
    /// Limits that hold 100 GiB of live heap at the usual intervals. The live table takes memory only as it
    /// fills (about 130 bytes for each sample), so it is larger where a small interval makes many samples.
    pub fn for_interval(interval: u64) -> Self {
        let live = if interval < 64 << 10 { 1 << 20 } else { 1 << 18 };
        Self { live, stacks: 1 << 16, ring: 1 << 22, mappings: 1 << 16 }
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
    /// How many frames of a stack are kept, the innermost ones; at most [`memtrace_common::MAX_FRAMES`].
    pub max_frames: u32,
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
    watches: bool,
    /// What is off the books since an exec.
    forgotten: Forgotten,
    ring_bytes: u32,
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
            // A hasher of the standard library starts from the system's random numbers.
            seed: RandomState::new().build_hasher().finish(),
            return_always_fires: (settings.mode != AttachMode::Session).into(),
            events: settings.events.into(),
            max_frames: settings.max_frames,
            loop_helper: has_loop_helper().into(),
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
            .map_max_entries("MAPPINGS", settings.limits.mappings)
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
        for (name, event) in TRACEPOINTS {
            tracepoint(&mut ebpf, name)?
                .load(event, &btf)
                .map_err(|source| LoadError::Program { name, source })?;
        }

        let mut kernel = Self {
            ebpf,
            multi,
            mode: settings.mode,
            prices: Prices::default(),
            baseline: Counters::default(),
            watches: false,
            forgotten: Forgotten::default(),
            ring_bytes: settings.limits.ring,
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

    /// The map `name`, of whatever type.
    pub(super) fn any_map(&self, name: &'static str) -> Result<&Map, LoadError> {
        self.ebpf.map(name).ok_or(LoadError::Missing(name))
    }

    fn map<'a, M>(&'a self, name: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<&'a Map, Error = MapError>,
    {
        Ok(self.any_map(name)?.try_into()?)
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
        let program = uprobe(&mut self.ebpf, name)?;
        // Those that few targets need are loaded for the first probe.
        if program.fd().is_err() {
            program.load().map_err(|source| LoadError::Program { name, source })?;
        }
        Ok(program)
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
    /// at work, and counts its children. With `stop`, the process is stopped (`SIGSTOP`) each time: only for one that memtrace has
    /// started itself.
    ///
    /// # Errors
    /// When the kernel refuses the tracepoint or the write.
    pub fn watch(&mut self, pid: u32, stop: bool) -> Result<(), LoadError> {
        let watch = if stop { WATCH_AND_STOP } else { WATCH };
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        map.insert(pid, watch, 0)?;
        if !self.watches {
            for (name, _) in TRACEPOINTS {
                tracepoint(&mut self.ebpf, name)?
                    .attach()
                    .map_err(|source| LoadError::Program { name, source })?;
            }
            self.watches = true;
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
    /// it has executed another program at that time. Probes may run meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write.
    pub fn forget_live(&mut self, pid: u32, before_ns: u64) -> Result<(), LoadError> {
        let mut forgotten = std::mem::take(&mut self.forgotten);
        let result = self
            .take_all("LIVE", |key: &LiveKey| key.tgid == pid, |block: &Block| block.time_ns < before_ns)
            .map(|blocks| blocks.iter().for_each(|block| forgotten.block(block)))
            .and_then(|()| {
                let of_process = |key: &InFlightKey| key.pid_tgid >> 32 == u64::from(pid);
                self.take_all("IN_FLIGHT", of_process, |call: &InFlight| call.time_ns < before_ns)
            })
            .map(|calls| calls.iter().for_each(|call| forgotten.call(call)));
        self.forgotten = forgotten;
        result
    }

    /// Removes those entries of a hash map whose key and value are `wanted` while the kernel program goes on
    /// using it, and returns their values. An entry that the kernel program removes first is not among them.
    fn take_all<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        wanted_key: impl Fn(&K) -> bool,
        wanted: impl Fn(&V) -> bool,
    ) -> Result<Vec<V>, LoadError> {
        let fd = self.ebpf.map(name).and_then(multi::descriptor).ok_or(LoadError::Missing(name))?;
        let refused = |call| move |io_error| MapError::SyscallError(SyscallError { call, io_error });
        let all = sys::entries::<K, V>(fd).map_err(refused("bpf_map_lookup_batch"))?;
        let mut taken = Vec::new();
        for (key, _) in all.iter().filter(|(key, value)| wanted_key(key) && wanted(value)) {
            // Between these two looks the kernel program may remove the entry. That it also makes another one under
            // the same key is all but impossible: the key is an address, or a thread's stack pointer, of memory that
            // the exec has made an end of.
            let value = sys::take::<K, V>(fd, key).map_err(refused("bpf_map_lookup_and_delete_elem"))?;
            taken.extend(value);
        }
        Ok(taken)
    }

    /// The ring buffer, to be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        Ok(self.ebpf.take_map("EVENTS").ok_or(LoadError::Missing("EVENTS"))?.try_into()?)
    }

    /// More events than the ring buffer can hold at once.
    pub fn most_pending_events(&self) -> usize {
        // Each has a head of 8 bytes (BPF_RINGBUF_HDR_SZ, include/uapi/linux/bpf.h).
        self.ring_bytes as usize / 8
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

    /// How many sampled calls had not returned when their process executed another program.
    pub fn calls_cut_off(&self) -> u64 {
        self.forgotten.sampled_calls()
    }

    /// Every stack's totals as they are now. While the books are open, one stack's numbers may be an
    /// allocation apart.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn totals(&self) -> Result<Vec<(u64, StackTotals)>, LoadError> {
        let map: HashMap<&MapData, u64, StackTotals> = self.map("STACKS")?;
        let mut all = map.iter().collect::<Result<Vec<_>, _>>()?;
        all.iter_mut().for_each(|(stack_id, totals)| self.forgotten.add_to(*stack_id, totals));
        Ok(all)
    }
}

/// Whether the kernel has the helper `bpf_loop` (Linux 5.17). Where that cannot be told, programs do
/// without.
fn has_loop_helper() -> bool {
    is_helper_supported(ProgramType::KProbe, BpfHelper::BPF_FUNC_loop).unwrap_or(false)
}

/// The programs that aya loads in this mode before they are asked for.
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

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}
