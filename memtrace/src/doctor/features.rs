//! What the kernel does for memtrace when it is asked to.

use std::io;

use aya_obj::generated::bpf_map_type;

use super::{
    check::Check,
    kernel, privileges,
    trial::{self, Kind, TrialError},
};
use crate::kernel::{Kernel, LoadError, Newcomers, Settings, Watch, sys};

/// What was tried.
pub(super) struct Features {
    pub(super) checks: Vec<Check>,
    /// The number of the `uprobe` PMU, if probes through it work.
    pub(super) working_pmu: Option<u32>,
}

impl Features {
    /// Tries everything. Takes up to a second, all of it in waiting for the kernel's grace periods.
    pub(super) fn probe() -> Self {
        let (pmu_check, pmu) = uprobe_pmu();
        let mut checks = vec![map(), ring_buffer(), pmu_check];
        let perf = perf_probe(pmu);
        let working_pmu = pmu.filter(|_| perf.is_ok());
        checks.push(perf);
        checks.push(multi());
        checks.push(session());
        checks.extend(kernel_program());
        Self { checks, working_pmu }
    }
}

/// What to do about an error number, where the reason is not the kernel's age.
fn remedy(errno: Option<i32>, otherwise: &str) -> String {
    match errno {
        Some(libc::EPERM | libc::EACCES) => privileges::remedy(),
        Some(libc::ENOSYS) => {
            "use a kernel built with CONFIG_BPF_SYSCALL and CONFIG_PERF_EVENTS, and in a container a seccomp profile \
             that allows bpf(2) and perf_event_open(2)"
                .to_owned()
        }
        Some(libc::ENOMEM) => {
            "raise the memory limit of the cgroup, or `ulimit -l` before Linux 5.11".to_owned()
        }
        _ => otherwise.to_owned(),
    }
}

fn map() -> Check {
    let check = Check::required("bpf_map", "bpf(2): a map", "everything that memtrace keeps in the kernel");
    match sys::create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY, 4, 8, 1) {
        Ok(_) => check.ok("created"),
        Err(error) => check.failed(&error, |errno| remedy(errno, NEWER_KERNEL)),
    }
}

const NEWER_KERNEL: &str = "boot Linux 5.15 or newer, as built by a large distribution";

fn ring_buffer() -> Check {
    let check = Check::required("ring_buffer", "ring buffer", "hearing of new stacks and new code");
    // At least one page, whatever its size.
    match sys::create_map(bpf_map_type::BPF_MAP_TYPE_RINGBUF, 0, 0, 1 << 16) {
        Ok(_) => check.ok("created"),
        Err(error) => check.failed(&error, |errno| remedy(errno, NEWER_KERNEL)),
    }
}

fn uprobe_pmu() -> (Check, Option<u32>) {
    let check = Check::required("uprobe_pmu", "uprobe PMU", "setting probes as perf events");
    match sys::uprobe_pmu() {
        Ok(number) => (check.ok(format!("perf event type {number}")), Some(number)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "mount /sys; otherwise boot a kernel built with CONFIG_UPROBE_EVENTS=y";
            (check.missing(format!("there is no {}", sys::UPROBE_PMU), remedy), None)
        }
        Err(error) => (check.failed(&error, |_| "make /sys readable".to_owned()), None),
    }
}

/// What a [`trial::on_ourselves`] says when all is well.
const HIT: &str = "set on memtrace itself, hit, cookie passed";

fn tried(check: Check, result: Result<(), TrialError>, hit: &str, otherwise: &str) -> Check {
    match result {
        Ok(()) => check.ok(hit),
        Err(error @ TrialError::Place(_)) => check.failed(&error, |_| kernel::MOUNT_PROC.to_owned()),
        Err(error) => check.failed(&error, |errno| remedy(errno, otherwise)),
    }
}

fn perf_probe(pmu: Option<u32>) -> Check {
    let check =
        Check::required("uprobe_perf_link", "uprobe by perf event", "setting probes, one for each function");
    match pmu {
        Some(pmu) => tried(check, trial::on_ourselves(Kind::Perf(pmu)), HIT, NEWER_KERNEL),
        None => check.blocked("impossible without the uprobe PMU"),
    }
}

fn multi() -> Check {
    let check = Check::useful(
        "uprobe_multi",
        "uprobe_multi link",
        "setting all probes at once",
        "memtrace sets each probe as a perf event of its own: slower to set and to take off",
    );
    tried(check, trial::on_ourselves(Kind::Multi), HIT, "for setting probes at once: boot Linux 6.6 or newer")
}

fn session() -> Check {
    let check = Check::useful(
        "uprobe_session",
        "uprobe session link",
        "sparing calls that are not sampled the return probe",
        "every call of an allocation function passes a return probe: about 1.5 times the cost",
    );
    let hit = "set on memtrace itself, hit at entry and return, cookie passed";
    tried(check, trial::on_ourselves(Kind::Session), hit, "for the cheapest probes: boot Linux 6.13 or newer")
}

/// The real thing, with the limits that `record` uses.
fn kernel_program() -> [Check; 2] {
    let program = Check::required("kernel_program", "memtrace's kernel program", "recording");
    let tracepoint = Check::required(
        "exec_tracepoint",
        "BTF tracepoint",
        "noticing new processes, and that one executes another program (sched_process_exec, task_newtask, page_fault_user)",
    );
    let newcomers = Newcomers { children: true, all: true };
    let settings = Settings { newcomers, ..Settings::new(512 << 10) };
    let untried = "cannot be tried without the kernel program";
    let mut kernel = match Kernel::load(&settings) {
        Ok(kernel) => kernel,
        // What the error says is said by other checks.
        Err(LoadError::NotPermitted) => {
            let error = io::Error::from(io::ErrorKind::PermissionDenied);
            return [program.failed(&error, |_| privileges::remedy()), tracepoint.unknown(untried)];
        }
        Err(LoadError::NoBtf(_)) => {
            return [program.blocked("impossible without type information"), tracepoint.unknown(untried)];
        }
        Err(LoadError::Namespace(_)) => {
            return [program.blocked("impossible without /proc"), tracepoint.unknown(untried)];
        }
        Err(error) => {
            return [program.failed(&error, |errno| remedy(errno, REPORT)), tracepoint.unknown(untried)];
        }
    };
    let tracepoint = match kernel.watch(std::process::id(), Watch::default()) {
        Ok(()) => tracepoint.ok("sched_process_exec and others attached"),
        Err(error) => tracepoint.failed(&error, |errno| remedy(errno, REPORT)),
    };
    [program.ok("loaded: the verifier accepts all of it"), tracepoint]
}

const REPORT: &str = "on Linux 5.15 or newer this is a bug of memtrace: report it, with the output of `memtrace doctor --json`";
