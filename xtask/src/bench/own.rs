//! What memtrace itself costs, beside what its probes cost the target: CPU time and memory, under a known
//! load (`bench/load.c`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::code::Code;
use super::running::Running;
use crate::observe;

/// The names by which the two cases are chosen on the command line.
pub(crate) const CPU: &str = "own CPU time";
pub(crate) const MEMORY: &str = "own memory";

const CALLS_PER_SECOND: u64 = 200_000;
const LIVE_SAMPLES: u64 = 100_000;

/// How long memtrace is watched under the load.
const WINDOW: Duration = Duration::from_secs(10);

/// What memtrace itself costs.
#[derive(Default, Serialize)]
pub(crate) struct Own {
    pub(crate) cpu: Option<Measured<Cpu>>,
    pub(crate) memory: Option<Measured<Memory>>,
}

/// Figures, or why there are none.
#[derive(Serialize)]
pub(crate) struct Measured<T> {
    pub(crate) figures: Option<T>,
    error: Option<String>,
}

/// CPU time while [`CALLS_PER_SECOND`] calls are seen and next to none is sampled.
#[derive(Serialize)]
pub(crate) struct Cpu {
    /// Of a core, while it recorded.
    pub(crate) share: f64,
    /// Calls that the probes have seen in a second.
    calls_per_second: f64,
    /// Seconds of CPU time for the whole run, as memtrace's own profile states it: with loading the kernel
    /// program, measuring prices and finding the allocator.
    whole_run: f64,
}

/// Memory with [`LIVE_SAMPLES`] live samples.
#[derive(Serialize)]
pub(crate) struct Memory {
    /// The largest resident set in bytes, as memtrace's own profile states it: writing that profile is
    /// part of it.
    pub(crate) resident: f64,
    /// Bytes in the kernel's tables at the end.
    kernel: u64,
    /// Live samples at the end.
    live: f64,
    /// Stacks in the profile.
    stacks: usize,
}

impl Own {
    /// Measures those cases that `chooses` wants.
    pub(crate) fn measure(
        load: &Path,
        memtrace: &Path,
        directory: &Path,
        chooses: impl Fn(&str) -> bool,
    ) -> Self {
        let own = Recorder { load, memtrace, directory };
        let mut measured = Self::default();
        if chooses(CPU) {
            eprintln!("{CPU}");
            measured.cpu = Some(Measured::new(own.cpu()));
        }
        if chooses(MEMORY) {
            eprintln!("{MEMORY}");
            measured.memory = Some(Measured::new(own.memory()));
        }
        measured
    }

    /// Names of the cases that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &'static str> {
        let cpu = self.cpu.as_ref().is_some_and(|cpu| cpu.error.is_some()).then_some(CPU);
        let memory = self.memory.as_ref().is_some_and(|memory| memory.error.is_some()).then_some(MEMORY);
        cpu.into_iter().chain(memory)
    }

    /// For a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let cpu = self.cpu.as_ref().map(|cpu| match &cpu.figures {
            Some(figures) => format!(
                "{CPU}: {:.2} % of a core at {:.0} calls/s over {} s; {:.2} s for the whole run, with its start",
                figures.share * 100.0,
                figures.calls_per_second,
                WINDOW.as_secs(),
                figures.whole_run
            ),
            None => format!("{CPU}: failed: {}", cpu.error.as_deref().unwrap_or_default()),
        });
        let memory = self.memory.as_ref().map(|memory| match &memory.figures {
            Some(figures) => format!(
                "{MEMORY}: {:.1} MiB resident at most with {} live samples of {} stacks; {:.1} MiB in the \
                 kernel's tables",
                figures.resident / 1048576.0,
                figures.live,
                figures.stacks,
                figures.kernel as f64 / 1048576.0
            ),
            None => format!("{MEMORY}: failed: {}", memory.error.as_deref().unwrap_or_default()),
        });
        cpu.into_iter().chain(memory).collect()
    }
}

