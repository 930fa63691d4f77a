//! Lifetimes for programs, described in `docs/events.md`. That document and [`SCHEMA`] change together.

use std::collections::HashSet;
use std::io::{self, Write};

use serde::Serialize;

use super::sums::rounded;
use super::{Amount, Counts, Histogram, Lifetimes, Loss, Stack, Sums};

/// The name of the layout. Its number goes up when readers of the old layout would be misled; new fields
/// alone do not change it.
pub const SCHEMA: &str = "memtrace-lifetimes/1";

#[derive(Serialize)]
struct Root<'a> {
    schema: &'static str,
    sample_interval: Option<u64>,
    sampled: bool,
    duration_ns: u64,
    temporary_within_ns: u64,
    complete: bool,
    total: JsonSums,
    stacks: Vec<JsonStack<'a>>,
    counts: JsonCounts<'a>,
    losses: Option<&'a [Loss]>,
}

#[derive(Serialize)]
struct JsonStack<'a> {
    ids: Vec<String>,
    frames: Vec<JsonFrame<'a>>,
    #[serde(flatten)]
    sums: JsonSums,
}

#[derive(Serialize)]
struct JsonFrame<'a> {
    function: &'a str,
    place: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonSums {
    samples: u64,
    allocated: JsonAmount,
    freed: JsonAmount,
    live: JsonAmount,
    gone: JsonAmount,
    temporary: JsonAmount,
    short_lived: JsonAmount,
    freed_next: JsonAmount,
    oldest_age_ns: Option<u64>,
    lifetimes: Option<JsonLifetimes>,
}

#[derive(Serialize)]
struct JsonAmount {
    objects: i128,
    bytes: i128,
}

#[derive(Serialize)]
struct JsonLifetimes {
    min_ns: u64,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
    max_ns: u64,
    histogram: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    from_ns: u64,
    below_ns: Option<u64>,
    objects: i128,
}

#[derive(Serialize)]
struct JsonCounts<'a> {
    #[serde(flatten)]
    counts: &'a Counts,
    unnamed_stacks: usize,
}

impl From<Amount> for JsonAmount {
    fn from(amount: Amount) -> Self {
        Self { objects: amount.objects(), bytes: amount.bytes() }
    }
}

impl JsonLifetimes {
    fn of(histogram: &Histogram) -> Option<Self> {
        let (min_ns, max_ns) = histogram.range()?;
        let bar = |(octave, weight): (u32, u128)| Bar {
            from_ns: if octave == 0 { 0 } else { 1 << octave },
            below_ns: 1u64.checked_shl(octave + 1),
            objects: rounded(weight),
        };
        Some(Self {
            min_ns,
            p50_ns: histogram.percentile(50),
            p90_ns: histogram.percentile(90),
            p99_ns: histogram.percentile(99),
            max_ns,
            histogram: histogram.octaves().into_iter().map(bar).collect(),
        })
    }
}

impl Lifetimes {
    /// Writes one JSON object on one line. Stacks are ranked by temporary allocations, then by bytes; with `top`, those
    /// that are in neither list's first `top` are left out.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn json(&self, top: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let root = Root {
            schema: SCHEMA,
            sample_interval: self.sample_interval,
            sampled: self.is_sampled,
            duration_ns: self.last_ns - self.first_ns,
            temporary_within_ns: self.temporary_within_ns,
            complete: self.losses.is_some(),
            total: self.json_sums(&self.total),
            stacks: self.json_stacks(top.unwrap_or(usize::MAX)),
            counts: JsonCounts { counts: &self.counts, unnamed_stacks: self.unnamed() },
            losses: self.losses.as_deref(),
        };
        serde_json::to_writer(&mut *out, &root)?;
        out.write_all(b"\n")
    }

    fn json_stacks(&self, top: usize) -> Vec<JsonStack<'_>> {
        let both = self.by_temporary().into_iter().take(top).chain(self.by_bytes().into_iter().take(top));
        let mut seen = HashSet::new();
        let each = both.filter(|stack| seen.insert(std::ptr::from_ref::<Stack>(stack)));
        each.map(|stack| JsonStack {
            ids: stack.ids.iter().map(|id| format!("{id:016x}")).collect(),
            frames: self
                .frames(stack)
                .map(|(function, place)| JsonFrame {
                    function,
                    place: Some(place).filter(|place| !place.is_empty()),
                })
                .collect(),
            sums: self.json_sums(&stack.sums),
        })
        .collect()
    }

    fn json_sums(&self, sums: &Sums) -> JsonSums {
        JsonSums {
            samples: sums.samples,
            allocated: sums.allocated.into(),
            freed: sums.freed.into(),
            live: sums.live().into(),
            gone: sums.gone.into(),
            temporary: sums.temporary.into(),
            short_lived: sums.short_lived.into(),
            freed_next: sums.freed_next.into(),
            oldest_age_ns: self.oldest_age(sums),
            lifetimes: JsonLifetimes::of(&sums.lifetimes),
        }
    }
}
