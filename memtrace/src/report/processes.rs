//! How a profile of several processes parts into them.

use std::{cmp::Reverse, collections::HashMap, fmt::Write};

use super::{
    SummaryOptions, units,
    values::{state, statistic},
};
use crate::profile::{Profile, Sample, printable};

/// What one process has.
struct Row<'a> {
    pid: &'a str,
    comm: &'a str,
    /// In what place it is, if that is known: its pod or container.
    place: Option<&'a str>,
    value: i128,
}

fn label<'a>(sample: &'a Sample, key: &str) -> Option<&'a str> {
    sample.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// Writes the processes with the most of the profile's default value, if there are several.
pub(super) fn write(out: &mut String, profile: &Profile, options: &SummaryOptions) -> std::fmt::Result {
    let mut by_pid: HashMap<&str, Row<'_>> = HashMap::new();
    for sample in &profile.samples {
        let Some(pid) = label(sample, "pid") else { continue };
        let row = by_pid.entry(pid).or_insert_with(|| Row {
            pid,
            comm: label(sample, "comm").unwrap_or_default(),
            place: label(sample, "pod").or_else(|| label(sample, "container")),
            value: 0,
        });
        row.value += i128::from(sample.values[profile.default_value]);
    }
    let all = statistic(profile, "processes").unwrap_or_default().max(by_pid.len() as f64) as usize;
    if by_pid.len() < 2 {
        return Ok(());
    }
    let mut rows: Vec<_> = by_pid.into_values().collect();
    rows.sort_by_key(|row| (Reverse(row.value), row.pid));
    let total = rows.iter().map(|row| row.value).sum();
    let value_type = &profile.value_types[profile.default_value];
    let amount = |value| if value_type.unit == "bytes" { units::bytes(value) } else { units::count(value) };
    let heading = format!("Processes by {} {}:", value_type.unit, state(value_type));
    writeln!(out, "\n{}", options.heading(&heading))?;
    let shown = &rows[..rows.len().min(options.top)];
    let widest = shown.iter().map(|row| row.pid.len()).max().unwrap_or(0);
    for row in shown {
        let place = row.place.map(|place| format!(" in {}", printable(place))).unwrap_or_default();
        let (value, share) = (amount(row.value), units::percent(row.value, total));
        let (pid, comm) = (row.pid, printable(row.comm));
        writeln!(out, "  {value:>9} {share:>6}  {pid:>widest$} {comm}{place}")?;
    }
    let rest = &rows[shown.len()..];
    let without = all.saturating_sub(rows.len());
    if !rest.is_empty() {
        let value = rest.iter().map(|row| row.value).sum();
        let processes = units::count(rest.len() as i128);
        writeln!(out, "  {:>9} {:>6}  in {processes} more", amount(value), units::percent(value, total))?;
    }
    if without > 0 {
        writeln!(out, "  and {} without a sample", units::count(without as i128))?;
    }
    Ok(())
}
