//! `cargo xtask soak`: memtrace beside a busy program for a long time. It must not grow, and must lose nothing.
//!
//! The program (`bench/churn.c`) has eight threads and short-lived ones beside them; what it holds and how
//! many different stacks it has do not change, so whatever grows in memtrace is a leak in memtrace.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::{self, Running};
use crate::observe;
use crate::process;
use crate::repo::Repo;
use crate::setup::apt;

/// Mean distance of samples in bytes: small, so that much happens. The churn comes to hundreds of
/// thousands of samples a second with it.
const INTERVAL: &str = "1KiB";

/// How many blocks the program has at most: 512 in each of its eight threads and the short-lived one, and
/// 64 that are handed over. The profile's number is an estimate, with a standard error of some hundreds.
const MOST_IN_USE: i64 = 9 * 512 + 64;

/// How many calls may be under way when the recording ends: one in each thread.
const MOST_UNFINISHED: u64 = 9;

/// How often memtrace is looked at, and how often that is printed.
const STEP: Duration = Duration::from_secs(1);
const STEPS_PER_LINE: usize = 10;

/// Runs memtrace beside a busy program and fails if it grows or loses anything; needs root.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long, in minutes
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
}

fn minutes(text: &str) -> Result<f64, String> {
    // Below that a quarter of the time is too short for a median.
    text.parse()
        .ok()
        .filter(|minutes| (0.25..=10_000.0).contains(minutes))
        .ok_or("use 0.25 to 10000".to_owned())
}

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    apt::install(apt::BENCH)?;
    process::run(repo.cargo().args(["build", "--quiet", "--release", "--package", "memtrace"]))?;
    soak(repo, Duration::from_secs_f64(arguments.minutes * 60.0))
}

/// Runs the release build of memtrace, which must be there, beside the busy program for `time`, at least
/// 15 seconds.
///
/// # Errors
/// When memtrace grows, loses anything, records nothing, or fails.
pub(crate) fn soak(repo: &Repo, time: Duration) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let churn = Churn::start(&bench::compile(&repo.root.join("xtask/bench/churn.c"), directory.path())?)?;
    let profile = directory.path().join("soak.json");
    let pid = churn.0.id().to_string();
    // It ends at the interrupt below; should xtask be killed, it ends nevertheless.
    let limit = (time * 2 + Duration::from_secs(60)).as_secs().to_string();
    let arguments = ["record", "-p", &pid, "-s", INTERVAL, "-d", &limit, "-o", &profile.to_string_lossy()];
    let memtrace = repo.target.join("release/memtrace");
    let code = bench::Code::of(churn.0.id())?;
    let mut running =
        Running::start(&code, directory.path(), &memtrace.to_string_lossy(), &arguments.map(str::to_owned))?;
    let samples = watch(&mut running, time)?;
    running.stop()?;
    code.wait_for_no_probe()?;

    let faults = [fault_of_growth(&samples), fault_of_profile(&profile)?];
    let faults: Vec<_> = faults.into_iter().flatten().collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("soak: passed");
    Ok(())
}

/// memtrace at one moment.
struct Sample {
    resident: u64,
    maps: u64,
    descriptors: u64,
}

fn watch(running: &mut Running, time: Duration) -> Result<Vec<Sample>> {
    let begun = Instant::now();
    let pid = running.pid();
    let mut samples = Vec::new();
    let mut cpu = (begun, observe::cpu_time(pid)?);
    while begun.elapsed() < time {
        sleep(STEP);
        running.fail_if_ended()?;
        let sample = Sample {
            resident: observe::resident(pid)?,
            maps: observe::bpf_maps(pid)?,
            descriptors: observe::descriptors(pid)? as u64,
        };
        if (samples.len() + 1).is_multiple_of(STEPS_PER_LINE) {
            let now = (Instant::now(), observe::cpu_time(pid)?);
            let share = (now.1.saturating_sub(cpu.1)).as_secs_f64() / (now.0 - cpu.0).as_secs_f64();
            cpu = now;
            println!(
                "{:>5.0} s: {:.1} MiB resident, {:.1} MiB in the kernel's tables, {} descriptors, {:.1} % of a core",
                begun.elapsed().as_secs_f64(),
                mebibytes(sample.resident),
                mebibytes(sample.maps),
                sample.descriptors,
                share * 100.0
            );
        }
        samples.push(sample);
    }
    Ok(samples)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1048576.0
}

/// What grows, in words.
fn fault_of_growth(samples: &[Sample]) -> Option<String> {
    let growth = |what, value: fn(&Sample) -> u64, tolerance: Tolerance| {
        Growth::of(&samples.iter().map(value).collect::<Vec<_>>(), tolerance).report(what)
    };
    let faults = [
        // A page here and there: the allocator's own, and code that runs for the first time.
        growth("resident memory", |sample| sample.resident, Tolerance { absolute: 1 << 20, percent: 2 }),
        // The live samples are a random number; it is some thousands of about 200 bytes each.
        growth("the kernel's tables", |sample| sample.maps, Tolerance { absolute: 1 << 19, percent: 5 }),
        growth("open descriptors", |sample| sample.descriptors, Tolerance { absolute: 0, percent: 0 }),
    ];
    let faults: Vec<_> = faults.into_iter().flatten().collect();
    (!faults.is_empty()).then(|| faults.join("\n"))
}

