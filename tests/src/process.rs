//! A child process that is watched: its output is collected as it comes, every wait has a limit, and
//! it is killed when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The limit of every wait: far more than anything takes on a slow machine, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    name: String,
}

/// How a process ended and all that it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with its three standard streams connected to this guard.
    pub fn spawn(command: &mut Command) -> Self {
        let name = format!("{:?}", command.get_program());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            stdin: child.stdin.take(),
            stdout: Lines::of(child.stdout.take().expect("stdout is piped")),
            stderr: Lines::of(child.stderr.take().expect("stderr is piped")),
            child,
            name,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its standard output for which `wanted` holds.
    pub fn stdout_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.stdout.wait_for(wanted);
        line.unwrap_or_else(|| panic!("{} did not print what was waited for\n{}", self.name, self.so_far()))
    }

    /// Waits for a line of its standard error for which `wanted` holds.
    pub fn stderr_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.stderr.wait_for(wanted);
        line.unwrap_or_else(|| panic!("{} did not report what was waited for\n{}", self.name, self.so_far()))
    }

    /// Writes `line` to its standard input and returns the next line of its standard output.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.stdout_line(|_| true)
    }

    /// Writes `line` to its standard input; [`Self::stdout_line`] then waits for what it answers.
    pub fn tell(&mut self, line: &str) {
        self.stdout.forget();
        let stdin = self.stdin.as_mut().expect("its stdin has not been closed");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} no longer listens: {error}", self.name));
    }

    /// Waits until it has used so much CPU time from now on, which a busy machine takes longer to give it.
    pub fn wait_for_work(&self, time: Duration) {
        let (before, limit) = (self.cpu_time(), Instant::now() + PATIENCE);
        while self.cpu_time() < before + time {
            assert!(Instant::now() < limit, "{} does nothing\n{}", self.name, self.so_far());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// User and system time of all its threads, as `/proc/PID/stat` counts them: in hundredths of a second.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("its name is in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Sends `signal` to it.
    pub fn signal(&self, signal: i32) {
        send(self.pid() as i32, signal);
    }

    /// Sends `signal` to its process group, as a terminal does; start it with `process_group(0)`.
    pub fn signal_group(&self, signal: i32) {
        send(-(self.pid() as i32), signal);
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Closes its standard input and waits until it has ended.
    pub fn finish(mut self) -> Outcome {
        self.stdin = None;
        let limit = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(Instant::now() < limit, "{} does not end\n{}", self.name, self.so_far());
            std::thread::sleep(Duration::from_millis(5));
        };
        Outcome { status, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }

    fn so_far(&self) -> String {
        format!("--- its stdout:\n{}\n--- its stderr:\n{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// The exit code; a process that was ended by a signal has none.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }

    /// Asserts that it ended well, and returns it.
    pub fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Asserts what holds for everything that memtrace says, whatever it is asked: no panic, no backtrace, no
    /// data structure where a person expects words.
    pub fn assert_civil(&self) {
        let said = format!("{}{}", self.stdout, self.stderr);
        for mark in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Os {", "Err(", "Some(", "None)"] {
            assert!(!said.contains(mark), "`{mark}` is no way to tell a user:\n{said}");
        }
    }

    /// Asserts that memtrace refused as it should: with one of `codes`, and with a sentence on standard error
    /// that contains each of `words` (whatever their case; `a|b` stands for either).
    #[track_caller]
    pub fn assert_refused(&self, codes: &[i32], words: &[&str]) {
        self.assert_civil();
        let said = format!("stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(codes.contains(&self.code()), "exit code {} is not one of {codes:?}; {said}", self.code());
        assert!(
            self.stderr.lines().any(|line| line.starts_with("memtrace: ")),
            "no `memtrace: ...` line; {said}"
        );
        self.assert_says(words);
    }

    /// Asserts that its standard error contains each of `words` (whatever their case; `a|b` stands for either).
    #[track_caller]
    pub fn assert_says(&self, words: &[&str]) {
        let said = self.stderr.to_lowercase();
        for word in words {
            let found = word.split('|').any(|choice| said.contains(&choice.to_lowercase()));
            assert!(found, "`{word}` is missing in stderr:\n{}", self.stderr);
        }
    }
}

fn send(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers; a wrong pid is an error, not undefined.
    let result = unsafe { libc::kill(pid, signal) };
    assert_eq!(result, 0, "cannot signal {pid}: {}", std::io::Error::last_os_error());
}

/// The lines of a stream, read by a thread of their own so that the writer never blocks.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Debug, Default)]
struct Collected {
    lines: Vec<String>,
    /// How many lines `wait_for` has gone past.
    consumed: usize,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                writer.update(|read| read.lines.push(String::from_utf8_lossy(&line).into_owned()));
                line.clear();
            }
            writer.update(|read| read.ended = true);
        });
        lines
    }

    fn update(&self, change: impl FnOnce(&mut Collected)) {
        change(&mut self.0.0.lock().expect("no holder of the lock panics"));
        self.0.1.notify_all();
    }

    /// The next line for which `wanted` holds, without its end; None when the stream ends or patience does.
    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let limit = Instant::now() + PATIENCE;
        let mut read = self.0.0.lock().expect("no holder of the lock panics");
        loop {
            while read.consumed < read.lines.len() {
                read.consumed += 1;
                let line = read.lines[read.consumed - 1].trim_end_matches('\n');
                if wanted(line) {
                    return Some(line.to_owned());
                }
            }
            let left = limit.checked_duration_since(Instant::now()).filter(|_| !read.ended)?;
            read = self.0.1.wait_timeout(read, left).expect("no holder of the lock panics").0;
        }
    }

    /// Lets `wait_for` look only at what comes from now on.
    fn forget(&self) {
        self.update(|read| read.consumed = read.lines.len());
    }

    fn text(&self) -> String {
        self.0.0.lock().expect("no holder of the lock panics").lines.concat()
    }

    /// All of the text once the stream has ended. A grandchild may hold it open: then what came in time.
    fn all(&self) -> String {
        let read = self.0.0.lock().expect("no holder of the lock panics");
        let wait = self.0.1.wait_timeout_while(read, Duration::from_secs(5), |read| !read.ended);
        wait.expect("no holder of the lock panics").0.lines.concat()
    }
}
