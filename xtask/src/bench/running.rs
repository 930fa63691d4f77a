//! A tracer that is a process and attaches to another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::code::{Code, FUNCTIONS};
use super::patience;

/// How long a tracer is left alone between its first probe and the measurement.
const SETTLE: Duration = Duration::from_millis(200);

/// A running tracer; killed when dropped.
pub(crate) struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts `program` and waits until the process whose code is `code` has its probes. That is seen in
    /// the process's memory, not in what the tracer says, so that it works for every tracer.
    ///
    /// # Errors
    /// When the tracer does not start, ends early, or sets no probes.
    pub(crate) fn start(code: &Code, directory: &Path, program: &str, arguments: &[String]) -> Result<Self> {
        let log = directory.join("tracer.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the tracer's log")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let mut running = Self { child, name: program.to_owned(), log };
        let attached = patience::wait_until(|| {
            running.fail_if_ended()?;
            Ok(code.probed()?.len() == FUNCTIONS.len())
        })?;
        if !attached {
            bail!("{} attached no probes to {}{}", running.name, FUNCTIONS.join(" and "), running.said());
        }
        sleep(SETTLE);
        Ok(running)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C would, and waits for it.
    ///
    /// # Errors
    /// When it has ended before, fails, or does not end.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.fail_if_ended()?;
        // SAFETY: kill takes no pointers; the child has not been waited for, so that its id is its own.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) } < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot interrupt {}", self.name));
        }
        match patience::wait_for(&mut self.child)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} failed ({status}){}", self.name, self.said()),
            None => bail!("{} does not end at SIGINT{}", self.name, self.said()),
        }
    }

    /// Fails with what it has said if it no longer runs.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn fail_if_ended(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot wait for the tracer")? {
            Some(status) => bail!("{} ended while it should trace ({status}){}", self.name, self.said()),
            None => Ok(()),
        }
    }

    /// What it printed, as lines of their own after an error; of much, only the end.
    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(its log: {error})"));
        let lines: Vec<_> = log.trim_end().lines().collect();
        lines[lines.len().saturating_sub(20)..].iter().map(|line| format!("\n{line}")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` both fail, because the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
