//! `memtrace record`: started, tracing, stopped, and what it left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Outcome, Process};
use crate::stacks::{Books, Stacks};
use crate::{json, pprof, stacks, tools};

/// The ways in which memtrace can attach its probes. What holds for one must hold for each.
pub const ATTACH_MODES: [&str; 3] = ["session", "multi", "perf"];

/// Each of [`ATTACH_MODES`], named on standard output so that a test which fails says in which.
pub fn attach_modes() -> impl Iterator<Item = &'static str> {
    ATTACH_MODES.into_iter().inspect(|mode| println!("--attach-mode {mode}"))
}

/// A recording that is being prepared: options, and a directory of its own in which it runs.
#[derive(Debug)]
pub struct Recorder {
    options: Vec<String>,
    output: Option<String>,
    dir: TempDir,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// At the default interval, into `out.pb.gz` in its own directory.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { options: Vec::new(), output: Some("out.pb.gz".to_owned()), dir }
    }

    /// Every allocation is recorded.
    pub fn exact() -> Self {
        Self::new().interval("1")
    }

    /// With this sample interval.
    pub fn interval(self, interval: &str) -> Self {
        self.option("--sample-interval").option(interval)
    }

    /// Attached in this way, and no other.
    pub fn attach_mode(self, mode: &str) -> Self {
        self.option("--attach-mode").option(mode)
    }

    /// Of the command alone: some fixtures have children whose objects are not in the truth that they tell.
    pub fn alone(self) -> Self {
        self.option("--follow").option("none")
    }

    /// With one more word on the command line.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Into this file, relative to its directory.
    pub fn output(mut self, name: &str) -> Self {
        self.output = Some(name.to_owned());
        self
    }

    /// Into a file of the default name.
    pub fn default_output(mut self) -> Self {
        self.output = None;
        self
    }

    /// The directory in which it runs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command, with `rest` after the options: `["-p", "12"]` or `["--", "true"]`.
    pub fn command(&self, rest: &[&str]) -> Command {
        let mut command = memtrace();
        command.arg("record").args(&self.options).current_dir(self.dir());
        if let Some(output) = &self.output {
            command.args(["-o", output]);
        }
        command.args(rest);
        command
    }

    /// Runs it with `rest` to its end.
    pub fn run(self, rest: &[&str]) -> Recorded {
        Recording::of(Process::spawn(&mut self.command(rest)), self).finish()
    }

    /// Records `program` from its first allocation to its end.
    pub fn launch(self, program: &Path, arguments: &[&str]) -> Recorded {
        let mut rest = vec!["--", program.to_str().expect("the path is UTF-8")];
        rest.extend_from_slice(arguments);
        self.run(&rest)
    }

    /// Attaches to `pid`; returns once it is traced.
    pub fn attach(self, pid: u32) -> Recording {
        let pid = pid.to_string();
        let mut recording = Recording::of(Process::spawn(&mut self.command(&["-p", &pid])), self);
        recording.process.stderr_line(|line| line.contains(&format!("tracing pid {pid}")));
        recording
    }

    /// Attaches to the processes that `options` select; returns once they are traced, with the first one's id.
    pub fn select(self, options: &[&str]) -> (Recording, u32) {
        let mut recording = Recording::of(Process::spawn(&mut self.command(options)), self);
        let line = recording.process.stderr_line(|line| line.starts_with("memtrace: tracing "));
        let mut words = line.split_whitespace().skip_while(|word| *word != "pid").skip(1);
        let pid = words.next().and_then(|word| word.parse().ok());
        (recording, pid.expect("it says which process it traces"))
    }

    /// It says when it has set probes on a process.
    pub fn verbose(self) -> Self {
        self.option("-v")
    }
}

/// A recording that runs.
#[derive(Debug)]
pub struct Recording {
    /// memtrace itself.
    pub process: Process,
    recorder: Recorder,
}

impl Recording {
    /// The recording that `process` makes for `recorder`.
    pub fn of(process: Process, recorder: Recorder) -> Self {
        Self { process, recorder }
    }

