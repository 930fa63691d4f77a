//! The measured cases, and how they compare.
//!
//! Whatever disturbs a measurement makes it longer: another process that takes the caches or the core's other
//! thread, a clock that slows down. So cases are compared by their fastest figures, which are the least disturbed
//! ones (Chen and Revels, "Robust benchmarking in noisy environments", 2016). On a busy machine the medians
//! differ by more than the cases do.

use serde::Serialize;

use super::cases::{BARE, MULTI_FLOOR, PERF_FLOOR};
use super::quantile::{self, Middle};
use super::target::Cost;

/// One case.
#[derive(Serialize)]
pub(crate) struct Row {
    /// The case's name.
    pub(crate) name: &'static str,
    /// What every batch of every round took, in nanoseconds per pair.
    pub(crate) rounds: Vec<Vec<Cost>>,
    /// Absent when the case was not measured.
    pub(crate) summary: Option<Summary>,
    /// Why the case was not measured, or not to the end.
    pub(crate) unmeasured: Option<Unmeasured>,
}

/// Why a case has no figures.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unmeasured {
    /// A program that one may do without is not here.
    NotInstalled(&'static str),
    /// Something is wrong.
    Failed(String),
}

/// A case's figures in short.
#[derive(Serialize)]
pub(crate) struct Summary {
    /// CPU time per pair in nanoseconds, the fastest.
    pub(crate) fastest: f64,
    /// CPU time per pair in nanoseconds.
    pub(crate) cpu: Middle,
    /// Time that passed per pair in nanoseconds, the median.
    pub(crate) wall: f64,
    /// The fastest as a multiple of the untraced one.
    pub(crate) times_bare: Option<f64>,
    /// What tracing adds, as a multiple of what two empty probes on perf events add.
    pub(crate) times_perf_floor: Option<f64>,
    /// What tracing adds, as a multiple of what two empty probes in one link add.
    pub(crate) times_multi_floor: Option<f64>,
}

impl Row {
    /// A case that has not been measured yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new(), summary: None, unmeasured: None }
    }

    /// The least CPU time.
    pub(crate) fn fastest(&self) -> Option<f64> {
        self.rounds.iter().flatten().map(|cost| cost.cpu).min_by(f64::total_cmp)
    }
}

/// The case `name`, if it was measured.
fn measured<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name && row.unmeasured.is_none())
}

/// The least that the case `name` has taken, if it was measured.
fn fastest(rows: &[Row], name: &str) -> Option<f64> {
    measured(rows, name)?.fastest()
}

/// What the case `name` adds to the untraced pair, as a multiple of what the case `reference` adds.
pub(crate) fn times(rows: &[Row], name: &str, reference: &str) -> Option<f64> {
    let bare = fastest(rows, BARE)?;
    let (own, reference) = (fastest(rows, name)? - bare, fastest(rows, reference)? - bare);
    (reference > 0.0).then_some(own / reference)
}

/// Fills in each row's summary.
pub(crate) fn summarise(rows: &mut [Row]) {
    let summaries: Vec<_> = rows.iter().map(|row| summary(rows, row)).collect();
    for (row, summary) in rows.iter_mut().zip(summaries) {
        row.summary = summary;
    }
}

fn summary(rows: &[Row], row: &Row) -> Option<Summary> {
    if row.unmeasured.is_some() {
        return None;
    }
    let costs: Vec<_> = row.rounds.iter().flatten().collect();
    let traced = row.name != BARE;
    let own = row.fastest()?;
    Some(Summary {
        fastest: own,
        cpu: Middle::of(&costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>())?,
        wall: quantile::median(&costs.iter().map(|cost| cost.wall).collect::<Vec<_>>())?,
        times_bare: fastest(rows, BARE).map(|bare| own / bare),
        times_perf_floor: times(rows, row.name, PERF_FLOOR).filter(|_| traced),
        times_multi_floor: times(rows, row.name, MULTI_FLOOR).filter(|_| traced),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A case with one batch in each round.
    pub(crate) fn row(name: &'static str, rounds: &[f64]) -> Row {
        let round = |cpu: &f64| vec![Cost { cpu: *cpu, wall: cpu * 2.0 }];
        Row { rounds: rounds.iter().map(round).collect(), ..Row::new(name) }
    }

    #[test]
    fn ratios_to_the_floor_compare_what_is_added() {
        let mut rows = vec![row(BARE, &[5.0]), row(MULTI_FLOOR, &[1005.0]), row("tool", &[1505.0])];
        summarise(&mut rows);
        let tool = rows[2].summary.as_ref().unwrap();
        assert_eq!(tool.times_multi_floor, Some(1.5));
        assert_eq!(tool.times_bare, Some(301.0));
        assert_eq!(tool.wall, 3010.0);
        assert_eq!(tool.times_perf_floor, None);
        assert_eq!(rows[0].summary.as_ref().unwrap().times_multi_floor, None);
    }

    #[test]
    fn disturbed_figures_do_not_change_a_ratio() {
        let rows = [
            row(BARE, &[9.0, 5.0, 5.0]),
            row(MULTI_FLOOR, &[105.0, 305.0, 905.0]),
            row("tool", &[800.0, 360.0, 125.0]),
        ];
        assert_eq!(times(&rows, "tool", MULTI_FLOOR), Some(1.2));
    }

    #[test]
    fn a_case_that_failed_is_compared_with_nothing() {
        let mut failed = row("tool", &[10.0]);
        failed.unmeasured = Some(Unmeasured::Failed("no permission".to_owned()));
        let mut rows = vec![row(BARE, &[5.0]), row(PERF_FLOOR, &[9.0]), failed];
        summarise(&mut rows);
        assert!(rows[2].summary.is_none());
        assert_eq!(times(&rows, "tool", PERF_FLOOR), None);
    }
}
