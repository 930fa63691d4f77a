//! Everything that a recording has brought.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use memtrace_common::{StackTotals, inherited_stack};

use super::{
    EventWriter,
    newcomers::Newcomers,
    observed::{Counts, Observed},
    processes::WithoutSamples,
};
use crate::{
    attach::TracedFunction,
    collect::Stacks,
    kernel::{Books, Counters, Prices},
    symbolize::AddressSpace,
    target::{Labels, Target},
    unwind,
};

/// Everything that a recording has brought, with the probes gone.
pub struct Recording {
    /// When the books were opened.
    pub time: SystemTime,
    /// How long they were open.
    pub duration: Duration,
    /// The processes in the order in which they were first seen: at least one.
    pub processes: Vec<Process>,
    /// Those that had ended without a sample.
    pub(super) without_samples: WithoutSamples,
    /// What could not be entered under any stack of any process.
    pub without_stack: Vec<(u64, StackTotals)>,
    pub(super) newcomers: Newcomers,
    /// The kernel program's counters.
    pub counters: Counters,
    /// The functions that have had probes, and how often each was called while the books were open, in all processes.
    pub functions: Vec<(TracedFunction, u64)>,
    /// How many bytes the processes grew by while no probe was hit, where it was so long that this means something.
    pub unseen_growth: u64,
    /// Sampled calls that had not returned when their process executed another program.
    pub calls_cut_off: u64,
    /// Where events were written, to be finished.
    pub events: Option<EventWriter>,
    /// What probes cost on this machine.
    pub prices: Prices,
    /// How often the books were closed for a while, and for how long in all.
    pub pauses: (u64, Duration),
    /// When the last pause ended: nanoseconds of `CLOCK_MONOTONIC`.
    pub last_pause_ns: u64,
    /// Records of the ring buffer that this version does not know.
    pub unknown_events: u64,
    /// The unwind tables at the end.
    pub unwind: unwind::Stats,
}

/// What a recording has brought of one process.
pub struct Process {
    /// The process.
    pub target: Target,
    /// Its labels: its id and its last name, container and pod.
    pub labels: Vec<(String, String)>,
    /// Its code.
    pub space: AddressSpace,
    /// The stacks that were announced.
    pub stacks: Stacks,
    /// What the books said at its end, or at the end of the recording.
    pub books: Books,
    /// How many Python interpreters were found whose frames cannot be read.
    pub python_unsupported: u64,
    /// In how many places its Python interpreter allocates objects by code that has no probe.
    pub python_copies: u64,
    /// The CPU time that it has used meanwhile, where it could be asked.
    pub cpu_time: Option<Duration>,
    /// How long it ran before its probes were set, although it was to be recorded from its beginning.
    pub late: Duration,
    pub(super) counts: Counts,
}

impl Process {
    pub(super) fn new(observed: Observed, books: Books) -> Self {
        let labels = Labels { comm: observed.target.comm.clone(), ..observed.labels.clone() };
        Self {
            labels: labels.pairs().map(|(key, value)| (key.to_owned(), value)).collect(),
            python_unsupported: observed.python.unsupported(),
            python_copies: observed.discovery.python_copies,
            cpu_time: observed.cpu_time(),
            target: observed.target,
            space: observed.space,
            stacks: observed.stacks,
            late: observed.late,
            counts: observed.counts,
            books,
        }
    }

    /// Whether anything was recorded of it, or of what it has inherited.
    pub fn has_samples(&self) -> bool {
        sampled(&self.books.totals).next().is_some()
    }

    /// The totals of those stacks by which it has allocated itself.
    pub(super) fn own_totals(&self) -> impl Iterator<Item = &(u64, StackTotals)> {
        let inherited = inherited_stack(self.target.pid);
        sampled(&self.books.totals).filter(move |(stack_id, _)| *stack_id != inherited)
    }

    /// The totals of what it has inherited from its creator, if any of that is left.
    pub(super) fn inherited_totals(&self) -> Option<&StackTotals> {
        let inherited = inherited_stack(self.target.pid);
        let (_, totals) = self.books.totals.iter().find(|(stack_id, _)| *stack_id == inherited)?;
        (totals.allocated_objects > totals.freed_objects).then_some(totals)
    }
}

impl Recording {
    /// The stacks that were sampled, in the order of the samples of the profile of all processes.
    pub fn sampled_stacks(&self) -> Vec<u64> {
        let of_processes = self.processes.iter().flat_map(Process::own_totals);
        of_processes.chain(sampled(&self.without_stack)).map(|(stack_id, _)| *stack_id).collect()
    }

    /// The functions that have had probes, a line for each, those first that were called most often.
    pub fn function_lines(&self) -> Vec<String> {
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        functions.iter().map(|(function, calls)| function.text(*calls)).collect()
    }

    /// Whose allocation function a stack has called, by the functions' numbers.
    pub(super) fn allocators(&self) -> HashMap<u16, &'static str> {
        let found = self.functions.iter().map(|(function, _)| &function.found);
        found.map(|found| (found.probe.function, found.allocator())).collect()
    }
}

/// Those stacks that have samples.
pub(super) fn sampled<'a>(
    totals: impl IntoIterator<Item = &'a (u64, StackTotals)>,
) -> impl Iterator<Item = &'a (u64, StackTotals)> {
    totals.into_iter().filter(|(_, totals)| totals.samples > 0)
}
