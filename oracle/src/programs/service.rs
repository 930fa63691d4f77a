//! Processes that run beside the recording.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a service may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running process; told to end (`SIGTERM`) and waited for when dropped.
pub(super) struct Service(Child);

impl Service {
    /// Starts a command in the background; what it says goes to a file in `directory`.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().replace('/', "_");
        let log = File::create(directory.join(format!("{name}.log"))).context("cannot write a log")?;
        let errors = log.try_clone().context("cannot share a log")?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {name}"))?))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SAFETY: takes two numbers; the child has not been waited for, so its id is its own.
        unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGTERM) };
        // Nobody is left to be told of a failure.
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none for half a minute.
pub(super) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        sleep(Duration::from_millis(50));
    }
    bail!("{what} did not come within {} seconds", PATIENCE.as_secs())
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails; with what it has said.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port of this machine that nobody listens on.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on any port")?;
    Ok(listener.local_addr().context("the port has no number")?.port())
}

/// A path as text.
///
/// # Errors
/// When it is not UTF-8.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
