//! Lifetimes for people.

use std::fmt::{Result, Write};
use std::time::Duration;

use super::axis::Axis;
use super::{Amount, Histogram, Lifetimes, Stack, Sums};
use crate::profile::printable;
use crate::report::stack_line::{LEAST_ROOM, frame_text, length, stack_line};
use crate::report::{SummaryOptions, units};

impl Lifetimes {
    /// Some lines of text, each with its newline. `name` is the file's.
    pub fn text(&self, name: &str, options: &SummaryOptions) -> String {
        let mut out = String::new();
        let axis = Axis::of(&self.total.lifetimes);
        // Writing to a String cannot fail.
        let _ = self.write_totals(&mut out, name);
        let scale = axis.as_ref().map_or(String::new(), |axis| format!(" ({})", axis.explained()));
        let rankings = [("temporary allocations", self.by_temporary()), ("bytes allocated", self.by_bytes())];
        for (ranking, stacks) in rankings {
            // Of what there is none, the totals say so.
            if !stacks.is_empty() {
                let heading = options.heading(&format!("Top stacks by {ranking}{scale}:"));
                let _ = writeln!(out, "\n{heading}");
                let _ = self.write_table(&mut out, &stacks, axis.as_ref(), options);
            }
        }
        let _ = self.write_missing(&mut out, options);
        out
    }

    fn write_totals(&self, out: &mut String, name: &str) -> Result {
        let Sums { allocated, freed, gone, temporary, short_lived, freed_next, .. } = self.total;
        let live = self.total.live();
        let recorded = match (self.sample_interval, self.is_sampled) {
            (Some(interval), true) => {
                format!(", one sample per {} on average", units::bytes(interval.into()))
            }
            (None, true) => ", sampled".to_owned(),
            (Some(_), false) => ", every one recorded".to_owned(),
            (None, false) => String::new(),
        };
        writeln!(
            out,
            "{}: {}, {} over {}{recorded}",
            printable(name),
            units::counted(allocated.objects(), "allocation"),
            units::bytes(allocated.bytes()),
            span(self.last_ns - self.first_ns)
        )?;
        write!(out, "  {:<10} {}", "freed", share(freed, allocated))?;
        if let Some([p50, p90, p99]) = percentiles(&self.total.lifetimes) {
            write!(out, "; lived {p50}, {p90}, {p99} (p50, p90, p99)")?;
        }
        write!(out, "\n  {:<10} {}", "live", share(live, allocated))?;
        if let Some(age) = self.oldest_age(&self.total) {
            write!(out, "; the oldest for {}", span(age))?;
        }
        if !gone.is_zero() {
            write!(out, "\n  {:<10} {}; not live, lifetime unknown", "gone", share(gone, allocated))?;
        }
        writeln!(
            out,
            "\n  {:<10} {}: {} freed within {}, {} by their thread's next {}event",
            "temporary",
            share(temporary, allocated),
            units::count(short_lived.objects()),
            span(self.temporary_within_ns),
            units::count(freed_next.objects()),
            if self.is_sampled { "recorded " } else { "" },
        )
    }

    fn write_table(
        &self,
        out: &mut String,
        stacks: &[&Stack],
        axis: Option<&Axis>,
        options: &SummaryOptions,
    ) -> Result {
        row(
            out,
            [
                "temporary",
                "allocations",
                "bytes",
                "freed",
                "p50",
                "p90",
                "p99",
                "live",
                "live bytes",
                "oldest",
            ],
        )?;
        for stack in stacks.iter().take(options.top) {
            let sums = &stack.sums;
            let live = sums.live();
            let [p50, p90, p99] =
                percentiles(&sums.lifetimes).unwrap_or_else(|| [(); 3].map(|()| "-".to_owned()));
            row(
                out,
                [
                    &units::count(sums.temporary.objects()),
                    &units::count(sums.allocated.objects()),
                    &units::bytes(sums.allocated.bytes()),
                    &units::percent(sums.freed.objects(), sums.allocated.objects()),
                    &p50,
                    &p90,
                    &p99,
                    &(if live.is_zero() { "-".to_owned() } else { units::count(live.objects()) }),
                    &(if live.is_zero() { "-".to_owned() } else { units::bytes(live.bytes()) }),
                    &self.oldest_age(sums).map_or("-".to_owned(), span),
                ],
            )?;
            let head = axis.map_or("  ".to_owned(), |axis| format!("  {} ", axis.bars(&sums.lifetimes)));
            let room = options.width.saturating_sub(length(&head)).max(LEAST_ROOM);
            writeln!(out, "{head}{}", self.stack_text(stack, room))?;
        }
        let rest = stacks.len().saturating_sub(options.top);
        if rest > 0 {
            writeln!(out, "  and {}", units::counted(rest as i128, "more stack"))?;
        }
        Ok(())
    }

