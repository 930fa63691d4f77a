//! A profile by function, for people.

use std::fmt::{Result, Write};
use std::time::Duration;

use super::Top;
use crate::profile::printable;
use crate::report::stack_line::{LEAST_ROOM, cut, length};
use crate::report::{SummaryOptions, units};

impl Top {
    /// Some lines of text, each with its newline. `name` is the file's.
    pub fn text(&self, name: &str, options: &SummaryOptions) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_totals(&mut out, name);
        let _ = self.write_functions(&mut out, options);
        let _ = self.write_comments(&mut out, options);
        out
    }

    fn write_totals(&self, out: &mut String, name: &str) -> Result {
        write!(out, "{}: ", printable(name))?;
        if let Some(nanoseconds) = u64::try_from(self.duration_ns).ok().filter(|it| *it > 0) {
            write!(out, "recorded for {}, ", units::seconds(Duration::from_nanos(nanoseconds)))?;
        }
        writeln!(out, "{}", units::counted(self.samples as i128, "sample"))?;
        let widest = self.sample_types.iter().map(|it| length(&it.kind)).max().unwrap_or(0);
        for sample_type in &self.sample_types {
            let amount = amount(sample_type.total, &sample_type.unit);
            writeln!(out, "  {:<widest$}  {amount:>9}", printable(&sample_type.kind))?;
        }
        Ok(())
    }

    fn write_functions(&self, out: &mut String, options: &SummaryOptions) -> Result {
        let total = self.sample_types.iter().find(|it| it.kind == self.sample_type).map_or(0, |it| it.total);
        let kind = printable(&self.sample_type);
        if self.functions.is_empty() {
            return writeln!(out, "\nNo function has any {kind}.");
        }
        writeln!(out, "\n{}", options.heading(&format!("Top functions by {kind}:")))?;
        let shown = &self.functions[..self.functions.len().min(options.top)];
        let rows: Vec<_> =
            shown.iter().map(|it| (amount(it.flat, &self.unit), amount(it.cum, &self.unit), it)).collect();
        let widest = rows.iter().map(|row| length(&row.0).max(length(&row.1))).max().unwrap_or(0).max(9);
        writeln!(out, "  {:>widest$} {:>6}  {:>widest$} {:>6}  function", "flat", "", "cum", "")?;
        for (flat, cum, function) in rows {
            let (flat_share, cum_share) =
                (units::percent(function.flat, total), units::percent(function.cum, total));
            let head = format!("  {flat:>widest$} {flat_share:>6}  {cum:>widest$} {cum_share:>6}  ");
            let room = options.width.saturating_sub(length(&head)).max(LEAST_ROOM);
            writeln!(out, "{head}{}", cut(&printable(&function.name), room))?;
        }
        match self.functions.len() - shown.len() {
            0 => Ok(()),
            rest => writeln!(out, "  and {}", units::counted(rest as i128, "more function")),
        }
    }

    fn write_comments(&self, out: &mut String, options: &SummaryOptions) -> Result {
        if !self.comments.is_empty() {
            writeln!(out, "\n{}", options.heading("Comments:"))?;
            for comment in &self.comments {
                writeln!(out, "  {}", printable(comment))?;
            }
        }
        if !self.statistics.is_empty() {
            writeln!(out, "\n{}", options.heading("Statistics:"))?;
            for statistic in &self.statistics {
                let (name, unit) = (printable(&statistic.name), printable(&statistic.unit));
                writeln!(out, "  {name} {} {unit}", statistic.value)?;
            }
        }
        if !self.losses.is_empty() {
            writeln!(out, "\n{}", options.warning("What was lost:"))?;
            for loss in &self.losses {
                let (name, meaning) = (printable(&loss.name), printable(&loss.meaning));
                writeln!(out, "  {name} {}: {meaning}", units::count(loss.count.into()))?;
            }
        }
        Ok(())
    }
}

fn amount(value: i128, unit: &str) -> String {
    match unit {
        "bytes" => units::bytes(value),
        "count" => units::count(value),
        "nanoseconds" if value >= 0 => units::short_seconds(value as f64 / 1e9),
        unit => format!("{} {}", units::count(value), printable(unit)),
    }
}
