//! Processes to trace.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fixture::Build;
use crate::process::{PATIENCE, Process};
use crate::stacks::{Books, truth};
use crate::tools;

/// A `leak`, or another fixture, that serves: it does what a line asks for, and tells the truth.
#[derive(Debug)]
pub struct Leak(pub Process);

impl Leak {
    /// Starts it; it has allocated nothing yet.
    pub fn serve(build: Build) -> Self {
        Self::start(std::process::Command::new(build.path()).arg("serve"))
    }

    /// Starts it by `command`.
    pub fn start(command: &mut std::process::Command) -> Self {
        let mut process = Process::spawn(command);
        process.stdout_line(|line| line == "ready");
        Self(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Lets it execute itself anew.
    pub fn execute(&mut self) {
        assert_eq!(self.0.ask("execute 1 0"), "ready");
    }

    /// Does `operations` ("leak_a 10 100 churn 5 20") and returns the truth since the start.
    pub fn perform(&mut self, operations: &str) -> Books {
        truth(&self.0.ask(operations))
    }
}

/// Debian's python3, which allocates without pause and answers on its standard input.
#[derive(Debug)]
pub struct Python(Process);

impl Python {
    /// Starts it. Not the `python3` of the path, which may be a wrapper.
    pub fn serve() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/serve.py");
        let mut process = Process::spawn(tools::command("/usr/bin/python3").arg(script));
        process.stdout_line(|line| line == "ready");
        Self(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Waits until it has used so much CPU time from now on.
    pub fn wait_for_work(&self, time: Duration) {
        self.0.wait_for_work(time);
    }

    /// Asserts that it answers.
    #[track_caller]
    pub fn assert_serves(&mut self) {
        assert_eq!(self.0.ask("are you there"), "answer are you there");
    }
}

const SOCKET: &str = "socket";

/// Debian's redis-server on a socket in a directory of its own, where no other test can be, with nothing kept on disk.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    dir: TempDir,
}

impl Redis {
    /// Starts it and waits until it serves.
    pub fn serve() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = tools::command("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", SOCKET]);
        command.arg("--dir").arg(dir.path()).current_dir(dir.path());
        let mut process = Process::spawn(&mut command);
        process.stdout_line(|line| line.to_lowercase().contains("ready to accept connections"));
        Self { process, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("redis accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The name of the file that is mapped: Debian's redis-server is a link to another program of redis.
    pub fn program(&self) -> String {
        let path = std::fs::read_link(format!("/proc/{}/exe", self.pid())).expect("redis is running");
        path.file_name().expect("a program has a name").to_string_lossy().into_owned()
    }

    /// Asserts that it answers.
    #[track_caller]
    pub fn assert_serves(&self) {
        let mut stream = self.connect();
        stream.write_all(b"PING\r\n").expect("redis reads");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("redis answers");
        assert_eq!(answer, "+PONG\r\n");
    }

    /// Puts it under load until the guard is dropped.
    pub fn benchmark(&self) -> Process {
        let mut command = tools::command("redis-benchmark");
        command.arg("-s").arg(self.socket());
        // Random keys and values of 400 bytes, so that its memory grows.
        command.args(["-t", "set,lpush,get", "-r", "1000000", "-d", "400"]);
        command.args(["-n", "1000000000", "-c", "8", "-q"]);
        let benchmark = Process::spawn(&mut command);
        self.wait_for_commands(1000);
        benchmark
    }

    /// Waits until it has served so many more commands.
    #[track_caller]
    pub fn wait_for_commands(&self, more: u64) {
        let (before, limit) = (self.commands_served(), Instant::now() + PATIENCE);
        while self.commands_served() < before + more {
            assert!(Instant::now() < limit, "redis is not under load");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many commands it has served so far (`INFO stats`).
    fn commands_served(&self) -> u64 {
        let stream = self.connect();
        (&stream).write_all(b"INFO stats\r\n").expect("redis reads");
        for line in BufReader::new(&stream).lines() {
            if let Some(count) = line.expect("redis answers").strip_prefix("total_commands_processed:") {
                return count.trim().parse().expect("a count is a number");
            }
        }
        panic!("INFO stats does not say how many commands were processed");
    }
}
