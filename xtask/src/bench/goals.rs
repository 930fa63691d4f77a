//! What the figures should be. A goal that is not met is said in words and fails nothing: a figure of a
//! shared machine is no reason to stop anybody.

use serde::Serialize;

use super::cases::{
    MULTI, MULTI_FLOOR, MULTI_RETURN_FLOOR, NAIVE, PERF, PERF_FLOOR, PERF_RETURN_FLOOR, SESSION,
};
use super::own::Own;
use super::rows::{Row, times};
use super::walks::{self, Walks};

/// How a goal fares.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// What is asked for.
    goal: &'static str,
    /// What was found.
    found: Option<f64>,
    /// Whether that is enough; absent where it was not measured.
    met: Option<bool>,
    /// What probes that do nothing come to in the place of memtrace's, where that is known: no tracer that
    /// has such probes can do better.
    floor: Option<f64>,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Verdict {
    fn new(goal: &'static str, found: Option<f64>, bound: &Bound) -> Self {
        let met = found.map(|found| match bound {
            Bound::AtMost(most) => found <= *most,
            Bound::AtLeast(least) => found >= *least,
        });
        Self { goal, found, met, floor: None }
    }

    fn with_floor(self, floor: Option<f64>) -> Self {
        Self { floor, ..self }
    }

    /// The goal and the verdict as a line.
    pub(crate) fn line(&self) -> String {
        match (self.met, self.found) {
            (Some(met), Some(found)) => {
                let floor =
                    self.floor.map(|floor| format!(" (empty programs: {floor:.2})")).unwrap_or_default();
                format!("{}: {}: {found:.2}{floor}", if met { "met" } else { "NOT MET" }, self.goal)
            }
            _ => format!("not measured: {}", self.goal),
        }
    }
}

/// All goals.
pub(crate) fn judge(rows: &[Row], walks: Option<&Walks>, own: &Own) -> Vec<Verdict> {
    let ratio = |case, reference| times(rows, case, reference);
    let cpu = own.cpu.as_ref().and_then(|cpu| Some(cpu.figures.as_ref()?.share * 100.0));
    let resident = own.memory.as_ref().and_then(|memory| Some(memory.figures.as_ref()?.resident / 1048576.0));
    vec![
        Verdict::new(
            "session mode at 512KiB, as a multiple of an empty multi link, at most 1.15",
            ratio(SESSION, MULTI_FLOOR),
            &Bound::AtMost(1.15),
        ),
        Verdict::new(
            "multi mode at 512KiB, as a multiple of an empty multi link, at most 1.5",
            ratio(MULTI, MULTI_FLOOR),
            &Bound::AtMost(1.5),
        )
        .with_floor(ratio(MULTI_RETURN_FLOOR, MULTI_FLOOR)),
        Verdict::new(
            "perf mode at 512KiB, as a multiple of empty perf-event probes, at most 1.5",
            ratio(PERF, PERF_FLOOR),
            &Bound::AtMost(1.5),
        )
        .with_floor(ratio(PERF_RETURN_FLOOR, PERF_FLOOR)),
        Verdict::new(
            "a tracer with entry, return and stack each time at naive sites, as a multiple of session mode at \
             512KiB, at least 12",
            ratio(NAIVE, SESSION),
            &Bound::AtLeast(12.0),
        )
        .with_floor(ratio(NAIVE, MULTI_FLOOR)),
        Verdict::new(
            "memtrace's own CPU time at 200,000 sampled-out calls/s, in % of a core, at most 2",
            cpu,
            &Bound::AtMost(2.0),
        ),
        Verdict::new(
            "memtrace's resident memory with 100,000 live samples, in MiB, at most 64",
            resident,
            &Bound::AtMost(64.0),
        ),
        Verdict::new(
            "walking a stack without frame pointers, as a multiple of the kernel's walk by frame pointers, at \
             most 3",
            walks.and_then(|walks| walks.worst(walks::WITHOUT)),
            &Bound::AtMost(3.0),
        ),
        Verdict::new(
            "walking a stack with frame pointers by unwind tables, as a multiple of the same, at most 3",
            walks.and_then(|walks| walks.worst(walks::WITH)),
            &Bound::AtMost(3.0),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cases::BARE;
    use super::super::rows::tests::row;
    use super::*;

    #[test]
    fn goals_are_met_not_met_or_not_measured() {
        let rows = [
            row(BARE, &[0.0]),
            row(MULTI_FLOOR, &[100.0]),
            row(MULTI_RETURN_FLOOR, &[140.0]),
            row(SESSION, &[110.0]),
            row(MULTI, &[151.0]),
        ];
        let verdicts = judge(&rows, None, &Own::default());
        let lines: Vec<_> = verdicts.iter().map(Verdict::line).collect();
        assert!(lines[0].starts_with("met: session") && lines[0].ends_with("1.10"), "{}", lines[0]);
        assert!(
            lines[1].starts_with("NOT MET: multi") && lines[1].ends_with("1.51 (empty programs: 1.40)"),
            "{}",
            lines[1]
        );
        assert!(lines[2].starts_with("not measured: perf"), "{}", lines[2]);
    }
}
