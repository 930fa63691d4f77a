//! What the recording has cost: the target, and memtrace itself.

use std::{io, time::Duration};

use memtrace_common::Counter;
use procfs::process::Process;

use crate::{
    kernel::{Counters, Prices},
    profile::Statistic,
};

/// CPU time that a process has used, user and system, all threads. It includes the time in probes.
///
/// # Errors
/// When the process has ended.
pub(super) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = Process::new(pid as i32).and_then(|process| process.stat()).map_err(io::Error::other)?;
    Ok(Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64))
}

/// The time that the target has spent in probes: hits times the prices that were measured on this machine.
pub fn probe_time(counters: &Counters, prices: &Prices) -> Duration {
    let times = |counter, price: Duration| price.mul_f64(counters.get(counter) as f64);
    times(Counter::AllocationHits, prices.allocation)
        + times(Counter::Sampled, prices.sampled)
        + times(Counter::FramesWalked, prices.frame)
        + times(Counter::FreeHits, prices.free)
        + times(Counter::SteppedHits, prices.stepped)
}

/// What memtrace itself has used so far: CPU time, and the largest resident set in bytes (getrusage(2)).
fn own_usage() -> (Duration, u64) {
    // SAFETY: an all-zero rusage is a valid value to be overwritten.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` lives until the call is over, which cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    (time(usage.ru_utime) + time(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// The costs as the outputs show them. `target` is the CPU time that the target has used while it was
/// recorded; `None` where it ended before it could be asked.
pub(super) fn statistics(counters: &Counters, prices: &Prices, target: Option<Duration>) -> Vec<Statistic> {
    let (own_time, own_resident) = own_usage();
    let count = |name, counter| Statistic::count(name, counters.get(counter));
    let mut statistics = vec![
        count("allocation_calls", Counter::AllocationHits),
        count("free_calls", Counter::FreeHits),
        count("return_probes", Counter::ReturnHits),
        count("single_steps", Counter::SteppedHits),
        count("samples", Counter::Sampled),
        count("samples_freed", Counter::FreesMatched),
        count("allocations_failed", Counter::AllocationsFailed),
        count("inner_calls_left_out", Counter::Nested),
        count("children_not_followed", Counter::Children),
        Statistic::nanoseconds("price_of_allocation", prices.allocation),
        Statistic::nanoseconds("price_of_sample", prices.sampled),
        Statistic::nanoseconds("price_of_frame", prices.frame),
        Statistic::nanoseconds("price_of_free", prices.free),
        Statistic::nanoseconds("price_of_single_step", prices.stepped),
        Statistic::seconds("target_time_in_probes", probe_time(counters, prices)),
    ];
    statistics.extend(target.map(|time| Statistic::seconds("target_cpu_time", time)));
    statistics.push(Statistic::seconds("memtrace_cpu_time", own_time));
    statistics.push(Statistic::bytes("memtrace_resident_peak", own_resident));
    statistics
}
