//! Loading the kernel program.

use std::hash::{BuildHasher, Hasher, RandomState};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, RingBuf},
    programs::{BtfTracePoint, ProgramType, UProbe},
    sys::{BpfHelper, is_helper_supported},
    util::nr_cpus,
};
use aya_obj::btf::BtfKind;
use memtrace_common::{Config, STACK_NOT_RECORDED, StackTotals, UsdtPlaces, sampling};

use super::{
    AttachMode, Counters, LoadError, MultiPrograms, Prices, btf_member, forgotten::Forgotten,
    functions::Functions, namespace, object, price,
};

/// See the map `SCRATCH` in the kernel program.
const SCRATCH_PER_CPU: u32 = 8;

/// The programs that tell of a watched process's execs and children, and the kernel's name of each event.
const TRACEPOINTS: [(&str, &str); 2] =
    [("process_exec", "sched_process_exec"), ("task_created", "task_newtask")];

/// The program that sees a new process run for the first time: only where children are followed.
const FIRST_FAULT: (&str, &str) = ("page_fault", "page_fault_user");

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
    /// Whether every walk of a stack is to be sent as an event, with a copy of that stack: for checking walks. At
    /// 66 KiB each, the ring buffer should be large.
    pub captures: bool,
    /// Whether the kernel program logs what it does (aya-log); it costs time on every sample.
    pub log: bool,
    /// Which processes beside the [watched](Kernel::watch) ones are to be told of.
    pub newcomers: Newcomers,
    /// Whether stacks of different threads are different.
    pub threads: bool,
    /// Whether the kernel's helper `bpf_loop` is used, where it has it (Linux 5.17). Without it stacks are walked
    /// as on older kernels.
    pub loop_helper: bool,
}

impl Settings {
    /// Those of a plain recording with this interval, in the best mode that the kernel has, of nobody but the processes
    /// that are named.
    pub fn new(interval: u64) -> Self {
        Self {
            interval,
            limits: Limits::for_interval(interval),
            mode: AttachMode::best(),
            max_frames: DEFAULT_FRAMES,
            events: false,
            captures: false,
            log: false,
            newcomers: Newcomers::default(),
            threads: false,
            loop_helper: true,
        }
    }
}

/// How many frames of a stack are kept, unless something else is said.
const DEFAULT_FRAMES: u32 = 127;

/// New processes that userspace wants to know of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newcomers {
    /// Those that watched processes create.
    pub children: bool,
    /// All that execute a program.
    pub all: bool,
}

/// Whether the kernel has a tracepoint for programs of this kind: it names a type for each
/// (include/trace/bpf_probe.h).
fn has_tracepoint(btf: &Btf, name: &str) -> bool {
    btf.id_by_type_name_kind(&format!("btf_trace_{name}"), BtfKind::Typedef).is_ok()
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

/// The loaded kernel program.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) multi: Option<MultiPrograms>,
    pub(super) mode: AttachMode,
    pub(super) prices: Prices,
    /// Mean number of bytes between two samples.
    pub(super) interval: u64,
    /// What was counted before the recording began.
    pub(super) baseline: Counters,
    /// Programs on tracepoints that are not attached yet.
    pub(super) tracepoints: Vec<&'static str>,
    pub(super) functions: Functions,
    /// What is off the books since an exec.
    pub(super) forgotten: Forgotten,
    pub(super) ring_bytes: u32,
    /// Where statically defined probes have their arguments: those that the kernel program knows.
    pub(super) usdt_places: Vec<UsdtPlaces>,
}

impl Kernel {
    /// Loads all programs and sets all tables up. No probe is set yet and the books are closed.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(settings: &Settings) -> Result<Self, LoadError> {
        let btf = Btf::from_sys_fs().map_err(LoadError::NoBtf)?;
        let (pid_namespace_dev, pid_namespace_ino) = namespace::own().map_err(LoadError::Namespace)?;
        // Without the one tracepoint or the other facts children cannot be followed, and are counted.
        let can_follow = has_tracepoint(&btf, FIRST_FAULT.1);
        let offsets = (settings.newcomers.children && can_follow).then(btf_member::task_offsets).flatten();
        if settings.newcomers.children && offsets.is_none() {
            tracing::warn!("this kernel does not say enough of its tasks: children are not followed");
        }
        let config = Config {
            pid_namespace_dev,
            pid_namespace_ino,
            // A hasher of the standard library starts from the system's random numbers.
            seed: RandomState::new().build_hasher().finish(),
            return_always_fires: (settings.mode != AttachMode::Session).into(),
            events: settings.events.into(),
            max_frames: settings.max_frames,
            loop_helper: (settings.loop_helper && has_loop_helper()).into(),
            variance_shift: sampling::variance_shift(settings.interval),
            captures: settings.captures.into(),
            children: offsets.is_some().into(),
            offsets: offsets.unwrap_or_default(),
            threads: settings.threads.into(),
            reserved: 0,
            appearances: settings.newcomers.all.into(),
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
        let tracepoints: Vec<_> = TRACEPOINTS.into_iter().chain(offsets.map(|_| FIRST_FAULT)).collect();
        for (name, event) in &tracepoints {
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
            tracepoints: tracepoints.into_iter().map(|(name, _)| name).collect(),
            functions: Functions::default(),
            forgotten: Forgotten::default(),
            interval: settings.interval,
            ring_bytes: settings.limits.ring,
            usdt_places: Vec::new(),
        };
        kernel.reset()?;
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

    /// Measures what probes cost on this machine, with functions of memtrace itself. For the price of a walk its
    /// own unwind tables must be loaded. To be called before the first probe is set.
    ///
    /// # Errors
    /// When the kernel refuses a probe, a read or a write.
    pub fn measure_prices(&mut self) -> Result<(), LoadError> {
        // So that nothing is sampled.
        self.set_interval(u64::MAX)?;
        self.prices = price::measure(self)?;
        self.reset()
    }

    /// Sets the tables up; removes all traces of the measurement of prices.
    fn reset(&mut self) -> Result<(), LoadError> {
        self.set_interval(self.interval)?;
        self.forget_live(std::process::id(), u64::MAX)?;
        // Nor is that a part of the books.
        self.forgotten = Forgotten::default();
        let mut stacks: HashMap<&mut MapData, u64, StackTotals> = self.map_mut("STACKS")?;
        for stack_id in stacks.keys().collect::<Result<Vec<_>, _>>()? {
            stacks.remove(&stack_id)?;
        }
        stacks.insert(STACK_NOT_RECORDED, StackTotals { announced: 1, ..StackTotals::default() }, 0)?;
        self.baseline = self.counters()?;
        Ok(())
    }

    /// What probes cost on this machine: nothing before that [was measured](Self::measure_prices).
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

    pub(super) fn map<'a, M>(&'a self, name: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<&'a Map, Error = MapError>,
    {
        Ok(self.any_map(name)?.try_into()?)
    }

    pub(super) fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, LoadError>
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
        AttachMode::Session | AttachMode::Multi => &[],
    }
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}

pub(super) fn tracepoint<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}
