//! Processes to trace.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
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

    /// Asserts that it answers.
    #[track_caller]
    pub fn assert_serves(&mut self) {
        assert_eq!(self.0.ask("are you there"), "answer are you there");
    }
}

/// Debian's redis-server on a free port of the loopback interface, with nothing kept on disk.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl Redis {
    /// Starts it and waits until it serves.
    pub fn serve() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let mut command = tools::command("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &port.to_string(),
        ]);
        command.arg("--dir").arg(dir.path());
        let mut process = Process::spawn(&mut command);
        process.stdout_line(|line| line.contains("Ready to accept connections"));
        Self { process, port, _dir: dir }
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("redis accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.write_all(b"PING\r\n").expect("redis reads");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("redis answers");
        assert_eq!(answer, "+PONG\r\n");
    }

    /// Puts it under load until the guard is dropped.
    pub fn benchmark(&self) -> Process {
        let port = self.port.to_string();
        let mut command = tools::command("redis-benchmark");
        // Random keys and values of 400 bytes, so that its memory grows.
        command.args(["-h", "127.0.0.1", "-p", &port, "-t", "set,lpush,get", "-r", "1000000", "-d", "400"]);
        command.args(["-n", "1000000000", "-c", "8", "-q"]);
        let benchmark = Process::spawn(&mut command);
        let limit = Instant::now() + PATIENCE;
        while self.commands_served() < 1000 {
            assert!(Instant::now() < limit, "redis-benchmark does nothing: {benchmark:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        benchmark
    }

    /// How many commands it has served so far (`INFO stats`).
    pub fn commands_served(&self) -> u64 {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("redis accepts connections");
        (&stream).write_all(b"INFO stats\r\n").expect("redis reads");
        for line in BufReader::new(&stream).lines() {
            if let Some(count) = line.expect("redis answers").strip_prefix("total_commands_processed:") {
                return count.trim().parse().expect("a count is a number");
            }
        }
        panic!("INFO stats does not say how many commands were processed");
    }
}

/// A port that was free a moment ago. The kernel hands out ephemeral ports in a random order, so that two
/// tests get the same one only by an unlikely chance, and then redis does not start.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}
