//! The measured cases, and how they compare.
//!
//! A machine drifts by more than the differences that matter, so cases are compared within each round, whose
//! figures are seconds apart, and the median of the rounds' ratios is what is stated.

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
    /// CPU time per pair in nanoseconds.
    pub(crate) cpu: Middle,
    /// Time that passed per pair in nanoseconds, the median.
    pub(crate) wall: f64,
    /// The CPU time as a multiple of the untraced one.
    pub(crate) times_bare: Option<Middle>,
    /// What tracing adds, as a multiple of what two empty probes on perf events add.
    pub(crate) times_perf_floor: Option<Middle>,
    /// What tracing adds, as a multiple of what two empty probes in one link add.
    pub(crate) times_multi_floor: Option<Middle>,
}

impl Row {
    /// A case that has not been measured yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new(), summary: None, unmeasured: None }
    }

    /// The median of each round's CPU time.
    fn medians(&self) -> Vec<f64> {
        let median =
            |round: &Vec<Cost>| quantile::median(&round.iter().map(|cost| cost.cpu).collect::<Vec<_>>());
        self.rounds.iter().filter_map(median).collect()
    }
}

/// The case `name`, if it was measured.
fn measured<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name && row.unmeasured.is_none())
}

/// What the case `name` adds to the untraced pair, as a multiple of what the case `reference` adds.
pub(crate) fn times(rows: &[Row], name: &str, reference: &str) -> Option<Middle> {
    let medians = |name| measured(rows, name).map(Row::medians);
    let (bare, own, reference) = (medians(BARE)?, medians(name)?, medians(reference)?);
    let ratios: Vec<_> = bare
        .iter()
        .zip(own.iter().zip(&reference))
        .filter(|(bare, (_, reference))| reference > bare)
        .map(|(bare, (own, reference))| (own - bare) / (reference - bare))
        .collect();
    Middle::of(&ratios)
}

fn times_bare(rows: &[Row], name: &str) -> Option<Middle> {
    let (bare, own) = (measured(rows, BARE)?.medians(), measured(rows, name)?.medians());
    Middle::of(&own.iter().zip(&bare).map(|(own, bare)| own / bare).collect::<Vec<_>>())
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
    Some(Summary {
        cpu: Middle::of(&costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>())?,
        wall: quantile::median(&costs.iter().map(|cost| cost.wall).collect::<Vec<_>>())?,
        times_bare: times_bare(rows, row.name),
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
        assert_eq!(tool.times_multi_floor.unwrap().median, 1.5);
        assert_eq!(tool.times_bare.unwrap().median, 301.0);
        assert_eq!(tool.wall, 3010.0);
        assert_eq!(tool.times_perf_floor, None);
        assert_eq!(rows[0].summary.as_ref().unwrap().times_multi_floor, None);
    }

    #[test]
    fn cases_are_compared_within_their_rounds() {
        // The machine is three times slower in the second round, and again in the third.
        let rows = [
            row(BARE, &[0.0, 0.0, 0.0]),
            row(MULTI_FLOOR, &[100.0, 300.0, 900.0]),
            row("tool", &[120.0, 360.0, 1080.0]),
        ];
        let ratio = times(&rows, "tool", MULTI_FLOOR).unwrap();
        assert!((ratio.lower_quartile - 1.2).abs() < 1e-9 && (ratio.upper_quartile - 1.2).abs() < 1e-9);
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
