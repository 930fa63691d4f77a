//! The short text at the end of a recording: totals, the top stacks, what was lost.

use std::collections::HashMap;
use std::fmt::Write;

use super::stack_line::{self, LEAST_ROOM, length, stack_line};
use super::{
    SummaryOptions, processes, units,
    values::{prefix, state, statistic},
};
use crate::profile::{Frame, Profile, Sample, ValueType, printable};

/// The summary of a profile: some lines of text, each with its newline.
///
/// Stacks are ranked by the profile's default value. Those that differ only in labels or in the
/// addresses within a line are one. A profile that does not pass [`Profile::check`] has no summary but a
/// line that says why.
pub fn summary(profile: &Profile, options: &SummaryOptions) -> String {
    if let Err(error) = profile.check() {
        return format!("There is no summary, for the profile's parts do not fit together: {error}\n");
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_totals(&mut out, profile);
    let _ = write_top(&mut out, profile, options);
    let _ = processes::write(&mut out, profile, options);
    let _ = write_children(&mut out, profile);
    let _ = write_walks(&mut out, profile);
    let _ = write_cost(&mut out, profile);
    let _ = write_losses(&mut out, profile, options);
    out
}

fn write_totals(out: &mut String, profile: &Profile) -> std::fmt::Result {
    if let Some(main) = profile.executable() {
        write!(out, "{}: ", printable(profile.mappings[main].name()))?;
    }
    writeln!(out, "recorded for {}, {}", units::seconds(profile.duration), units::sampling(profile))?;
    // What matters most comes first, and types are in the order of Go's profile: the last is the default.
    for (index, value_type) in profile.value_types.iter().enumerate().rev() {
        let Some(objects) = objects_of(profile, value_type) else { continue };
        let (amount, objects) = (sum(profile, index), sum(profile, objects));
        let (amount, objects) = (units::bytes(amount), units::counted(objects, "object"));
        writeln!(out, "  {:<10} {amount:>9} in {objects}", state(value_type))?;
    }
    Ok(())
}

fn write_top(out: &mut String, profile: &Profile, options: &SummaryOptions) -> std::fmt::Result {
    let index = profile.default_value;
    let value_type = &profile.value_types[index];
    let objects = objects_of(profile, value_type);
    let total = sum(profile, index);
    let amount = |value| if value_type.unit == "bytes" { units::bytes(value) } else { units::count(value) };

    let ranked = ranked(profile);
    if ranked.is_empty() {
        return writeln!(out, "\nNo stack has anything {}.", state(value_type));
    }
    let heading = format!("Top stacks by {} {}:", value_type.unit, state(value_type));
    writeln!(out, "\n{}", options.heading(&heading))?;
    let shown = &ranked[..ranked.len().min(options.top)];
    let rows: Vec<_> = shown
        .iter()
        .map(|entry| {
            let objects = objects.map(|_| units::counted(entry.objects, "object"));
            let error = match entry.variance.map(f64::sqrt) {
                Some(error) if error > 0.0 => format!(" ±{}", amount(error.round() as i128)),
                _ => String::new(),
            };
            (
                amount(entry.value) + &error,
                units::percent(entry.value, total),
                objects.unwrap_or_default(),
                entry.sample,
            )
        })
        .collect();
    let widest = rows.iter().map(|row| row.2.len()).max().unwrap_or(0);
    let widest_value = rows.iter().map(|row| length(&row.0)).max().unwrap_or(0).max(9);
    for (value, share, objects, sample) in rows {
        let head = format!("  {value:>widest_value$} {share:>6}  {objects:>widest$}  ");
        let room = options.width.saturating_sub(length(&head)).max(LEAST_ROOM);
        writeln!(out, "{head}{}", stack(profile, sample, room))?;
    }
    let rest = &ranked[shown.len()..];
    if !rest.is_empty() {
        let value: i128 = rest.iter().map(|entry| entry.value).sum();
        let share = units::percent(value, total);
        writeln!(
            out,
            "  {:>widest_value$} {share:>6}  in {}",
            amount(value),
            units::counted(rest.len() as i128, "more stack")
        )?;
    }
    Ok(())
}

/// That there were child processes, of which the profile has nothing.
fn write_children(out: &mut String, profile: &Profile) -> std::fmt::Result {
    match statistic(profile, "children_not_followed").unwrap_or_default() as i128 {
        0 => Ok(()),
        1 => writeln!(out, "\nNot in this profile: 1 child process."),
        children => writeln!(out, "\nNot in this profile: {} child processes.", units::count(children)),
    }
}

/// How many stacks are whole, and what they were walked by. Why others are not is among the losses.
fn write_walks(out: &mut String, profile: &Profile) -> std::fmt::Result {
    let walks = profile.statistics.iter().filter(|it| it.name.starts_with("walks_"));
    let all: f64 = walks.map(|it| it.value).sum();
    let (Some(whole), true) = (statistic(profile, "walks_complete"), all > 0.0) else { return Ok(()) };
    let share = match whole == all {
        true => "all to the thread's first function".to_owned(),
        false => format!("{:.2}% to the thread's first function", (whole / all * 100.0).min(99.99)),
    };
    write!(out, "\nStacks: {} walked, {share}", units::count(all as i128))?;
    if let (Some(tables), Some(size)) =
        (statistic(profile, "unwind_tables"), statistic(profile, "unwind_tables_size"))
    {
        let (tables, size) = (units::counted(tables as i128, "file"), units::bytes(size as i128));
        write!(out, "; unwind tables of {tables} take {size} in the kernel")?;
    }
    writeln!(out, ".")
}

/// What the recording has cost, where the profile knows.
fn write_cost(out: &mut String, profile: &Profile) -> std::fmt::Result {
    let statistic = |name| statistic(profile, name);
    let Some(probes) = statistic("target_time_in_probes") else { return Ok(()) };
    write!(out, "\nCost: the target spent about {} in probes", units::short_seconds(probes))?;
    if let Some(cpu) = statistic("target_cpu_time").filter(|cpu| *cpu > 0.0) {
        // The estimate can exceed what the kernel has charged, which it counts in ticks.
        let share = (probes / cpu).min(1.0) * 100.0;
        write!(out, " of its {} of CPU time ({share:.1}%)", units::short_seconds(cpu))?;
    }
    if let (Some(cpu), Some(resident)) = (statistic("memtrace_cpu_time"), statistic("memtrace_resident_peak"))
    {
        let (cpu, resident) = (units::short_seconds(cpu), units::bytes(resident as i128));
        write!(out, "; memtrace used {cpu} of CPU time and {resident}")?;
    }
    writeln!(out, ".")
}

fn write_losses(out: &mut String, profile: &Profile, options: &SummaryOptions) -> std::fmt::Result {
    if profile.losses.is_empty() {
        return writeln!(out, "\nNothing was lost.");
    }
    writeln!(out, "\n{}", options.warning("What was lost:"))?;
    for loss in profile.losses.iter() {
        writeln!(out, "  {} {}: {}", loss.name, units::count(loss.count.into()), loss.meaning)?;
    }
    Ok(())
}

/// A stack's sums; `sample` is any of the samples that have it.
struct Entry<'a> {
    sample: &'a Sample,
    value: i128,
    objects: i128,
    /// Of the value's estimate; `None` where it is not known.
    variance: Option<f64>,
}

