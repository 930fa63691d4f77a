//! Medians and the quarters around them. Nothing here is a mean: one figure that something has disturbed
//! must not move the result.

use serde::Serialize;

/// The middle of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Middle {
    /// A quarter of the figures lies below.
    pub(crate) lower_quartile: f64,
    pub(crate) median: f64,
    /// A quarter of the figures lies above.
    pub(crate) upper_quartile: f64,
}

impl Middle {
    /// That of `values`; none of an empty list.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            lower_quartile: quantile(values, 0.25)?,
            median: quantile(values, 0.5)?,
            upper_quartile: quantile(values, 0.75)?,
        })
    }
}

/// The value below which half of `values` lie; none of an empty list.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which `part` (0 to 1) of `values` lie, interpolated; none of an empty list.
fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), Some(2.0));
        assert_eq!(quantile(&[7.0], 0.75), Some(7.0));
        assert_eq!(Middle::of(&[]), None);
    }
}
