//! Poisson sampling by bytes, without state.
//!
//! If sample points are scattered over all allocated bytes at a mean distance of `interval`, an
//! allocation of `size` bytes holds at least one with probability `1 - exp(-size / interval)`,
//! independently of every other allocation. So instead of counting bytes down (per thread or per CPU,
//! with all that comes with it), each allocation is drawn for itself with that probability.
//!
//! Each sampled allocation then stands for `1 / probability` allocations (the Horvitz-Thompson
//! estimator), which makes sums over any set of allocations unbiased whatever their sizes.
//!
//! The kernel has no floating point, so userspace fills a [`Segment`] table and the kernel interpolates.
//! The weight is the reciprocal of the interpolated probability, the very one that was drawn with, so
//! interpolation costs no bias; it only bends the probability by less than 0.03 %.

/// Probabilities are in units of 2^-48: this is certainty.
pub const CERTAIN: u64 = 1 << 48;

/// Each power of two of the size is split into this many segments.
pub const SEGMENTS_PER_OCTAVE: usize = 16;

/// How many segments there are: sizes below 2^48 bytes, the largest that an address space can hold.
pub const SEGMENTS: usize = 48 * SEGMENTS_PER_OCTAVE;

/// Objects are counted in this fraction: 65536 is one.
pub const OBJECT_UNIT: u64 = 1 << 16;

/// Bytes are counted in this fraction: 16 is one. A total overflows at 2^60 bytes, which is three years
/// of allocating 10 GB a second.
pub const BYTE_UNIT: u64 = 1 << 4;

/// The smallest mean distance above 1: below it the rounding to [`BYTE_UNIT`] would show (at this one it
/// is at most 0.05 % of a sample), and recording everything costs no more.
pub const MIN_INTERVAL: u64 = 64;

/// The probability along one segment of sizes: a straight line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Probability at the segment's first size, in 2^-48.
    pub base: u64,
    /// What is added towards the next segment's first size.
    pub rise: u64,
}

/// What one sampled allocation stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Allocations, in 1/65536.
    pub objects: u64,
    /// Bytes, in 1/16.
    pub bytes: u64,
}

/// The number of the highest set bit, 0 for 0 and 1. In steps of halves, because BPF has no such
/// instruction and a loop would cost more.
#[inline(always)]
pub fn log2(value: u64) -> u32 {
    let mut rest = value;
    let mut log = 0;
    if rest >= 1 << 32 {
        rest >>= 32;
        log += 32;
    }
    if rest >= 1 << 16 {
        rest >>= 16;
        log += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        log += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        log += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        log += 2;
    }
    if rest >= 1 << 1 {
        log += 1;
    }
    log
}

/// Where `size` lies: the segment's index and the place in it in 1/2^20. `None` for sizes that no address
/// space can hold.
#[inline(always)]
pub fn place(size: u64) -> Option<(usize, u64)> {
    // malloc(0) returns an object like any other; it is drawn as if it had one byte.
    let size = if size == 0 { 1 } else { size };
    let octave = log2(size);
    if octave >= 48 {
        return None;
    }
    // The bits below the leading one, aligned to the top of 24 bits: 4 choose the segment, 20 the place.
    let mantissa = ((size << (63 - octave)) & !(1 << 63)) >> 39;
    let index = octave as usize * SEGMENTS_PER_OCTAVE + (mantissa >> 20) as usize;
    Some((index, mantissa & ((1 << 20) - 1)))
}

/// The probability with which a size at `place` of `segment` is sampled, in 2^-48.
#[inline(always)]
pub fn threshold(segment: &Segment, place: u64) -> u64 {
    // No overflow: `rise` is below 2^44, because a segment spans at most a sixteenth of the size and the
    // probability is concave; 2^44 * 2^20 just fits. Certainty has a rise of 0.
    segment.base + ((segment.rise * place) >> 20)
}

/// How many bits of a call's number are looked at: the numbers begin again after 19 hours of a million calls per
/// second of one function on one CPU.
const NUMBER_BITS: u32 = 36;

/// The random number for call `number` of a function on a CPU, below [`CERTAIN`]: output
/// `cpu * 2^48 + function * 2^36 + number` of SplitMix64, started at `seed` (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014). Its state only counts, so it takes no more than a number that no
/// other call has.
#[inline(always)]
pub fn random(seed: u64, cpu: u32, function: u16, number: u64) -> u64 {
    let position =
        u64::from(cpu) << 48 | u64::from(function) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1);
    let state = seed.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state ^ state >> 31) >> 16
}

/// What an allocation of `size` bytes stands for that was sampled with `threshold`.
#[inline(always)]
pub fn weight(size: u64, threshold: u64) -> Weight {
    if threshold >= CERTAIN {
        return Weight { objects: OBJECT_UNIT, bytes: size * BYTE_UNIT };
    }
    // 2^16 * 2^48 / threshold; 2^64 - 1 instead of 2^64 is less than one part in 2^48 off.
    let objects = u64::MAX / if threshold == 0 { 1 } else { threshold };
    // size * objects / 2^12 in two parts, so that the product fits for every size and weight in use.
    let whole = size * (objects >> 16) * BYTE_UNIT;
    let part = (size * (objects & 0xffff) + (1 << 11)) >> 12;
    Weight { objects, bytes: whole + part }
}

