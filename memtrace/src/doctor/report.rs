//! All that was found out.

use super::{check::Check, features::Features, kernel::KernelReport, privileges, target::TargetReport};
use crate::target::{Target, TargetError};

/// What can be traced here, and what is missing.
#[derive(Clone, Debug)]
pub struct Report {
    /// What this kernel is.
    pub kernel: KernelReport,
    /// What this process is allowed to do.
    pub privileges: Vec<Check>,
    /// What was tried.
    pub features: Vec<Check>,
    /// The process that was asked for.
    pub target: Option<TargetReport>,
}

impl Report {
    /// Looks at this machine and, if one is named, at a process.
    ///
    /// # Errors
    /// When there is no such process, or none that has a heap. That memtrace may not look at it is no
    /// error, but part of the report.
    pub fn new(pid: Option<u32>) -> Result<Self, TargetError> {
        let target = pid.map(|pid| readable(pid, Target::open(pid))).transpose()?;
        let Features { checks: features, working_pmu } = Features::probe();
        let kernel = KernelReport::new();
        let target = target.map(|target| TargetReport::new(&target, &kernel.release, working_pmu));
        Ok(Self { kernel, privileges: privileges::checks(), features, target })
    }

    /// Every check, in the order in which they are shown.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let target = self.target.iter().flat_map(|target| &target.checks);
        self.kernel.checks.iter().chain(&self.privileges).chain(&self.features).chain(target)
    }

    /// Whether nothing stands in the way of recording: here, and if a process was named, of that one.
    pub fn can_record(&self) -> bool {
        !self.checks().any(Check::prevents_recording)
    }

    /// What to do, in the order in which it is shown, each once: first what stands in the way of
    /// recording, then what would make it better.
    pub fn remedies(&self) -> Vec<&str> {
        let (first, second): (Vec<_>, Vec<_>) = self
            .checks()
            .filter_map(|check| Some((check, check.remedy.as_deref()?)))
            .partition(|(check, _)| check.prevents_recording());
        let mut remedies: Vec<&str> = Vec::new();
        for (_, remedy) in first.into_iter().chain(second) {
            if !remedies.contains(&remedy) {
                remedies.push(remedy);
            }
        }
        remedies
    }
}

/// A process that may not be looked at is still a process to report on.
fn readable(pid: u32, opened: Result<Target, TargetError>) -> Result<Target, TargetError> {
    match opened {
        Err(TargetError::NotPermitted(_)) => Ok(Target { pid, comm: String::new(), thread: pid }),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{TextOptions, check::Check};

    fn report(features: Vec<Check>) -> Report {
        Report { kernel: KernelReport::new(), privileges: Vec::new(), features, target: None }
    }

    fn required() -> Check {
        Check::required("a", "A", "recording")
    }

    fn useful() -> Check {
        Check::useful("b", "B", "speed", "it is slow")
    }

    #[test]
    fn what_is_required_decides() {
        let mut report = report(vec![required().ok(""), useful().missing("", "buy B")]);
        // What this machine lacks is not the question here.
        report.kernel.checks.clear();
        assert!(report.can_record());
        report.features.push(required().missing("gone", "buy A"));
        assert!(!report.can_record());
        assert_eq!(report.remedies(), ["buy A", "buy B"]);
        let text = report.text(&TextOptions::default());
        assert!(text.contains("  no    A  gone\n           used for recording\n"), "{text}");
        assert!(text.contains("  warn  B  used for speed\n           without it: it is slow\n"), "{text}");
        assert!(text.ends_with("Recording is not possible here: see what is marked `no` (1).\n"), "{text}");
    }

    #[test]
    fn what_a_target_chooses_cannot_move_the_cursor() {
        let text = report(vec![required().ok("lib\x1b[2J.so\nok")]).text(&TextOptions::default());
        assert!(text.contains(r"lib\u{1b}[2J.so\nok"), "{text}");
    }

    #[test]
    fn json_says_the_same() {
        let error = std::io::Error::from_raw_os_error(libc::EPERM);
        let mut out = Vec::new();
        let report = report(vec![required().failed(&error, |_| "buy A".to_owned())]);
        report.json(&mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["schema"], crate::doctor::SCHEMA);
        assert_eq!(value["can_record"], false);
        let check = &value["features"][0];
        assert_eq!((&check["outcome"], &check["errno"]), (&"failed".into(), &1.into()));
        assert_eq!(check["remedy"], "buy A");
    }
}
