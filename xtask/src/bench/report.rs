//! All that a run found, in its two forms: text and JSON.

use serde::Serialize;

use super::goals::Verdict;
use super::machine::Machine;
use super::own::Own;
use super::rows::{Row, Unmeasured};
use super::walks::Walks;

/// All that a run found.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Where and when.
    pub(crate) machine: Machine,
    /// Where the empty probes sit, in words.
    pub(crate) sites: Vec<String>,
    /// How many figures each measurement has.
    pub(crate) batches: u32,
    /// The cases, in the table's order.
    pub(crate) cases: Vec<Row>,
    /// What a frame of a stack costs.
    pub(crate) walks: Option<Walks>,
    /// What memtrace itself costs.
    pub(crate) own: Own,
    /// How the goals fare.
    pub(crate) goals: Vec<Verdict>,
}

impl Report {
    /// What failed: names of cases. That a tool is not installed is no failure.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        let failed = |row: &&Row| matches!(row.unmeasured, Some(Unmeasured::Failed(_)));
        self.cases
            .iter()
            .filter(failed)
            .map(|row| row.name)
            .chain(self.walks.iter().flat_map(Walks::failed))
            .chain(self.own.failed())
            .collect()
    }

    /// What a person reads.
    pub(crate) fn text(&self) -> String {
        let rounds = self.cases.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
        let mut text = self.table();
        text += "\nns of the target's CPU time per malloc+free pair; \"wall\": of time that passed, the median. x floor: what\n\
                 tracing adds, as a multiple of what empty probes at good sites on malloc and free add, held by perf events\n\
                 or by one multi link. Ratios are those of the fastest figures. \"and on returns\": with an empty return\n\
                 probe on malloc, too, which is the floor of the attach modes multi and perf.\n";
        text += &format!("{}\n", self.sites.join("\n"));
        text += &format!(
            "{rounds} rounds of {} batches, the cases in turn.\n{}\n\n",
            self.batches,
            self.machine.line()
        );
        if let Some(walks) = &self.walks {
            text += &format!("{}\n", walks.text());
        }
        for line in self.own.lines() {
            text += &format!("{line}\n");
        }
        text += "\n";
        for goal in &self.goals {
            text += &format!("{}\n", goal.line());
        }
        text
    }

    fn table(&self) -> String {
        let width = self.cases.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = format!(
            "{:width$}  {:>9}  {:>9}  {:>17}  {:>9}  {:>8}  {:>12}  {:>13}\n",
            "", "fastest", "median", "middle half", "wall", "x bare", "x perf floor", "x multi floor"
        );
        for row in &self.cases {
            if let Some(summary) = &row.summary {
                let half = format!("{:.1}-{:.1}", summary.cpu.lower_quartile, summary.cpu.upper_quartile);
                let times = |ratio: Option<f64>, digits| {
                    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.digits$}"))
                };
                text += &format!(
                    "{:width$}  {:>9.1}  {:>9.1}  {half:>17}  {:>9.1}  {:>8}  {:>12}  {:>13}\n",
                    row.name,
                    summary.fastest,
                    summary.cpu.median,
                    summary.wall,
                    times(summary.times_bare, 1),
                    times(summary.times_perf_floor, 2),
                    times(summary.times_multi_floor, 2)
                );
            } else {
                let reason = match &row.unmeasured {
                    Some(Unmeasured::NotInstalled(program)) => {
                        format!("not measured: {program} is not installed")
                    }
                    Some(Unmeasured::Failed(error)) => format!("failed: {}", error.replace('\n', "\n    ")),
                    None => "not measured".to_owned(),
                };
                text += &format!("{:width$}  {reason}\n", row.name);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::BARE;
    use super::super::rows::{summarise, tests::row};
    use super::*;

    fn report(cases: Vec<Row>) -> Report {
        let machine = Machine::default();
        let (sites, goals) = (Vec::new(), Vec::new());
        let mut report =
            Report { machine, sites, batches: 1, cases, walks: None, own: Own::default(), goals };
        summarise(&mut report.cases);
        report
    }

    #[test]
    fn a_failed_case_is_in_the_table_with_its_reason() {
        let mut failed = row("tool", &[]);
        failed.unmeasured = Some(Unmeasured::Failed("no permission".to_owned()));
        let report = report(vec![row(BARE, &[5.0]), failed]);
        assert_eq!(report.failed(), ["tool"]);
        let text = report.text();
        assert!(text.lines().any(|line| line.starts_with("tool") && line.ends_with("failed: no permission")));
    }

    #[test]
    fn a_tool_that_is_not_installed_is_no_failure() {
        let mut absent = row("tool", &[]);
        absent.unmeasured = Some(Unmeasured::NotInstalled("heaptrack"));
        let report = report(vec![row(BARE, &[5.0]), absent]);
        assert!(report.failed().is_empty());
        assert!(report.text().contains("heaptrack is not installed"));
    }
}