/// A sample that its own process has drawn is smaller, and stands for fewer bytes: what programs have of an address
/// space on x86-64 (Documentation/arch/x86/x86_64/mm.rst).
const MAX_SAMPLE: u64 = 1 << 47;

/// What an allocation of `size` bytes stands for that its own process has sampled, and that stands for `bytes`
/// bytes by what the process says. `None` where no address space could hold such.
#[inline(always)]
pub fn weight_of_sample(size: u64, bytes: u64) -> Option<Weight> {
    if size >= MAX_SAMPLE || bytes >= MAX_SAMPLE {
        return None;
    }
    // An object without bytes is drawn as if it had one.
    let size = if size == 0 { 1 } else { size };
    Some(Weight { objects: (bytes * OBJECT_UNIT + size / 2) / size, bytes: bytes * BYTE_UNIT })
}

/// What one sampled allocation adds to the variance of its stack's estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variance {
    /// In squares of 2^shift objects, and of these 1/256.
    pub objects: u64,
    /// In squares of 2^shift bytes.
    pub bytes: u64,
}

/// In [`Variance`], objects are in this fraction.
pub const OBJECT_VARIANCE_UNIT: u64 = 1 << 8;

/// The shift for which a sum of variances fits into 64 bits, at a mean distance of `interval`: one sample then
/// adds at most 2^38 to either (2^46 to objects of one byte), so 2^26 samples (2^18) of one stack fit.
pub fn variance_shift(interval: u64) -> u32 {
    let log = log2(interval) + 1;
    log.saturating_sub(19)
}

/// What a sample of this weight adds, which was drawn with `threshold`. A sample that stands for w allocations was
/// drawn with probability p = 1/w; an unbiased estimate of the variance of the sum of w*y is the sum of
/// w*(w-1)*y^2 = (w*y)^2 * (1-p) over what was drawn (Horvitz and Thompson, 1952, for independent draws).
#[inline(always)]
pub fn variance(weight: &Weight, threshold: u64, shift: u32) -> Variance {
    if threshold >= CERTAIN {
        return Variance { objects: 0, bytes: 0 };
    }
    // In 2^-16, 2^-12 and 2^-4, so that squares and products fit.
    let not_drawn = (CERTAIN - threshold) >> 32;
    let objects = weight.objects >> (4 + shift);
    let bytes = weight.bytes >> shift;
    Variance {
        objects: (((objects * objects) >> 16) * not_drawn) >> 16,
        bytes: (((bytes * bytes) >> 8) * not_drawn) >> 16,
    }
}

#[cfg(feature = "user")]
mod table {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    // SAFETY: `repr(C)`, two integers, no padding, every bit pattern valid.
    unsafe impl aya::Pod for Segment {}

    /// The segment table for a mean distance of `interval` bytes. An interval of 0 or 1 records every
    /// allocation.
    pub fn table(interval: u64) -> Vec<Segment> {
        if interval <= 1 {
            return std::vec![Segment { base: CERTAIN, rise: 0 }; SEGMENTS];
        }
        let at = |index: usize| {
            let octave = index / SEGMENTS_PER_OCTAVE;
            let step = index % SEGMENTS_PER_OCTAVE;
            let size = (1.0 + step as f64 / SEGMENTS_PER_OCTAVE as f64) * 2f64.powi(octave as i32);
            let probability = -(-size / interval as f64).exp_m1();
            // At least one unit, so that no weight is infinite.
            ((probability * CERTAIN as f64).round() as u64).clamp(1, CERTAIN)
        };
        (0..SEGMENTS).map(|index| Segment { base: at(index), rise: at(index + 1) - at(index) }).collect()
    }
}

