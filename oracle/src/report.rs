//! Figures as text.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use memtrace_common::StackEnd;

use crate::figures::Figures;

/// The lines between which a file has the tables.
const BEGIN: &str = "<!-- made by `cargo xtask unwinding --write`: begin -->";
const END: &str = "<!-- end -->";

/// The tables, as Markdown.
pub(crate) fn tables(all: &[Figures]) -> String {
    format!("{}\n{}\n{}", walks(all), comparisons(all), differences(all))
}

/// How walks ended, and what they took.
fn walks(all: &[Figures]) -> String {
    let mut text = String::from(
        "| program | time | samples | stacks | complete | no mapping | no table | bad read | unsupported | too deep | \
         frames, mean (most) | tables | loaded in (from cache) |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for figures in all {
        let (tables, bytes, time) = figures.tables;
        row(
            &mut text,
            &[
                figures.name.clone(),
                format!("{:.1} s", figures.time.as_secs_f64()),
                figures.samples().to_string(),
                figures.stacks.to_string(),
                percent(figures.complete()),
                figures.ended(StackEnd::NoMapping).to_string(),
                figures.ended(StackEnd::NoTable).to_string(),
                figures.ended(StackEnd::Unreadable).to_string(),
                figures.ended(StackEnd::Unsupported).to_string(),
                (figures.ended(StackEnd::TooDeep) + figures.ended(StackEnd::Truncated)).to_string(),
                format!(
                    "{:.1} ({})",
                    figures.frames as f64 / figures.verdicts.compared().max(1) as f64,
                    figures.deepest
                ),
                format!("{tables}, {:.2} MiB", bytes as f64 / f64::from(1 << 20)),
                format!("{:.0} ms ({})", time.as_secs_f64() * 1e3, figures.tables_from_cache),
            ],
        );
    }
    text
}

/// What came of comparisons with framehop.
fn comparisons(all: &[Figures]) -> String {
    let mut text = String::from(
        "| program | compared | equal | copy too short | both end early | different | \
         not compared | from wrong registers: equal |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let counts = |figures: &Figures| {
        let verdicts = &figures.verdicts;
        [
            verdicts.compared(),
            verdicts.equal,
            verdicts.copy_too_short,
            verdicts.both_end_early,
            verdicts.disagreements(),
            figures.lost,
            verdicts.controls_equal,
            verdicts.controls,
        ]
    };
    let mut sums = [0; 8];
    for figures in all {
        let counts = counts(figures);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        counted(&mut text, &figures.name, counts);
    }
    counted(&mut text, "all", sums);
    text
}

fn counted(text: &mut String, name: &str, counts: [u64; 8]) {
    let [counts @ .., equal, controls] = counts;
    let mut cells = vec![name.to_owned()];
    cells.extend(counts.map(|count| count.to_string()));
    cells.push(format!("{equal} of {controls}"));
    row(text, &cells);
}

/// Every kind of difference.
fn differences(all: &[Figures]) -> String {
    if all.iter().all(|figures| figures.verdicts.disagreements() == 0) {
        return "No stack was different.\n".to_owned();
    }
    let mut text = String::from("| program | different | behind which frame, and how |\n|---|--:|---|\n");
    for figures in all {
        for (kind, (count, _)) in &figures.verdicts.different {
            row(&mut text, &[figures.name.clone(), count.to_string(), kind.clone()]);
        }
    }
    text
}

fn row(text: &mut String, cells: &[String]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// Rounded down: what is not all is never shown as 100 %.
fn percent(share: f64) -> String {
    format!("{:.3} %", (share * 1e5).floor() / 1e3)
}

/// One stack for each kind of difference, in full, for whoever looks into it.
pub(crate) fn examples(all: &[Figures]) -> String {
    let mut text = String::new();
    for figures in all {
        for (kind, (_, example)) in &figures.verdicts.different {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{}: {kind}\n  {example}", figures.name);
        }
    }
    text
}

/// Replaces what a file has between the two lines.
///
/// # Errors
/// When it does not have them, or cannot be written.
pub(crate) fn write(path: &Path, all: &[Figures]) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = replaced(&text, &tables(all))
        .with_context(|| format!("{} lacks the lines `{BEGIN}` and `{END}`", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::figures;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(1.0), "100.000 %");
        assert_eq!(percent(0.999_999), "99.999 %");
    }

    #[test]
    fn every_program_has_a_row_of_as_many_cells_as_the_head() {
        let all = [figures(1990, 10)];
        for table in [walks(&all), comparisons(&all)] {
            let cells: Vec<_> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.len() >= 3 && cells.iter().all(|count| *count == cells[0]), "{table}");
        }
        assert!(walks(&all).contains("| program | 0.0 s | 2000 | 0 | 99.500 % | 0 | 0 | 10 | 0 | 0 |"));
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert_eq!(replaced("no marks", "new\n"), None);
    }
}
