//! Histograms of one line.

use super::Histogram;
use super::sums::rounded;
use super::text::span;

/// A histogram has at most this many columns.
const COLUMNS: u32 = 24;

/// The range of lifetimes that all histograms of a report have in common, so that they can be compared.
pub(super) struct Axis {
    /// Powers of two: the first, and how many there are to a column.
    first: u32,
    per_column: u32,
    columns: u32,
}

impl Axis {
    pub(super) fn of(lifetimes: &Histogram) -> Option<Self> {
        let octaves = lifetimes.octaves();
        let (first, last) = (octaves.first()?.0, octaves.last()?.0);
        let count = last - first + 1;
        let per_column = count.div_ceil(COLUMNS);
        Some(Self { first, per_column, columns: count.div_ceil(per_column) })
    }

    pub(super) fn explained(&self) -> String {
        let least = if self.first == 0 { 0 } else { 1 << self.first };
        let end = self.first + self.columns * self.per_column;
        let end = 1u64.checked_shl(end).unwrap_or(u64::MAX);
        let factor = 1u64 << self.per_column;
        format!("lifetimes from {} to {}, a bar per factor of {factor}", span(least), span(end))
    }

    /// One character per column, as high as its share of the highest; what is not nothing is seen.
    pub(super) fn bars(&self, lifetimes: &Histogram) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let mut sums = vec![0u128; self.columns as usize];
        for (octave, weight) in lifetimes.octaves() {
            let column = (octave.saturating_sub(self.first) / self.per_column) as usize;
            sums[column] = sums[column].saturating_add(weight);
        }
        let highest = sums.iter().copied().max().unwrap_or(0);
        let bar = |sum: u128| match sum {
            0 => ' ',
            sum => {
                let height = (rounded(sum) as f64 / rounded(highest).max(1) as f64 * 8.0).ceil() as usize;
                BARS[height.clamp(1, 8) - 1]
            }
        };
        let bars: String = sums.into_iter().map(bar).collect();
        format!("│{bars}│")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_share_an_axis_and_small_ones_are_seen() {
        let mut all = Histogram::default();
        all.add(1 << 10, 1 << 16);
        all.add(1 << 13, 1000 << 16);
        let axis = Axis::of(&all).unwrap();
        assert_eq!(axis.bars(&all), "│▁  █│");
        assert_eq!(axis.bars(&Histogram::default()), "│    │");
        assert_eq!(axis.explained(), "lifetimes from 1.0 µs to 16 µs, a bar per factor of 2");
    }

    #[test]
    fn every_lifetime_has_its_column() {
        let mut all = Histogram::default();
        for shift in 0..64 {
            all.add(u64::MAX >> shift, 1 << 16);
        }
        let axis = Axis::of(&all).unwrap();
        let bars = axis.bars(&all);
        assert!(bars.chars().count() <= COLUMNS as usize + 2 && !bars.contains(' '), "{bars}");
        assert!(axis.explained().contains("0 ns"), "{}", axis.explained());
    }
}