    fn stack_text(&self, stack: &Stack, room: usize) -> String {
        let frames = self.frames(stack);
        if frames.len() == 0 {
            // Whoever named the stacks did not come to it.
            return stack.ids.iter().map(|id| format!("stack {id:016x}")).collect();
        }
        let texts: Vec<String> = frames.map(|(name, place)| frame_text(name, file_and_line(place))).collect();
        stack_line(&texts, room)
    }

    /// What the reader must know to judge the numbers.
    fn write_missing(&self, out: &mut String, options: &SummaryOptions) -> Result {
        let counts = &self.counts;
        let mut notes: Vec<String> = Vec::new();
        // In the style of losses; the names are those in JSON.
        let mut note = |name: &str, count: u64, meaning: &str| {
            if count > 0 {
                notes.push(format!("{name} {}: {meaning}", units::count(count.into())));
            }
        };
        note("cut_lines", counts.cut_lines, "the last line was cut off");
        note("malformed_lines", counts.malformed_lines, "lines are not events");
        note("unknown_events", counts.unknown_events, "events are of a kind that this version does not know");
        note(
            "frees_without_allocation",
            counts.frees_without_allocation,
            "frees are in the file but not their allocations, which are counted nevertheless",
        );
        note(
            "allocations_without_free",
            counts.allocations_without_free,
            "allocations have no free in the file although their address was handed out again",
        );
        note(
            "live_over_limit",
            counts.live_over_limit,
            "allocations came when too many were live; the oldest may be older than shown",
        );
        note(
            "stacks_over_limit",
            counts.stacks_over_limit,
            "events are of more stacks than can be told apart, and are under [further stacks]",
        );
        if self.losses.is_some() {
            note("unnamed_stacks", self.unnamed() as u64, "stacks have no names in the file");
        }
        for loss in self.losses.iter().flatten() {
            let (name, meaning) = (printable(&loss.name), printable(&loss.meaning));
            notes.push(format!("{name} {}: {meaning}", units::count(loss.count.into())));
        }
        if self.losses.is_none() {
            notes.push(
                "The file has no end: memtrace was killed, or still writes. The end has the stacks' names and \
                 what was lost."
                    .to_owned(),
            );
        }
        if notes.is_empty() {
            writeln!(out, "\nNothing was lost.")?;
        } else {
            writeln!(out, "\n{}", options.warning("What is missing:"))?;
            notes.iter().try_for_each(|note| writeln!(out, "  {note}"))?;
        }
        if self.is_sampled {
            writeln!(
                out,
                "\nSampled: amounts are estimates. What a thread did between two recorded events is not known,"
            )?;
            writeln!(
                out,
                "so \"by their thread's next recorded event\" takes in some that lived on meanwhile."
            )?;
        }
        Ok(())
    }
}

/// A row of the table.
fn row(out: &mut String, cells: [&str; 10]) -> Result {
    const WIDTHS: [usize; 10] = [10, 11, 9, 6, 8, 8, 8, 8, 10, 10];
    write!(out, " ")?;
    for (cell, width) in cells.into_iter().zip(WIDTHS) {
        write!(out, " {cell:>width$}")?;
    }
    writeln!(out)
}

/// An amount and its share of all.
fn share(part: Amount, whole: Amount) -> String {
    format!(
        "{} ({}), {}",
        units::count(part.objects()),
        units::percent(part.objects(), whole.objects()),
        units::bytes(part.bytes())
    )
}

fn percentiles(lifetimes: &Histogram) -> Option<[String; 3]> {
    lifetimes.range()?;
    Some([50, 90, 99].map(|percent| lifetimes.percentile(percent).map_or_else(String::new, span)))
}

/// A time in nanoseconds with two digits or more: `812 ns`, `1.2 µs`, `30 ms`, `3 min 05 s`.
pub(super) fn span(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..10_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        1_000_000..10_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        100_000_000_000.. => units::seconds(Duration::from_nanos(nanoseconds)),
        _ => units::short_seconds(nanoseconds as f64 / 1e9),
    }
}

/// `/src/a.c:14` as a file and a line.
fn file_and_line(place: &str) -> Option<(&str, u32)> {
    if place.is_empty() {
        return None;
    }
    let split = place.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
    Some(split.unwrap_or((place, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let spans = [0, 812, 1_240, 15_400, 999_400, 1_240_000, 30_000_000, 12_540_000_000, 185_000_000_000];
        assert_eq!(
            spans.map(span),
            ["0 ns", "812 ns", "1.2 µs", "15 µs", "999 µs", "1.2 ms", "30 ms", "12.5 s", "3 min 05 s"]
        );
    }

    #[test]
    fn places_may_lack_a_line() {
        assert_eq!(file_and_line(""), None);
        assert_eq!(file_and_line("/a/b.c:14"), Some(("/a/b.c", 14)));
        assert_eq!(file_and_line("C:/b.c"), Some(("C:/b.c", 0)));
    }
}
