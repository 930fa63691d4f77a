//! From what was recorded to a heap profile.

use std::time::Duration;

use memtrace_common::{Counter, StackTotals, inherited_stack, sampling};

use super::{
    EventWriter, Recording, cost, live, losses,
    processes::WithoutSamples,
    recording::{Process, sampled},
    stacks,
};
use crate::{
    collect::RecordedStack,
    kernel::object,
    profile::{Profile, STACK_END, Sample, Statistic},
    symbolize::{Frame, Names},
    target::Target,
};

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

/// Which processes of a recording a profile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// The one with this index.
    One(usize),
}

impl Scope {
    fn processes(self, recording: &Recording) -> &[Process] {
        match self {
            Self::All => &recording.processes,
            Self::One(index) => &recording.processes[index..=index],
        }
    }
}

/// Makes the profile of a recording that was taken with this sample interval (in bytes). Counters, and what was lost
/// in the kernel, are those of the whole recording also in a profile of one process.
pub async fn profile(recording: &Recording, scope: Scope, interval: u64, names: &mut Names) -> Profile {
    let mut profile = Profile::heap(interval, recording.time, recording.duration);
    let processes = scope.processes(recording);
    let mut counts = Counts::default();
    for process in processes {
        names.resolve(process.stacks.frames()).await;
    }
    let allocators = recording.allocators();
    let mut interner = names.interner(&mut profile);
    for process in processes {
        interner.add_main(&process.space);
    }
    for process in processes {
        let sums = live::sums(&process.books.live, &process.books.in_flight);
        for (stack_id, totals) in process.own_totals() {
            let live = sums.get(stack_id).copied().unwrap_or_default();
            let mut labels = process.labels.clone();
            let allocator = allocators.get(&totals.function);
            labels.extend(allocator.map(|name| (ALLOCATOR.to_owned(), (*name).to_owned())));
            let stack = process.stacks.get(*stack_id);
            match stack {
                Some(stack) => counts.add_labels(stack, &mut labels),
                None => counts.unannounced += totals.samples,
            }
            let frames = stack.map_or(&NOT_RECORDED[..], |stack| &stack.frames);
            interner.add(frames, sample(totals, &live, interval, labels));
        }
        // In the profile of all processes it is its creator's.
        if scope != Scope::All
            && let Some(totals) = process.inherited_totals()
        {
            let live = sums.get(&inherited_stack(process.target.pid)).copied().unwrap_or_default();
            let mut sample = sample(totals, &live, interval, process.labels.clone());
            // It has not allocated that itself.
            sample.values[..2].fill(0);
            sample.standard_errors[..2].fill(Some(0.0));
            sample.labels.push(("inherited".to_owned(), "fork".to_owned()));
            interner.add(&INHERITED, sample);
        }
        counts.unbalanced += live::unbalanced(&process.books.totals, &sums);
    }
    if scope == Scope::All {
        let live = processes.iter().flat_map(|process| &process.books.live);
        let in_flight = processes.iter().flat_map(|process| &process.books.in_flight);
        let sums = live::sums(live, in_flight);
        for (stack_id, totals) in sampled(&recording.without_stack) {
            let live = sums.get(stack_id).copied().unwrap_or_default();
            interner.add(&NOT_RECORDED, sample(totals, &live, interval, Vec::new()));
        }
        counts.unbalanced += live::unbalanced(&recording.without_stack, &sums);
    }
    add_losses(&mut profile, recording, processes, &counts);
    names.add_losses(&mut profile.losses);
    let cpu_time = processes.iter().map(|process| process.cpu_time).sum::<Option<Duration>>();
    profile.statistics = cost::statistics(&recording.counters, &recording.prices, cpu_time);
    profile.statistics.extend(stacks::statistics(&recording.counters, &recording.unwind));
    profile.statistics.push(Statistic {
        name: "processes",
        unit: "count",
        value: (recording.processes.len() as u64 + recording.without_samples.count) as f64,
    });
    profile.comments = comments(recording, processes, interval);
    profile
}

/// The stack of what has none.
const NOT_RECORDED: [Frame; 1] = [Frame::Pseudo("[stack not recorded]")];

