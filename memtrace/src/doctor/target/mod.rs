//! One process.

mod checks;
mod functions;

use std::{path::PathBuf, time::Duration};

use procfs::process::Process;
use serde::Serialize;

use super::check::Check;
use crate::{
    allocator::{Discovery, LookupOrder},
    attach::TracedFunction,
    symbolize::{AddressSpace, Modules},
    target::Target,
};

pub(super) use functions::demangled;
pub use functions::{FileReport, FunctionReport};

/// What a process allows.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// Its id.
    pub pid: u32,
    /// Its name. Empty where it may not be read.
    pub comm: String,
    /// The path of its executable, as the process sees it.
    pub executable: Option<PathBuf>,
    /// The details.
    pub checks: Vec<Check>,
    /// How it is known which function is called where several files define it.
    pub lookup: LookupOrder,
    /// The files that have allocation functions, in the order in which symbols are looked up.
    pub files: Vec<FileReport>,
    /// For how long calls of these functions were counted, in seconds; `None` where they were not.
    pub counted_seconds: Option<f64>,
    /// What was looked at and left out.
    pub left_out: Vec<LeftOut>,
}

/// Something that was looked at and left out.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// The file, as the process sees it.
    pub path: PathBuf,
    /// The symbol, or `None` where it is the whole file.
    pub symbol: Option<String>,
    /// A clause that can follow "because".
    pub reason: String,
}

impl TargetReport {
    /// Looks at a process. `release` is that of the kernel; `pmu` is the number of the `uprobe` PMU, if
    /// probes through it work.
    pub(super) fn new(target: &Target, release: &str, pmu: Option<u32>) -> Self {
        let process = i32::try_from(target.pid).ok().and_then(|pid| Process::new(pid).ok());
        let executable = process.as_ref().and_then(|process| process.exe().ok());
        let mut report = Self {
            pid: target.pid,
            comm: target.comm.clone(),
            executable,
            checks: Vec::new(),
            lookup: LookupOrder::MapOrder,
            files: Vec::new(),
            counted_seconds: None,
            left_out: Vec::new(),
        };
        report.checks.push(checks::namespaces(process.as_ref()));
        report.checks.push(checks::seccomp(process.as_ref(), release));
        let modules = Modules::new();
        match AddressSpace::open(target.pid, &modules) {
            Ok(space) => report.look_inside(&space, process.as_ref(), pmu),
            Err(error) => report.checks.push(checks::unreadable(&error)),
        }
        report
    }

    /// Takes in how often functions were called in `time`.
    pub fn add_calls(&mut self, functions: &[(TracedFunction, u64)], time: Duration) {
        self.counted_seconds = Some(time.as_secs_f64());
        for report in self.files.iter_mut().flat_map(|file| &mut file.functions) {
            let counted = functions.iter().find(|(function, _)| function.found.address == report.address);
            report.calls = counted.map(|(_, calls)| *calls);
        }
    }

    fn look_inside(&mut self, space: &AddressSpace, process: Option<&Process>, pmu: Option<u32>) {
        let mut discovery = Discovery::default();
        discovery.update(space);
        let inside = functions::Inside::new(space, process, &discovery);
        self.lookup = inside.bindings.order();
        self.left_out = discovery
            .skipped
            .iter()
            .map(|skipped| LeftOut {
                path: skipped.path.clone(),
                symbol: skipped.function.clone(),
                reason: skipped.reason.clone(),
            })
            .collect();
        self.checks.push(checks::mappings(space));
        self.checks.extend(checks::program(inside.bindings.main()));
        self.checks.push(checks::allocator(&discovery, &inside, space));
        if !discovery.functions.is_empty() {
            self.checks.push(checks::probes(&discovery, pmu, self.pid));
        }
        self.checks.push(checks::loader(&discovery, inside.bindings.main()));
        self.files = inside.files;
    }
}
