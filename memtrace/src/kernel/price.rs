//! What a probe costs on this machine: measured before the recording, on functions of memtrace itself,
//! with the very programs that the recording will use.

use std::{
    io,
    num::NonZeroU32,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use memtrace_common::{Counter, FunctionKind, Probe};

use super::{AttachMode, Kernel, Leg, LoadError, Places, trial};

/// What one call of a probed function costs more than without a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// An allocation that is not sampled.
    pub allocation: Duration,
    /// What is added where it is sampled, less the walk of its stack and its free's look-up.
    pub sampled: Duration,
    /// What is added for each frame of its stack.
    pub frame: Duration,
    /// A free of a block that is not recorded.
    pub free: Duration,
    /// What is added where the kernel single-steps the probed instruction.
    pub stepped: Duration,
}

/// Calls per measurement: enough for a stable median, few enough to take no time.
const BATCHES: usize = 9;
const CALLS: u32 = 60;

/// How many frames deeper the stack is by which the price of a frame is measured.
const DEEPER: u32 = 64;

enum Held {
    Multi(#[expect(dead_code, reason = "held for its drop")] OwnedFd),
    Perf(#[expect(dead_code, reason = "held for its drop")] UProbeLink),
}

/// Measures. The books must be closed and empty, and the sampling table must say "never".
pub(super) fn measure(kernel: &mut Kernel) -> Result<Prices, LoadError> {
    let bare = cheapest(trial::emulated);
    let mut held = Vec::new();
    let mut with = |kernel: &mut Kernel, function: trial::Function, kind| {
        held.extend(attach(kernel, function, kind)?);
        Ok::<_, LoadError>(cheapest(function).saturating_sub(bare))
    };
    kernel.open_books()?;
    let free = with(kernel, trial::emulated_free, FunctionKind::Free)?;
    let stepped = with(kernel, trial::stepped_free, FunctionKind::Free)?.saturating_sub(free);
    let allocation = with(kernel, trial::emulated, FunctionKind::Malloc)?;
    kernel.set_interval(1)?;
    let shallow = cheapest(trial::emulated).saturating_sub(bare + allocation);
    let before = kernel.counters()?;
    let deep = cheapest_below(DEEPER, trial::emulated).saturating_sub(bare + allocation);
    let counted = kernel.counters()?.since(&before);
    kernel.close_books()?;
    // What calling so deep costs by itself is a nanosecond or two for each frame, and is left in.
    let frame = deep.saturating_sub(shallow) / DEEPER;
    let frames = counted.get(Counter::FramesWalked) / counted.get(Counter::Sampled).max(1);
    let frames = u32::try_from(frames).unwrap_or_default();
    let sampled = deep.saturating_sub(frame * frames);
    // Taking probes off waits for the kernel; nobody else has to.
    std::thread::spawn(move || drop(held));
    Ok(Prices { allocation, sampled, frame, free, stepped })
}

/// The fastest batch, per call: whatever disturbs a measurement makes it longer.
fn cheapest(function: trial::Function) -> Duration {
    cheapest_below(0, function)
}

/// The same, below so many more frames.
#[inline(never)]
fn cheapest_below(frames: u32, function: trial::Function) -> Duration {
    if frames > 0 {
        // Something is left to do after the call, so that it is no jump.
        return std::hint::black_box(cheapest_below(frames - 1, function));
    }
    (0..BATCHES)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..CALLS {
                trial::call(function);
            }
            begun.elapsed() / CALLS
        })
        .min()
        .unwrap_or_default()
}

fn attach(
    kernel: &mut Kernel,
    function: trial::Function,
    kind: FunctionKind,
) -> Result<Vec<Held>, LoadError> {
    let failed = |source| LoadError::MultiProgram { name: "trial", source };
    let offset = trial::file_offset(function).map_err(failed)?;
    let cookie = Probe::new(kind).cookie();
    let legs: &[Leg] = match kind {
        FunctionKind::Free => &[Leg::Free],
        _ => &[Leg::AllocationReturn, Leg::AllocationEntry],
    };
    let mut held = Vec::new();
    for leg in legs {
        if kernel.mode() == AttachMode::Perf {
            held.push(Held::Perf(attach_perf(kernel, *leg, offset, cookie)?));
        } else if let Some(programs) = kernel.multi() {
            let (path, offsets, cookies) = (c"/proc/self/exe", &[offset], &[cookie]);
            let places = Places { path, offsets, cookies, semaphores: &[] };
            let link = programs.attach(*leg, &places, std::process::id()).map_err(failed)?;
            held.extend(link.map(Held::Multi));
        }
    }
    Ok(held)
}

fn attach_perf(kernel: &mut Kernel, leg: Leg, offset: u64, cookie: u64) -> Result<UProbeLink, LoadError> {
    let name = leg.perf_program();
    let program = kernel.uprobe(name)?;
    let point =
        UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
    let own = NonZeroU32::new(std::process::id()).ok_or_else(|| LoadError::MultiProgram {
        name,
        source: io::Error::other("memtrace has no process id"),
    })?;
    let refused = |source| LoadError::Program { name, source };
    let id = program.attach(point, "/proc/self/exe", UProbeScope::OneProcess(own)).map_err(refused)?;
    program.take_link(id).map_err(refused)
}