/// The stack of what was there before a process was created.
const INHERITED: [Frame; 1] = [Frame::Pseudo("[inherited at fork]")];

fn sample(
    totals: &StackTotals,
    live: &live::LiveSums,
    interval: u64,
    labels: Vec<(String, String)>,
) -> Sample {
    let scale = 4f64.powi(sampling::variance_shift(interval) as i32);
    Sample {
        values: values(totals),
        labels,
        standard_errors: vec![
            Some((totals.objects_variance as f64 * scale / sampling::OBJECT_VARIANCE_UNIT as f64).sqrt()),
            Some((totals.bytes_variance as f64 * scale).sqrt()),
            Some(live.objects_variance.sqrt()),
            Some(live.bytes_variance.sqrt()),
        ],
        ..Sample::default()
    }
}

/// What is counted while samples are made.
#[derive(Debug, Default)]
struct Counts {
    /// Samples whose frames are not known.
    unannounced: u64,
    /// Stacks that end early.
    incomplete: u64,
    /// Stacks whose totals are not what their live blocks add up to.
    unbalanced: u64,
}

impl Counts {
    /// Adds what is to be said of a stack.
    fn add_labels(&mut self, stack: &RecordedStack, labels: &mut Vec<(String, String)>) {
        let mut add = |key: &str, value: &str| labels.push((key.to_owned(), value.to_owned()));
        if let Some(thread) = &stack.thread {
            add("tid", &thread.tid.to_string());
            add("thread", if thread.name.is_empty() { "[ended]" } else { &thread.name });
        }
        if !stack.is_complete() {
            self.incomplete += 1;
            add("stack", "incomplete");
            add(STACK_END, stack.end_name());
        }
        if !stack.python_end.is_complete() {
            add("python", "incomplete");
        }
    }
}

