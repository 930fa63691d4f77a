//! The sampler as a statistician judges one: no bias, and error bars that hold what they promise.
//!
//! One program has 500 sites with the same distribution of sizes, so a recording of it is 500 independent trials.
//! The number of trials is such that a right sampler fails here less than once in 10,000 times.

use std::sync::OnceLock;

use memtrace_tests::fixture::SITES;
use memtrace_tests::record::Recorder;

const RECORDINGS: u64 = 8;
const SITES_EACH: usize = 500;

/// A site: the truth, the estimate, and the stated standard error of bytes in use, and of objects.
#[derive(Clone, Copy, Debug)]
struct Trial {
    bytes: (f64, f64, f64),
    objects: (f64, f64, f64),
    allocated_bytes: (f64, f64, f64),
    allocated_objects: (f64, f64, f64),
}

/// Records 100 live and 50 freed objects of `low` to `high` bytes per site, at an interval of 64 KiB.
fn record(seed: u64, low: &str, high: &str) -> Vec<Trial> {
    let sites = SITES_EACH.to_string();
    let arguments = ["run", &seed.to_string(), &sites, "100", "50", low, high];
    let recorded = Recorder::new()
        .interval("64KiB")
        .output("out.json")
        .launch(&SITES.path(), &arguments)
        .expect_success();
    let profile = recorded.json();
    profile.assert_nothing_lost();
    let (estimates, errors) = (profile.stacks().books_by_site(&recorded.truth()), profile.standard_errors());
    let trial = |(site, truth): (&String, &memtrace_tests::stacks::Values)| {
        // Of 100 objects of this size, one at least was drawn; a site that was not would have no error either.
        let (estimate, error) = (estimates[site], errors[site]);
        Trial {
            bytes: (truth.inuse_space as f64, estimate.inuse_space as f64, error.inuse_space),
            objects: (truth.inuse_objects as f64, estimate.inuse_objects as f64, error.inuse_objects),
            allocated_bytes: (truth.alloc_space as f64, estimate.alloc_space as f64, error.alloc_space),
            allocated_objects: (
                truth.alloc_objects as f64,
                estimate.alloc_objects as f64,
                error.alloc_objects,
            ),
        }
    };
    recorded.truth().iter().map(trial).collect()
}

/// Sizes from far below to far above the interval; one vector per recording.
fn of_all_sizes() -> &'static [Vec<Trial>] {
    static TRIALS: OnceLock<Vec<Vec<Trial>>> = OnceLock::new();
    TRIALS.get_or_init(|| (0..RECORDINGS).map(|seed| record(seed, "16", "1048576")).collect())
}

/// The mean relative error, and its own standard error.
fn mean_error(of: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let errors: Vec<_> = of.map(|(truth, estimate)| (estimate - truth) / truth).collect();
    let count = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / count;
    let variance = errors.iter().map(|error| (error - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// How often the truth is within 1.96 standard errors of the estimate: 95 % for a normal distribution.
fn coverage(of: impl Iterator<Item = (f64, f64, f64)>) -> f64 {
    let inside: Vec<_> =
        of.map(|(truth, estimate, error)| (estimate - truth).abs() <= 1.96 * error).collect();
    inside.iter().filter(|inside| **inside).count() as f64 / inside.len() as f64
}

#[test]
fn the_mean_error_is_within_one_percent_of_zero() {
    for trials in of_all_sizes() {
        // The mean of 500 has a standard error of 0.13 %.
        let (in_use, _) = mean_error(trials.iter().map(|trial| (trial.bytes.0, trial.bytes.1)));
        assert!(in_use.abs() < 0.01, "bytes in use are off by {in_use} on average");
        let (allocated, _) =
            mean_error(trials.iter().map(|trial| (trial.allocated_bytes.0, trial.allocated_bytes.1)));
        assert!(allocated.abs() < 0.01, "bytes allocated are off by {allocated} on average");
    }
    // All of them together show a bias of 0.2 %.
    let all = || of_all_sizes().iter().flatten();
    for (mean, error) in [
        mean_error(all().map(|trial| (trial.bytes.0, trial.bytes.1))),
        mean_error(all().map(|trial| (trial.allocated_bytes.0, trial.allocated_bytes.1))),
        mean_error(all().map(|trial| (trial.objects.0, trial.objects.1))),
    ] {
        assert!(mean.abs() < 4.5 * error, "a bias of {mean}, which cannot be chance ({error})");
    }
}

#[test]
fn the_stated_interval_contains_the_true_bytes_as_often_as_stated() {
    // 0.945 is expected, and 0.0036 is its standard error of 4000 trials.
    let coverage = coverage(of_all_sizes().iter().flatten().map(|trial| trial.bytes));
    assert!((0.93..=0.97).contains(&coverage), "in {coverage} of the cases");
}

#[test]
fn the_stated_interval_contains_the_true_bytes_allocated_as_often_as_stated() {
    let coverage = coverage(of_all_sizes().iter().flatten().map(|trial| trial.allocated_bytes));
    assert!((0.93..=0.97).contains(&coverage), "in {coverage} of the cases");
}

/// An estimate of objects is far from normally distributed where a few samples of tiny objects stand for thousands
/// each. Where objects are not much smaller than the interval, it is.
#[test]
fn the_stated_interval_contains_the_true_number_of_objects_as_often_as_stated() {
    let trials: Vec<_> = (0..RECORDINGS).flat_map(|seed| record(seed, "32768", "262144")).collect();
    for coverage in [
        coverage(trials.iter().map(|trial| trial.objects)),
        coverage(trials.iter().map(|trial| trial.allocated_objects)),
    ] {
        assert!((0.93..=0.97).contains(&coverage), "in {coverage} of the cases");
    }
}

/// What is known exactly has no error: at interval 1, and where objects are far larger than the interval.
#[test]
fn exact_values_have_no_error() {
    for (interval, low, high) in [("1", "16", "1024"), ("1KiB", "131072", "262144")] {
        let recorder = Recorder::new().interval(interval).output("out.json");
        let recorded =
            recorder.launch(&SITES.path(), &["run", "1", "5", "20", "10", low, high]).expect_success();
        let profile = recorded.json();
        profile.stacks().assert_sites(&recorded.truth());
        for (site, error) in profile.standard_errors() {
            let largest =
                error.alloc_space.max(error.alloc_objects).max(error.inuse_space).max(error.inuse_objects);
            assert!(largest < 0.5, "{site} at {interval}: {error:?}");
        }
    }
}
