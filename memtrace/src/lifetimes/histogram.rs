//! A distribution of lifetimes.
//!
//! Sixteen buckets for each power of two, so that a quantile is right to 1/32 of itself. Only buckets with
//! something in them are kept: most stacks need a dozen of the thousand, and there may be many stacks. Counts
//! are weights in exact fractions; that and the sparseness is why none of the libraries for this was taken.

/// Buckets per power of two.
const STEPS: u64 = 16;
const STEPS_LOG2: u32 = STEPS.ilog2();

/// Weights by lifetime in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket and weight, in the order of buckets.
    buckets: Vec<(u16, u128)>,
    total: u128,
    /// The least and the greatest value, where there is one.
    range: Option<(u64, u64)>,
}

/// The bucket of a value. Below 16, each value has its own.
fn bucket(value: u64) -> u16 {
    if value < STEPS {
        return value as u16;
    }
    let exponent = value.ilog2();
    let step = (value >> (exponent - STEPS_LOG2)) % STEPS;
    (u64::from(exponent - STEPS_LOG2 + 1) * STEPS + step) as u16
}

/// The least value of a bucket, and how many values there are in it.
fn values(bucket: u16) -> (u64, u64) {
    let (octave, step) = (u64::from(bucket) / STEPS, u64::from(bucket) % STEPS);
    match octave {
        0 => (step, 1),
        octave => ((STEPS + step) << (octave - 1), 1 << (octave - 1)),
    }
}

impl Histogram {
    /// Adds a value.
    pub fn add(&mut self, value: u64, weight: u64) {
        self.add_to(bucket(value), weight.into());
        self.widen(value, value);
    }

    /// Adds all that is in another one.
    pub fn merge(&mut self, other: &Self) {
        for &(bucket, weight) in &other.buckets {
            self.add_to(bucket, weight);
        }
        if let Some((least, greatest)) = other.range {
            self.widen(least, greatest);
        }
    }

    fn add_to(&mut self, bucket: u16, weight: u128) {
        self.total = self.total.saturating_add(weight);
        match self.buckets.binary_search_by_key(&bucket, |it| it.0) {
            Ok(position) => {
                let sum = &mut self.buckets[position].1;
                *sum = sum.saturating_add(weight);
            }
            Err(position) => self.buckets.insert(position, (bucket, weight)),
        }
    }

    fn widen(&mut self, least: u64, greatest: u64) {
        let range = self.range.unwrap_or((least, greatest));
        self.range = Some((range.0.min(least), range.1.max(greatest)));
    }

    /// The least and the greatest value, exactly.
    pub fn range(&self) -> Option<(u64, u64)> {
        self.range
    }

    /// The value below or at which this many hundredths of the weight lie, right to 1/32 of itself.
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let (least, greatest) = self.range?;
        let wanted = self.total.saturating_mul(percent.into()).div_ceil(100);
        let mut sum: u128 = 0;
        for &(bucket, weight) in &self.buckets {
            sum = sum.saturating_add(weight);
            if sum >= wanted {
                let (first, count) = values(bucket);
                return Some((first + count / 2).clamp(least, greatest));
            }
        }
        Some(greatest)
    }

    /// The weights by power of two: `(n, w)` says that w is the weight of the values from 2^n to below 2^(n+1), and
    /// with n = 0 also of the value 0.
    pub fn octaves(&self) -> Vec<(u32, u128)> {
        let mut octaves: Vec<(u32, u128)> = Vec::new();
        for &(bucket, weight) in &self.buckets {
            let octave = values(bucket).0.max(1).ilog2();
            match octaves.last_mut() {
                Some(last) if last.0 == octave => last.1 = last.1.saturating_add(weight),
                _ => octaves.push((octave, weight)),
            }
        }
        octaves
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let last = bucket(u64::MAX);
        let mut next = 0u128;
        for bucket in 0..=last {
            let (first, count) = values(bucket);
            assert_eq!(u128::from(first), next, "{bucket}");
            assert_eq!(super::bucket(first), bucket);
            assert_eq!(super::bucket(first + (count - 1)), bucket);
            next = u128::from(first) + u128::from(count);
        }
        assert_eq!(next, 1 << 64);
    }

    #[test]
    fn octaves_are_powers_of_two() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 2, 3, 1000, 1023, 1024, u64::MAX] {
            histogram.add(value, 10);
        }
        assert_eq!(histogram.octaves(), [(0, 20), (1, 20), (9, 20), (10, 10), (63, 10)]);
        assert_eq!(histogram.range(), Some((0, u64::MAX)));
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(Histogram::default().percentile(50), None);
    }

    fn samples() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let value = (0..64u32, any::<u64>()).prop_map(|(shift, value)| value >> shift);
        proptest::collection::vec((value, 1..1u64 << 40), 1..200)
    }

    fn histogram(samples: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for &(value, weight) in samples {
            histogram.add(value, weight);
        }
        histogram
    }

    proptest! {
        #[test]
        fn percentiles_are_right_to_a_32nd(mut samples in samples(), percent in 0..=100u8) {
            let found = histogram(&samples).percentile(percent).unwrap();
            samples.sort_unstable();
            let total: u128 = samples.iter().map(|it| u128::from(it.1)).sum();
            let mut sum = 0;
            let exact = samples.iter().find(|it| {
                sum += u128::from(it.1);
                sum * 100 >= total * u128::from(percent)
            });
            let exact = exact.unwrap().0;
            prop_assert!(found.abs_diff(exact) <= exact / 32 + 1, "{found} instead of {exact}");
        }

        #[test]
        fn parts_merged_are_the_whole(samples in samples(), cut in 0..200usize) {
            let cut = cut.min(samples.len());
            let mut parts = histogram(&samples[..cut]);
            parts.merge(&histogram(&samples[cut..]));
            prop_assert_eq!(parts, histogram(&samples));
        }
    }
}
