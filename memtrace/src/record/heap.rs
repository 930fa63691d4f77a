//! From what was recorded to a heap profile.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use memtrace_common::{Block, Counter, InFlight, LiveKey, STACK_NOT_RECORDED, StackTotals, sampling};

use super::{EventWriter, cost, live, losses, stacks};
use crate::{
    attach::TracedFunction,
    collect::Stacks,
    kernel::{Counters, Prices, object},
    profile::{Profile, STACK_END, Sample},
    symbolize::{AddressSpace, Frame, Names},
    target::Target,
    unwind,
};

/// Everything that a recording has brought, with the process and the probes gone.
pub struct Recording {
    /// The process.
    pub target: Target,
    /// When the books were opened.
    pub time: SystemTime,
    /// How long they were open.
    pub duration: Duration,
    /// The process's code.
    pub space: AddressSpace,
    /// The stacks that were announced.
    pub stacks: Stacks,
    /// How many Python interpreters were found whose frames cannot be read.
    pub python_unsupported: u64,
    /// The functions that have had probes, and how often each was called while the books were open.
    pub functions: Vec<(TracedFunction, u64)>,
    /// Every stack's totals.
    pub totals: Vec<(u64, StackTotals)>,
    /// The kernel program's counters.
    pub counters: Counters,
    /// Every block that was live at the end.
    pub live: Vec<(LiveKey, Block)>,
    /// Sampled calls that had not returned at the end.
    pub in_flight: Vec<InFlight>,
    /// Sampled calls that had not returned when the process executed another program.
    pub calls_cut_off: u64,
    /// Where events were written, to be finished.
    pub events: Option<EventWriter>,
    /// What probes cost on this machine.
    pub prices: Prices,
    /// The CPU time that the process has used meanwhile, where it could be asked.
    pub target_cpu_time: Option<Duration>,
    /// How often the books were closed for a while, and for how long in all.
    pub pauses: (u64, Duration),
    /// When the last pause ended: nanoseconds of `CLOCK_MONOTONIC`.
    pub last_pause_ns: u64,
    /// Records of the ring buffer that this version does not know.
    pub unknown_events: u64,
    /// Times at which the process's number executed a program, but the process had ended when that was noticed.
    pub unresolved_changes: u64,
    /// Whether the process's main thread ended, and probes with it.
    pub main_thread_ended: bool,
    /// The unwind tables at the end.
    pub unwind: unwind::Stats,
    /// Times at which the process's mappings could not be given to the kernel program.
    pub unwind_errors: u64,
    /// Times at which new code of the process could not be probed.
    pub late_errors: u64,
    /// In how many places a Python interpreter allocates objects by code that has no probe.
    pub python_copies: u64,
    /// How many bytes the process grew by while no probe was hit, where it was so long that this means something.
    pub unseen_growth: u64,
    /// Allocator functions of which the kernel program could not be told where they stand.
    pub functions_left_out: u64,
}

impl Recording {
    /// The stacks that were sampled, in the order of the profile's samples.
    pub fn sampled_stacks(&self) -> Vec<u64> {
        self.totals.iter().filter(|(_, totals)| totals.samples > 0).map(|(stack_id, _)| *stack_id).collect()
    }

    /// The functions that have had probes, a line for each, those first that were called most often.
    pub fn function_lines(&self) -> Vec<String> {
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        functions.iter().map(|(function, calls)| function.text(*calls)).collect()
    }

    /// Whose allocation function a stack has called, by the functions' numbers.
    fn allocators(&self) -> HashMap<u16, &'static str> {
        let found = self.functions.iter().map(|(function, _)| &function.found);
        found.map(|found| (found.probe.function, found.allocator())).collect()
    }
}

/// The label that says whose allocation function was called.
const ALLOCATOR: &str = "allocator";

/// A count in units of 1/65536, rounded to whole objects.
fn objects(units: u64) -> i64 {
    rounded(units, sampling::OBJECT_UNIT)
}

/// A count in units of 1/16, rounded to whole bytes.
fn bytes(units: u64) -> i64 {
    rounded(units, sampling::BYTE_UNIT)
}