/// By how much something may grow: the larger of the two.
#[derive(Clone, Copy)]
struct Tolerance {
    absolute: u64,
    percent: u64,
}

/// A value that was looked at again and again. The first quarter is warm-up; the median of the second is
/// compared with that of the last, so that single peaks do not count.
struct Growth {
    early: u64,
    late: u64,
    tolerance: u64,
}

impl Growth {
    fn of(values: &[u64], tolerance: Tolerance) -> Self {
        let quarter = values.len() / 4;
        let (early, late) =
            (median(&values[quarter..quarter * 2]), median(&values[values.len() - quarter..]));
        Self { early, late, tolerance: tolerance.absolute.max(early * tolerance.percent / 100) }
    }

    fn exceeds(&self) -> bool {
        self.late > self.early + self.tolerance
    }

    /// Prints it, and returns it if it is a fault.
    fn report(&self, what: &str) -> Option<String> {
        let Self { early, late, tolerance } = self;
        let text = format!(
            "{what}: {early} in the second quarter, {late} in the last; {tolerance} more would be allowed"
        );
        println!("soak: {text}");
        self.exceeds().then(|| format!("memtrace grows; {text}"))
    }
}

/// 0 of an empty list.
fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// What is wrong with the profile, in words.
fn fault_of_profile(path: &Path) -> Result<Option<String>> {
    let text = fs::read(path).context("memtrace has written no profile")?;
    let profile: Value = serde_json::from_slice(&text).context("memtrace's profile is not JSON")?;
    let count =
        |name| profile["statistics"][name].as_f64().with_context(|| format!("the profile lacks {name}"));
    println!(
        "soak: {} calls, {} samples",
        count("allocation_calls_count")? + count("free_calls_count")?,
        count("samples_count")?
    );
    if count("samples_count")? == 0.0 {
        return Ok(Some("memtrace has recorded nothing".to_owned()));
    }
    let stacks = profile["stacks"].as_array().context("the profile has no stacks")?;
    let in_use = stacks.iter().filter_map(|stack| stack["values"]["inuse_objects"].as_i64()).sum();
    println!("soak: {in_use} blocks in use at the end, of at most {MOST_IN_USE}");
    Ok(fault_of_losses(&profile["losses"]).or_else(|| fault_of_drift(in_use)))
}

/// A free that is missed now and then would add up.
fn fault_of_drift(in_use: i64) -> Option<String> {
    let plausible = (0..MOST_IN_USE * 3 / 2).contains(&in_use);
    (!plausible)
        .then(|| format!("the profile has {in_use} blocks in use where the program has {MOST_IN_USE}"))
}

/// None is expected: the tables are large enough for this program, and it leaves no call by a jump. Only calls
/// that are under way when the books are closed stay unfinished.
fn fault_of_losses(losses: &Value) -> Option<String> {
    let under_way = |loss: &Value| {
        loss["name"] == "calls_unfinished"
            && loss["count"].as_u64().is_some_and(|count| count <= MOST_UNFINISHED)
    };
    match losses.as_array() {
        Some(losses) if losses.iter().all(under_way) => None,
        _ => Some(format!("memtrace has lost something: {losses}")),
    }
}

/// The busy program; killed when dropped.
struct Churn(Child);

impl Churn {
    fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        // It ends with its standard input, so it cannot outlive xtask.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut churn = Self(child);
        let stdout = churn.0.stdout.take().context("the busy program has no standard output")?;
        let mut word = String::new();
        BufReader::new(stdout).read_line(&mut word).context("the busy program does not answer")?;
        if word != "ready\n" {
            bail!("the busy program did not get ready");
        }
        Ok(churn)
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Tolerance = Tolerance { absolute: 0, percent: 10 };

    #[test]
    fn steady_growth_is_found_and_warm_up_is_not() {
        let steady: Vec<_> = (0..60).map(|second| 1000 + second * 10).collect();
        assert!(Growth::of(&steady, TENTH).exceeds());
        let warm_up: Vec<_> = (0..60).map(|second| 1000 + second.min(14) * 100).collect();
        assert!(!Growth::of(&warm_up, TENTH).exceeds());
    }

    #[test]
    fn a_single_peak_is_no_growth() {
        let mut values = vec![1000; 60];
        values[55] = 100_000;
        assert!(!Growth::of(&values, Tolerance { absolute: 0, percent: 0 }).exceeds());
    }

    #[test]
    fn frees_that_are_missed_add_up_to_a_fault() {
        assert_eq!(fault_of_drift(MOST_IN_USE - 300), None);
        assert!(fault_of_drift(MOST_IN_USE * 2).is_some());
        assert!(fault_of_drift(-1).is_some());
    }

    #[test]
    fn every_loss_is_a_fault_but_calls_under_way() {
        assert_eq!(fault_of_losses(&serde_json::json!([])), None);
        let unfinished = |count| serde_json::json!([{ "name": "calls_unfinished", "count": count }]);
        assert_eq!(fault_of_losses(&unfinished(MOST_UNFINISHED)), None);
        assert!(fault_of_losses(&unfinished(MOST_UNFINISHED + 1)).is_some());
        let lost = serde_json::json!([{ "name": "live_table_full", "count": 3 }]);
        assert!(fault_of_losses(&lost).unwrap().contains("live_table_full"));
        assert!(fault_of_losses(&Value::Null).is_some(), "a profile that says nothing is no good one");
    }
}