impl<T> Measured<T> {
    fn new(result: Result<T>) -> Self {
        match result {
            Ok(figures) => Self { figures: Some(figures), error: None },
            Err(error) => Self { figures: None, error: Some(format!("{error:#}")) },
        }
    }
}

struct Recorder<'a> {
    load: &'a Path,
    memtrace: &'a Path,
    directory: &'a Path,
}

impl Recorder<'_> {
    /// Starts memtrace on `load`.
    fn record(&self, load: &Load, interval: &str) -> Result<Running> {
        let profile = self.profile().to_string_lossy().into_owned();
        let pid = load.child.id().to_string();
        let arguments = ["record", "-p", &pid, "-s", interval, "-o", &profile].map(str::to_owned);
        Running::start(
            &Code::of(load.child.id())?,
            self.directory,
            &self.memtrace.to_string_lossy(),
            &arguments,
        )
    }

    fn profile(&self) -> std::path::PathBuf {
        self.directory.join("own.json")
    }

    fn read_profile(&self) -> Result<Value> {
        let text = fs::read(self.profile()).context("memtrace has written no profile")?;
        serde_json::from_slice(&text).context("memtrace has written a profile that is not JSON")
    }

    fn cpu(&self) -> Result<Cpu> {
        let mut load = Load::start(self.load, "rate", CALLS_PER_SECOND)?;
        load.begin()?;
        let running = self.record(&load, "512KiB")?;
        // What is done once, at the start, is over then.
        sleep(Duration::from_secs(1));
        let (begun, before) = (Instant::now(), observe::cpu_time(running.pid())?);
        sleep(WINDOW);
        let used = observe::cpu_time(running.pid())?.saturating_sub(before);
        let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
        running.stop()?;

        let profile = self.read_profile()?;
        let calls = statistic(&profile, "allocation_calls_count")? + statistic(&profile, "free_calls_count")?;
        let seconds = profile["duration_seconds"].as_f64().context("the profile has no duration")?;
        let calls_per_second = calls / seconds;
        if calls_per_second < CALLS_PER_SECOND as f64 * 0.95 {
            bail!("the target came to {calls_per_second:.0} calls a second only; is this machine busy?");
        }
        Ok(Cpu { share, calls_per_second, whole_run: statistic(&profile, "memtrace_cpu_time_seconds")? })
    }

    fn memory(&self) -> Result<Memory> {
        let mut load = Load::start(self.load, "hold", LIVE_SAMPLES)?;
        let running = self.record(&load, "1")?;
        load.begin()?;
        load.expect("held")?;
        sleep(Duration::from_secs(1));
        let kernel = observe::bpf_maps(running.pid())?;
        running.stop()?;

        let profile = self.read_profile()?;
        let live = statistic(&profile, "samples_count")? - statistic(&profile, "samples_freed_count")?;
        if live < LIVE_SAMPLES as f64 {
            bail!("memtrace has {live} live samples of {LIVE_SAMPLES}");
        }
        let stacks = profile["stacks"].as_array().context("the profile has no stacks")?.len();
        let resident = statistic(&profile, "memtrace_resident_peak_bytes")?;
        Ok(Memory { resident, kernel, live, stacks })
    }
}

fn statistic(profile: &Value, name: &str) -> Result<f64> {
    profile["statistics"][name].as_f64().with_context(|| format!("the profile does not state {name}"))
}

/// A running `load`; killed when dropped.
struct Load {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    fn start(program: &Path, what: &str, amount: u64) -> Result<Self> {
        let mut command = Command::new(program);
        command.args([what, &amount.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = BufReader::new(child.stdout.take().context("the load has no standard output")?);
        let mut load = Self { child, stdout };
        load.expect("ready")?;
        Ok(load)
    }

    fn begin(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the load has no standard input")?;
        writeln!(stdin, "begin").context("the load no longer listens")
    }

    /// Waits until it says `word`.
    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("the load does not answer")?;
        if line.trim_end() != word {
            bail!("the load said `{}` instead of `{word}`", line.trim_end());
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