fn rounded(units: u64, unit: u64) -> i64 {
    // At most 2^60, since a unit is a sixteenth or less.
    (units / unit + u64::from(units % unit >= unit / 2)) as i64
}

/// alloc_objects, alloc_space, inuse_objects, inuse_space.
fn values(totals: &StackTotals) -> Vec<i64> {
    let in_use = |allocated: u64, freed: u64, untracked: u64| {
        allocated.saturating_sub(freed).saturating_sub(untracked)
    };
    vec![
        objects(totals.allocated_objects),
        bytes(totals.allocated_bytes),
        objects(in_use(totals.allocated_objects, totals.freed_objects, totals.untracked_objects)),
        bytes(in_use(totals.allocated_bytes, totals.freed_bytes, totals.untracked_bytes)),
    ]
}

/// Makes the profile of a recording that was taken with this sample interval (in bytes).
pub async fn profile(recording: &Recording, interval: u64, names: &mut Names) -> Profile {
    let mut profile = Profile::heap(interval, recording.time, recording.duration);
    names.resolve(recording.stacks.frames()).await;

    let sums = live::sums(recording.live.iter().map(|(_, block)| block), &recording.in_flight);
    let scale = 4f64.powi(sampling::variance_shift(interval) as i32);
    let allocators = recording.allocators();
    let (mut unannounced, mut incomplete) = (0, 0);
    let mut interner = names.interner(&mut profile);
    interner.add_main(&recording.space);
    for (stack_id, totals) in &recording.totals {
        if totals.samples == 0 {
            continue;
        }
        let live = sums.get(stack_id).copied().unwrap_or_default();
        let allocator =
            allocators.get(&totals.function).map(|name| (ALLOCATOR.to_owned(), (*name).to_owned()));
        let mut labels: Vec<_> = allocator.into_iter().collect();
        let sample = |labels| Sample {
            values: values(totals),
            labels,
            standard_errors: vec![
                Some((totals.objects_variance as f64 * scale / sampling::OBJECT_VARIANCE_UNIT as f64).sqrt()),
                Some((totals.bytes_variance as f64 * scale).sqrt()),
                Some(live.objects_variance.sqrt()),
                Some(live.bytes_variance.sqrt()),
            ],
            ..Sample::default()
        };
        match recording.stacks.get(*stack_id) {
            Some(stack) => {
                if !stack.is_complete() {
                    incomplete += 1;
                    labels.push(("stack".to_owned(), "incomplete".to_owned()));
                    labels.push((STACK_END.to_owned(), stack.end_name().to_owned()));
                }
                if !stack.python_end.is_complete() {
                    labels.push(("python".to_owned(), "incomplete".to_owned()));
                }
                interner.add(&stack.frames, sample(labels));
            }
            None => {
                if *stack_id != STACK_NOT_RECORDED {
                    unannounced += totals.samples;
                }
                interner.add(&[Frame::Pseudo("[stack not recorded]")], sample(labels));
            }
        }
    }

    losses::add(&mut profile.losses, &recording.counters);
    names.add_losses(&mut profile.losses);
    profile.losses.add(
        "stacks_unannounced",
        unannounced,
        "samples have a stack whose frames did not fit into the ring buffer: they are counted under [stack not recorded]",
    );
    profile.losses.add(
        "stacks_incomplete",
        incomplete,
        "distinct stacks end before the thread's first function; they carry the label stack=incomplete",
    );
    profile.losses.add(
        "python_unsupported",
        recording.python_unsupported,
        "Python interpreters are of a version whose frames memtrace does not know (it knows CPython 3.11 to 3.15): their Python functions are not shown",
    );
    profile.losses.add(
        "python_frames_gone",
        recording.stacks.python_frames_gone,
        "Python frames have no name because their code object was gone when it was to be read: they are shown as [Python function that is gone]",
    );
    profile.losses.add(
        "python_unjoined",
        recording.stacks.python_unjoined,
        "distinct stacks have Python functions whose place among the interpreter's own functions is not known: they are shown above all of these",
    );
    profile.losses.add(
        "unknown_events",
        recording.unknown_events,
        "records of the kernel program were not understood",
    );
    profile.losses.add(
        "execs_unresolved",
        recording.unresolved_changes,
        "times the process executed a program just before it ended, or its number was given to another process: where it was the former, objects of the earlier program are shown as in use",
    );
    profile.losses.add(
        "events_dropped",
        recording.events.as_ref().map_or(0, EventWriter::dropped),
        "allocations or frees were not written to the events file because writing was too slow; write to a faster disk or raise --sample-interval (the profile is not affected)",
    );
    profile.losses.add(
        "main_thread_ended",
        recording.main_thread_ended.into(),
        "the process's main thread ended while others went on, and with it probes: what came after was not seen, or not all of it; use --attach-mode multi or session, while nobody else traces the same libraries",
    );
    profile.losses.add(
        "probes_failed",
        recording.late_errors,
        "times no probe could be set on code that the process had loaded: its allocations there are missing",
    );
    profile.losses.add(
        "python_objects_copied",
        recording.python_copies,
        "places in the Python interpreter allocate or free objects by copies that the compiler has made of the functions with probes: objects that are made there are not seen, and some that are freed there are shown as in use; to see all, start Python with PYTHONMALLOC=malloc in its environment",
    );
    profile.losses.add(
        "growth_unseen_bytes",
        recording.unseen_growth,
        "bytes that the process grew by while no probe was hit: it got them by functions that memtrace does not know; `memtrace doctor -p PID` says which have probes, and --alloc and --free name others",
    );
    profile.losses.add(
        "functions_left_out",
        recording.functions_left_out,
        "allocator functions did not fit into the kernel program's lists: an allocation of which one calls another may count twice, or the frame of an operator new be shown",
    );
    let never_returned = recording.in_flight.iter().filter(|call| call.threshold != 0).count() as u64;
    profile.losses.add("calls_unfinished", never_returned + recording.calls_cut_off, "sampled calls had not returned at the end, or never did (an exception, a longjmp, the end of a thread): nothing was recorded for them");
    profile.losses.add(
        "books_unbalanced",
        live::unbalanced(&recording.totals, &sums),
        "stacks whose totals are not what their live blocks add up to: this is a bug in memtrace, please report it",
    );
    let (pauses, paused) = recording.pauses;
    profile.losses.add(
        "pauses_milliseconds",
        if pauses == 0 { 0 } else { (paused.as_millis() as u64).max(1) },
        "milliseconds in which probes were switched off: nothing allocated or freed then was seen",
    );
    let uncertain =
        recording.live.iter().filter(|(_, block)| block.time_ns < recording.last_pause_ns).count() as u64;
    profile.losses.add(
        "samples_from_before_a_pause",
        uncertain,
        "samples that count as in use were allocated before probes were switched off for a while, and may have been freed meanwhile",
    );
    profile.losses.add(
        "unwind_tables_left_out",
        recording.unwind.left_out.no_room + recording.unwind.left_out.too_large,
        "files have no unwind table because there was no room for it: stacks may end in their code",
    );
    profile.losses.add(
        "unwind_mappings_failed",
        recording.unwind.mappings_left_out + recording.unwind_errors,
        "executable mappings, or changes of them, could not be given to the kernel program: stacks may end there",
    );
    profile.statistics = cost::statistics(&recording.counters, &recording.prices, recording.target_cpu_time);
    profile.statistics.extend(stacks::statistics(&recording.counters, &recording.unwind));
    profile.comments = comments(recording, interval);
    profile
}

fn comments(recording: &Recording, interval: u64) -> Vec<String> {
    let counter = |counter| recording.counters.get(counter);
    vec![
        format!("memtrace {} (kernel program {})", env!("CARGO_PKG_VERSION"), &object::source_digest()[..16]),
        format!("process {} ({})", recording.target.pid, recording.target.comm),
        match interval {
            0 | 1 => "every allocation recorded".to_owned(),
            interval => format!("one sample every {interval} bytes on average; counts are estimates"),
        },
        format!(
            "{} allocation calls, {} of them recorded; {} free calls, {} of them of recorded blocks",
            recording.counters.allocation_calls(),
            counter(Counter::Sampled),
            recording.counters.free_calls(),
            counter(Counter::FreesMatched),
        ),
    ]
}