fn add_losses(profile: &mut Profile, recording: &Recording, processes: &[Process], counts: &Counts) {
    let sum = |count: fn(&Process) -> u64| processes.iter().map(count).sum::<u64>();
    losses::add(&mut profile.losses, &recording.counters);
    profile.losses.add(
        "stacks_unannounced",
        counts.unannounced,
        "samples have a stack whose frames did not fit into the ring buffer: they are counted under [stack not recorded]",
    );
    profile.losses.add(
        "stacks_incomplete",
        counts.incomplete,
        "distinct stacks end before the thread's first function; they carry the label stack=incomplete",
    );
    profile.losses.add(
        "python_unsupported",
        sum(|process| process.python_unsupported),
        "Python interpreters are of a version whose frames memtrace does not know (it knows CPython 3.11 to 3.15): their Python functions are not shown",
    );
    profile.losses.add(
        "python_frames_gone",
        sum(|process| process.stacks.python_frames_gone),
        "Python frames have no name because their code object was gone when it was to be read: they are shown as [Python function that is gone]",
    );
    profile.losses.add(
        "python_unjoined",
        sum(|process| process.stacks.python_unjoined),
        "distinct stacks have Python functions whose place among the interpreter's own functions is not known: they are shown above all of these",
    );
    profile.losses.add(
        "unknown_events",
        recording.unknown_events,
        "records of the kernel program were not understood",
    );
    profile.losses.add(
        "execs_unresolved",
        sum(|process| process.counts.unresolved_changes),
        "times the process executed a program just before it ended, or its number was given to another process: where it was the former, objects of the earlier program are shown as in use",
    );
    profile.losses.add(
        "events_dropped",
        recording.events.as_ref().map_or(0, EventWriter::dropped),
        "allocations or frees were not written to the events file because writing was too slow; write to a faster disk or raise --sample-interval (the profile is not affected)",
    );
    profile.losses.add(
        "main_thread_ended",
        sum(|process| process.counts.main_thread_ended.into()),
        "the process's main thread ended while others went on, and with it probes: what came after was not seen, or not all of it; use --attach-mode multi or session, while nobody else traces the same libraries",
    );
    profile.losses.add(
        "probes_failed",
        sum(|process| process.counts.late_errors),
        "times no probe could be set on code that the process had loaded: its allocations there are missing",
    );
    profile.losses.add(
        "python_objects_copied",
        sum(|process| process.python_copies),
        "places in the Python interpreter allocate or free objects by copies that the compiler has made of the functions with probes: objects that are made there are not seen, and some that are freed there are shown as in use; to see all, start Python with PYTHONMALLOC=malloc in its environment",
    );
    profile.losses.add(
        "growth_unseen_bytes",
        recording.unseen_growth,
        "bytes that the process grew by while no probe was hit: it got them by functions that memtrace does not know; `memtrace doctor -p PID` says which have probes, and --alloc and --free name others",
    );
    profile.losses.add(
        "functions_left_out",
        sum(|process| process.counts.functions_left_out),
        "allocator functions did not fit into the kernel program's lists: an allocation of which one calls another may count twice, or the frame of an operator new be shown",
    );
    let in_flight = || processes.iter().flat_map(|process| &process.books.in_flight);
    let never_returned = in_flight().filter(|call| call.threshold != 0).count() as u64;
    profile.losses.add("calls_unfinished", never_returned + recording.calls_cut_off, "sampled calls had not returned at the end, or never did (an exception, a longjmp, the end of a thread): nothing was recorded for them");
    profile.losses.add(
        "books_unbalanced",
        counts.unbalanced,
        "stacks whose totals are not what their live blocks add up to: this is a bug in memtrace, please report it",
    );
    let (pauses, paused) = recording.pauses;
    profile.losses.add(
        "pauses_milliseconds",
        if pauses == 0 { 0 } else { (paused.as_millis() as u64).max(1) },
        "milliseconds in which probes were switched off: nothing allocated or freed then was seen",
    );
    let blocks = || processes.iter().flat_map(|process| &process.books.live);
    let uncertain = blocks().filter(|block| block.time_ns < recording.last_pause_ns).count() as u64;
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
        recording.unwind.mappings_left_out + sum(|process| process.counts.unwind_errors),
        "executable mappings, or changes of them, could not be given to the kernel program: stacks may end there",
    );
    profile.losses.add(
        "processes_missed",
        recording.newcomers.missed,
        "processes that were to be recorded had ended, or could not be opened, before their probes were set: what they allocated is missing",
    );
    profile.losses.add(
        "processes_unseen",
        recording.newcomers.unseen,
        "processes of this machine executed a program, or were created by recorded ones, and had ended before it could be seen whether they match what was asked for: if they do, what they allocated is missing",
    );
    // In the profile of one process only its own counts.
    let others = if processes.len() == recording.processes.len() {
        recording.without_samples
    } else {
        WithoutSamples::default()
    };
    let lateness = others.lateness.as_micros() as u64 + sum(|process| process.late.as_micros() as u64);
    profile.losses.add(
        "processes_late",
        others.late + sum(|process| (!process.late.is_zero()).into()),
        "processes were noticed when they had begun, and ran for a moment before their probes were set: what they allocated until then is missing, and so are its frees",
    );
    profile.losses.add(
        "processes_late_milliseconds",
        lateness.div_ceil(1000),
        "milliseconds that these processes ran in all before their probes were set",
    );
    profile.losses.add(
        "children_unmatched",
        recording.newcomers.unwanted,
        "processes that recorded ones have created do not match what was asked for, and were not recorded",
    );
}

fn comments(recording: &Recording, processes: &[Process], interval: u64) -> Vec<String> {
    let counter = |counter| recording.counters.get(counter);
    let mut comments = vec![
        format!("memtrace {} (kernel program {})", env!("CARGO_PKG_VERSION"), &object::source_digest()[..16]),
        described(processes),
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
    ];
    if processes.len() < recording.processes.len() {
        let all = recording.processes.len();
        comments.push(format!("calls, losses and costs are those of all {all} processes of the recording"));
    }
    comments
}

/// The processes in a line.
fn described(processes: &[Process]) -> String {
    /// How many are named.
    const NAMED: usize = 10;
    let named = processes.iter().take(NAMED).map(|process| {
        let Target { pid, comm, .. } = &process.target;
        format!("{pid} ({comm})")
    });
    let named = named.collect::<Vec<_>>().join(", ");
    match processes.len() {
        1 => format!("process {named}"),
        0..=NAMED => format!("processes {named}"),
        more => format!("processes {named} and {} more", more - NAMED),
    }
}