/// The stacks with a default value above 0, the largest first; equal ones in the order of the profile.
fn ranked(profile: &Profile) -> Vec<Entry<'_>> {
    let index = profile.default_value;
    let objects = objects_of(profile, &profile.value_types[index]);
    let mut at: HashMap<Vec<_>, usize> = HashMap::new();
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for sample in &profile.samples {
        let key = profile.frames(sample).map(|frame| identity(&frame)).collect();
        let position = *at.entry(key).or_insert_with(|| {
            entries.push(Entry { sample, value: 0, objects: 0, variance: Some(0.0) });
            entries.len() - 1
        });
        let error = sample.standard_errors.get(index).copied().flatten();
        entries[position].variance =
            entries[position].variance.zip(error).map(|(sum, error)| sum + error * error);
        entries[position].value += i128::from(sample.values[index]);
        entries[position].objects += objects.map_or(0, |objects| i128::from(sample.values[objects]));
    }
    entries.retain(|entry| entry.value > 0);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.value));
    entries
}

/// What makes two frames the same: function and line, or the address where no function is known.
fn identity<'a>(frame: &Frame<'a>) -> (Option<(&'a str, &'a str)>, u64) {
    match frame.function {
        Some(function) if !function.name.is_empty() => {
            (Some((&function.name, &function.file)), frame.line.into())
        }
        _ => (None, frame.location.address),
    }
}

/// As many frames as fit into `room` characters, from the leaf.
fn stack(profile: &Profile, sample: &Sample, room: usize) -> String {
    let texts: Vec<String> = profile.frames(sample).map(|frame| frame_text(&frame)).collect();
    stack_line(&texts, room)
}

fn frame_text(frame: &Frame<'_>) -> String {
    stack_line::frame_text(&frame.name(), frame.file().map(|file| (file, frame.line)))
}

/// The value that counts what `value_type` weighs: for `inuse_space` in bytes, `inuse_objects`.
fn objects_of(profile: &Profile, value_type: &ValueType) -> Option<usize> {
    let counts = |other: &ValueType| other.unit == "count" && prefix(other) == prefix(value_type);
    (value_type.unit == "bytes").then(|| profile.value_types.iter().position(counts)).flatten()
}

fn sum(profile: &Profile, index: usize) -> i128 {
    profile.samples.iter().map(|sample| i128::from(sample.values[index])).sum()
}

#[cfg(test)]
mod tests;
