//! Where and when something was measured.

use std::fs;
use std::time::SystemTime;

use serde::Serialize;

/// A machine at a moment.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// When, in UTC.
    date: String,
    /// The kernel's release.
    kernel: String,
    /// The processor's name.
    processor: String,
    /// How many of them.
    processors: usize,
    /// How many processes ran or wanted to, on average over the last minute (proc_loadavg(5)).
    load: f64,
}

impl Machine {
    /// This one, now. What cannot be read is left empty: it is for the reader only.
    pub(crate) fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let name = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: name.unwrap_or_default().to_owned(),
            processors: processors.lines().filter(|line| line.starts_with("processor")).count(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// As a line.
    pub(crate) fn line(&self) -> String {
        let Self { date, kernel, processor, processors, load } = self;
        format!("{date}, Linux {kernel}, {processors} x {processor}, load average at the end {load}")
    }
}