    /// Waits until new processes have their probes. To be called at most once for each process of a
    /// [verbose](Recorder::verbose) recording.
    pub fn wait_for_probes(&mut self, pids: &[u32]) {
        let mut missing: BTreeSet<_> = pids.iter().copied().collect();
        while !missing.is_empty() {
            println!("waiting for probes in {missing:?}");
            // When a program is executed, its libraries are not there yet.
            let are_set = |line: &str| line.contains("probes set") && !line.contains(" functions=0");
            let line = self.process.stderr_line(are_set);
            let pid = line.split_whitespace().find_map(|word| word.strip_prefix("pid="));
            missing.remove(&pid.and_then(|pid| pid.parse().ok()).expect("it says in which process"));
        }
    }

    /// Sends `signal` to it, and waits until it has ended.
    pub fn stop(self, signal: i32) -> Recorded {
        self.process.signal(signal);
        self.finish()
    }

    /// Waits until it has ended by itself.
    pub fn finish(self) -> Recorded {
        let outcome = self.process.finish();
        outcome.assert_civil();
        Recorded { outcome, recorder: self.recorder }
    }
}

/// A recording that has ended, and its directory.
#[derive(Debug)]
pub struct Recorded {
    /// How it ended and what it said.
    pub outcome: Outcome,
    recorder: Recorder,
}

impl Recorded {
    /// Asserts that it ended well.
    pub fn expect_success(self) -> Self {
        self.outcome.clone().expect_success();
        self
    }

    /// The truth that the launched fixture told.
    pub fn truth(&self) -> Books {
        stacks::truth(&self.outcome.stdout)
    }

    /// The directory in which it ran.
    pub fn dir(&self) -> &Path {
        self.recorder.dir()
    }

    /// The file that it was to write.
    pub fn output(&self) -> PathBuf {
        self.dir().join(self.recorder.output.as_ref().expect("the output was given a name"))
    }

    /// The names of the files in its directory, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir()).expect("the directory is readable");
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.flatten().map(name).collect();
        names.sort();
        names
    }

    /// The profile, read as pprof.
    pub fn pprof(&self) -> pprof::proto::Profile {
        pprof::proto::Profile::read(&self.output())
    }

    /// The profile, read as JSON.
    pub fn json(&self) -> json::Profile {
        json::Profile::read(&self.output())
    }

    /// The directory with a profile of each process.
    pub fn directory_of_each(&self) -> PathBuf {
        let output = self.output();
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let stem = ["pb.gz", "json"].iter().find_map(|ending| name.strip_suffix(&format!(".{ending}")));
        output.with_file_name(format!("{}.processes", stem.expect("the format is known")))
    }

    /// The profiles of the single processes, by the names of their files: `COMM.PID`, with the endings of JSON.
    pub fn each(&self) -> BTreeMap<OfProcess, json::Profile> {
        let directory = self.directory_of_each();
        let entries = std::fs::read_dir(&directory);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let profile = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of = OfProcess::of_file(&name).unwrap_or_else(|| panic!("{name} is not COMM.PID.json"));
            (of, json::Profile::read(&entry.path()))
        };
        entries.map(|entry| profile(entry.expect("the directory is readable"))).collect()
    }

    /// The stacks of the profile, read as pprof.
    pub fn stacks(&self) -> Stacks {
        self.pprof().stacks()
    }
}

/// Whose profile one of several is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfProcess {
    /// The process's id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

impl OfProcess {
    fn of_file(name: &str) -> Option<Self> {
        let (comm, pid) = name.strip_suffix(".json")?.rsplit_once('.')?;
        Some(Self { pid: pid.parse().ok()?, comm: comm.to_owned() })
    }
}

/// The memtrace command. With backtraces asked for, so that one which would be printed is seen.
pub fn memtrace() -> Command {
    let mut command = Command::new(tools::memtrace());
    command.env("RUST_BACKTRACE", "1").env("LC_ALL", "C.UTF-8");
    command
}

/// Runs `memtrace` with `arguments` to its end, without anything being asked of what it said.
pub fn run(arguments: &[&str]) -> Outcome {
    let outcome = Process::spawn(memtrace().args(arguments)).finish();
    outcome.assert_civil();
    outcome
}