#[cfg(feature = "user")]
pub use table::table;

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    fn probability(table: &[Segment], size: u64) -> u64 {
        let (index, place) = place(size).expect("the size fits an address space");
        threshold(&table[index], place)
    }

    #[test]
    fn interval_one_records_everything_exactly() {
        let table = table(1);
        for size in [0, 1, 7, 4096, 10 << 30, (1 << 48) - 1] {
            let threshold = probability(&table, size);
            assert_eq!(threshold, CERTAIN);
            assert_eq!(weight(size, threshold), Weight { objects: OBJECT_UNIT, bytes: size * BYTE_UNIT });
        }
    }

    #[test]
    fn samples_of_the_process_weigh_what_it_says() {
        let weight =
            |objects, bytes| Some(Weight { objects: objects * OBJECT_UNIT, bytes: bytes * BYTE_UNIT });
        assert_eq!(weight_of_sample(100, 100), weight(1, 100));
        assert_eq!(weight_of_sample(100, 524_300), weight(5_243, 524_300));
        assert_eq!(weight_of_sample(0, 0), weight(0, 0));
        assert_eq!(weight_of_sample(0, 7), weight(7, 7));
        let third = weight_of_sample(3, 1).map(|weight| weight.objects);
        assert_eq!(third, Some(OBJECT_UNIT / 3));
        // The largest that there can be fits, a larger one is none.
        assert_eq!(weight_of_sample(1, MAX_SAMPLE - 1), weight(MAX_SAMPLE - 1, MAX_SAMPLE - 1));
        assert!(weight_of_sample(MAX_SAMPLE - 1, MAX_SAMPLE - 1).is_some());
        assert_eq!(weight_of_sample(1, MAX_SAMPLE), None);
        assert_eq!(weight_of_sample(u64::MAX, 1), None);
    }

    #[test]
    fn the_probability_is_that_of_a_poisson_process() {
        for interval in [MIN_INTERVAL, 1000, 4096, 64 << 10, 512 << 10, 1 << 30] {
            let table = table(interval);
            for shift in 0..48 {
                for size in [1u64 << shift, (1 << shift) + (1 << shift) / 3, (1 << shift) * 2 - 1] {
                    let want = -(-(size as f64) / interval as f64).exp_m1();
                    let have = probability(&table, size) as f64 / CERTAIN as f64;
                    assert!((have / want - 1.0).abs() < 3e-4, "{size} at {interval}: {have} for {want}");
                }
            }
        }
    }

    #[test]
    fn a_samples_variance_is_that_of_its_weight() {
        for interval in [MIN_INTERVAL, 4096, 512 << 10, 1 << 20, 1 << 30] {
            let (table, shift) = (table(interval), variance_shift(interval));
            for size in [1u64, 16, 100, 4096, 100_000, 524_288, 1 << 20, 1 << 24, 10 << 30] {
                let threshold = probability(&table, size);
                let weight = weight(size, threshold);
                let variance = variance(&weight, threshold, shift);
                let w = weight.objects as f64 / OBJECT_UNIT as f64;
                let scale = 4f64.powi(shift as i32);
                let objects = variance.objects as f64 * scale / OBJECT_VARIANCE_UNIT as f64;
                let bytes = variance.bytes as f64 * scale;
                let (want_objects, want_bytes) = (w * (w - 1.0), w * (w - 1.0) * (size as f64).powi(2));
                // What is lost by rounding is little beside one sample's own variance.
                let slack = 0.01 * want_objects + 2.0 * scale.max(1.0) / OBJECT_VARIANCE_UNIT as f64;
                assert!(
                    (objects - want_objects).abs() <= slack,
                    "{size} at {interval}: {objects}, {want_objects}"
                );
                let slack = 0.01 * want_bytes + 0.01 * (interval as f64).powi(2);
                assert!((bytes - want_bytes).abs() <= slack, "{size} at {interval}: {bytes}, {want_bytes}");
                assert!(
                    variance.objects <= 1 << 47 && variance.bytes <= 1 << 39,
                    "{size} at {interval}: {variance:?}"
                );
            }
        }
    }

    #[test]
    fn weight_times_probability_is_the_size() {
        for interval in [MIN_INTERVAL, 4096, 512 << 10, 1 << 30] {
            let table = table(interval);
            for size in [1u64, 3, 16, 100, 4096, 100_000, 524_288, 1 << 20, 1 << 27, 10 << 30, 1 << 47] {
                let threshold = probability(&table, size);
                let weight = weight(size, threshold);
                let probability = threshold as f64 / CERTAIN as f64;
                let bytes = weight.bytes as f64 / BYTE_UNIT as f64 * probability;
                let objects = weight.objects as f64 / OBJECT_UNIT as f64 * probability;
                assert!((bytes / size as f64 - 1.0).abs() < 5e-4, "{size} at {interval}: {bytes}");
                assert!((objects - 1.0).abs() < 2e-5, "{size} at {interval}: {objects}");
            }
        }
    }

    #[test]
    fn random_numbers_are_those_of_splitmix64() {
        // The first outputs of the generator for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        // An output is made from a state that has already been advanced, so they are those of 1, 2 and 3.
        let outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423u64];
        for (number, output) in (1..).zip(outputs) {
            assert_eq!(random(1234567, 0, 0, number), output >> 16);
        }
    }

    #[test]
    fn random_numbers_of_two_cpus_or_functions_have_nothing_in_common() {
        for (cpu, function) in [(1, 0), (0, 1), (1, 1)] {
            let differences = (0..10_000).map(|number| {
                let (first, second) = (random(7, 0, 0, number), random(7, cpu, function, number));
                (first ^ second).count_ones()
            });
            // Of 48 bits half differ; the standard error of the mean is 0.035.
            let mean = f64::from(differences.sum::<u32>()) / 10_000.0;
            assert!((mean - 24.0).abs() < 0.2, "{mean}");
        }
    }

    #[test]
    fn sizes_beyond_an_address_space_have_no_place() {
        assert_eq!(place(1 << 48), None);
        assert_eq!(place(u64::MAX), None);
        assert_eq!(place(0), place(1));
    }
}
