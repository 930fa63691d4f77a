//! Estimates: with a sample interval, totals are near the truth, by as much as theory allows.

use memtrace_tests::fixture::LEAK;
use memtrace_tests::record::Recorder;
use memtrace_tests::stacks::{Values, truth};
use memtrace_tests::target::Leak;

/// The standard deviation of the estimated number of `objects` objects of `size` bytes, each sampled with
/// probability p = 1 - exp(-size / interval) and then counted as 1/p: the root of objects (1 - p) / p.
fn deviation_in_objects(objects: i64, size: i64, interval: i64) -> f64 {
    let p = -(-size as f64 / interval as f64).exp_m1();
    (objects as f64 * (1.0 - p) / p).sqrt()
}

/// Asserts that `estimate` is within 5 standard deviations: by chance it is not once in 1.7 million times.
#[track_caller]
fn assert_near(estimate: (i64, i64), objects: i64, size: i64, interval: i64) {
    let deviation = deviation_in_objects(objects, size, interval);
    let off_by = (estimate.0 - objects) as f64 / deviation;
    assert!(off_by.abs() < 5.0, "{} objects for {objects}: {off_by} standard deviations", estimate.0);
    let off_by = (estimate.1 - objects * size) as f64 / (deviation * size as f64);
    assert!(off_by.abs() < 5.0, "{} bytes for {}: {off_by} standard deviations", estimate.1, objects * size);
}

#[test]
fn a_leak_of_small_objects_is_estimated_without_bias() {
    const INTERVAL: i64 = 64 * 1024;
    // 64 MiB: 2% and 4% of standard deviation, so that a forgotten scale or a wrong one is far outside.
    let operations = ["run", "leak_a", "524288", "64", "leak_b", "8192", "4096", "churn", "8192", "4096"];
    let recorded = Recorder::new().interval("64KiB").launch(&LEAK.path(), &operations).expect_success();
    let profile = recorded.pprof();
    assert_eq!(profile.period, INTERVAL);
    let stacks = profile.stacks();
    for (site, objects, size) in [("leak_a", 524_288, 64), ("leak_b", 8192, 4096)] {
        let values = stacks.of(site);
        assert_near((values.inuse_objects, values.inuse_space), objects, size, INTERVAL);
        assert_near((values.alloc_objects, values.alloc_space), objects, size, INTERVAL);
        assert_eq!((values.inuse_objects, values.inuse_space), (values.alloc_objects, values.alloc_space));
    }
    let churn = stacks.of("churn");
    assert_near((churn.alloc_objects, churn.alloc_space), 8192, 4096, INTERVAL);
    assert_eq!(
        (churn.inuse_objects, churn.inuse_space),
        (0, 0),
        "an object's free takes back its whole weight"
    );
}

#[test]
fn objects_far_larger_than_the_interval_are_exact() {
    // 100 intervals: that one is missed has the probability e^-100.
    let recorded =
        Recorder::new().interval("10KiB").launch(&LEAK.path(), &["run", "leak_a", "200", "1024000"]);
    assert_eq!(recorded.expect_success().stacks().of("leak_a"), Values::live(200, 1_024_000));
}

#[test]
fn freeing_half_leaves_half() {
    const INTERVAL: i64 = 16 * 1024;
    let mut leak = Leak::serve(LEAK);
    let recording = Recorder::new().interval("16KiB").attach(leak.pid());
    leak.perform("hold 40000 200");
    let after = truth(&leak.0.ask("release 20000 0"))["hold"];
    assert_eq!(after.inuse_objects, 20_000);
    let hold = recording.stop(libc::SIGTERM).expect_success().stacks().of("hold");
    assert_near((hold.alloc_objects, hold.alloc_space), 40_000, 200, INTERVAL);
    assert_near((hold.inuse_objects, hold.inuse_space), 20_000, 200, INTERVAL);
}

#[test]
fn the_default_interval_is_512_kib() {
    let recorded =
        Recorder::new().launch(&LEAK.path(), &["run", "leak_a", "100", "10000000"]).expect_success();
    assert_eq!(recorded.pprof().period, 512 * 1024);
    // One of 100 is missed with a probability of 5e-7.
    let values = recorded.stacks().of("leak_a");
    assert_near((values.inuse_objects, values.inuse_space), 100, 10_000_000, 512 * 1024);
}
