//! What is compared. A further case is a further row.

use super::tracer::{CALLS, CALLS_AND_RETURNS, Place, Tracer};
use crate::probe::Link;

/// One line of the table.
pub(crate) struct Case {
    /// Its name, in the table and on the command line.
    pub(crate) name: &'static str,
    /// What is attached to the target while it is measured.
    pub(crate) tracer: Tracer,
}

/// The case that all others are compared with.
pub(crate) const BARE: &str = "bare";

/// The two cases that cost the least that probes on both functions can: the floor of whatever holds its
/// probes by perf events, and that of links with many probes.
pub(crate) const PERF_FLOOR: &str = "floor: empty probes, perf events";
pub(crate) const MULTI_FLOOR: &str = "floor: empty probes, multi link";

/// The same with an empty return probe on malloc: the least that probes cost which see every return.
pub(crate) const PERF_RETURN_FLOOR: &str = "floor: and on returns, perf events";
pub(crate) const MULTI_RETURN_FLOOR: &str = "floor: and on returns, multi link";

/// The cases that others are compared with; always measured.
pub(crate) const REFERENCES: [&str; 5] =
    [BARE, PERF_FLOOR, MULTI_FLOOR, PERF_RETURN_FLOOR, MULTI_RETURN_FLOOR];

/// Cases that goals speak of.
pub(crate) const SESSION: &str = "memtrace session, 512KiB";
pub(crate) const MULTI: &str = "memtrace multi, 512KiB";
pub(crate) const PERF: &str = "memtrace perf, 512KiB";
pub(crate) const NAIVE: &str = "naive: entry, return, stack each time";

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case { name: BARE, tracer: Tracer::None },
    Case { name: PERF_FLOOR, tracer: Tracer::Empty(Place::Good, Link::Perf, CALLS) },
    Case { name: MULTI_FLOOR, tracer: Tracer::Empty(Place::Good, Link::Multi, CALLS) },
    Case { name: PERF_RETURN_FLOOR, tracer: Tracer::Empty(Place::Good, Link::Perf, CALLS_AND_RETURNS) },
    Case { name: MULTI_RETURN_FLOOR, tracer: Tracer::Empty(Place::Good, Link::Multi, CALLS_AND_RETURNS) },
    Case { name: SESSION, tracer: memtrace(&["--attach-mode=session", "-s=512KiB"]) },
    Case { name: MULTI, tracer: memtrace(&["--attach-mode=multi", "-s=512KiB"]) },
    Case { name: PERF, tracer: memtrace(&["--attach-mode=perf", "-s=512KiB"]) },
    Case { name: "memtrace session, 4KiB", tracer: memtrace(&["--attach-mode=session", "-s=4KiB"]) },
    Case { name: "memtrace multi, 4KiB", tracer: memtrace(&["--attach-mode=multi", "-s=4KiB"]) },
    Case { name: "memtrace perf, 4KiB", tracer: memtrace(&["--attach-mode=perf", "-s=4KiB"]) },
    Case { name: "memtrace session, 1", tracer: memtrace(&["--attach-mode=session", "-s=1"]) },
    Case { name: "memtrace multi, 1", tracer: memtrace(&["--attach-mode=multi", "-s=1"]) },
    Case { name: "memtrace perf, 1", tracer: memtrace(&["--attach-mode=perf", "-s=1"]) },
    Case { name: "empty probes, first instructions", tracer: Tracer::Empty(Place::Entry, Link::Perf, CALLS) },
    Case { name: NAIVE, tracer: Tracer::Naive },
    Case {
        name: "bpftrace, the same job",
        tracer: Tracer::Attached { program: "bpftrace", arguments: BPFTRACE, options: &[] },
    },
    Case {
        name: "heaptrack (in the process)",
        tracer: Tracer::Starting {
            program: "heaptrack",
            arguments: &["--output", "{directory}/heaptrack.{round}"],
        },
    },
];

/// `memtrace record` with `options`, attached to the target.
pub(super) const fn memtrace(options: &'static [&'static str]) -> Tracer {
    Tracer::Attached {
        program: "{memtrace}",
        arguments: &["record", "-p", "{pid}", "-o", "{directory}/profile.pb.gz"],
        options,
    }
}

/// What [`NAIVE`] does, and the totals of each stack besides, in bpftrace's language. Every probe is at a first
/// instruction.
/// bpftrace may set uprobes in every process, whatever `-p` says, so the program asks for the process, too.
const BPFTRACE: &[&str] = &[
    "-p",
    "{pid}",
    "-e",
    "uprobe:{libc}:malloc /pid == {pid}/ { @size[tid] = arg0; }
     uretprobe:{libc}:malloc /pid == {pid} && @size[tid]/ {
         @live_size[retval] = @size[tid];
         @live_stack[retval] = ustack;
         @allocated[ustack] = sum(@size[tid]);
         delete(@size[tid]);
     }
     uprobe:{libc}:free /pid == {pid} && @live_size[arg0]/ {
         @freed[@live_stack[arg0]] = sum(@live_size[arg0]);
         delete(@live_size[arg0]);
         delete(@live_stack[arg0]);
     }",
];
