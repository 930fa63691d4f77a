//! A process that outlives memtrace, should that be killed, for a moment: to let go on what is stopped.
//!
//! The kernel program stops the processes of a launched command while memtrace sets their probes, for some milliseconds
//! each. If memtrace is killed just then, nobody else would let them go on.

use std::{
    env,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, parent_id},
    },
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use memtrace::kernel::{Abandoned, Kernel};

/// Let the processes of a killed memtrace go on: started by memtrace itself
///
/// Standard input is a pipe whose other end memtrace holds; the other two are tables of the kernel program.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// The name of the subcommand.
const NAME: &str = "guard";

/// For so long a stop may be on its way when the books are closed and memtrace is gone.
const ROUNDS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A pipe that the guard listens to. To be made before the kernel program is loaded: when memtrace is killed, the kernel
/// closes its descriptors one after another, and waits for a grace period with many of those that come later.
pub(super) struct Line {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Line {
    /// Makes one.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub(super) fn new() -> Result<Self> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        Ok(Self { reader, writer })
    }
}

/// The guard, seen from memtrace. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pipe: PipeWriter,
    child: Child,
}

impl Guard {
    /// Starts one for the processes that `kernel` watches.
    ///
    /// # Errors
    /// When no process can be started.
    pub(super) fn start(line: Line, kernel: &Kernel) -> Result<Self> {
        let (watched, running) = kernel.for_guard()?;
        let hand_over = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
        let program = env::current_exe().context("cannot find memtrace's own file")?;
        let mut command = Command::new(program);
        command.arg(NAME).stdin(OwnedFd::from(line.reader));
        command.stdout(hand_over(watched).context("cannot duplicate a descriptor")?);
        command.stderr(hand_over(running).context("cannot duplicate a descriptor")?);
        // Ctrl-C on a terminal is not for it.
        let child = command.process_group(0).spawn().context("cannot start the guard")?;
        Ok(Self { pipe: line.writer, child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // If it has been killed, it is gone as well.
        let _ = self.pipe.write_all(b"0");
        let _ = self.child.wait();
    }
}

/// Runs the subcommand.
pub(super) fn run(_args: &Args) -> Result<ExitCode> {
    // Whoever kills all processes that are called memtrace does not mean this one.
    // SAFETY: the name is a string that lives until the call is over.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"memtrace-guard".as_ptr()) };
    let memtrace = parent_id();
    let tables = (io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned());
    let mut abandoned = Abandoned::new(
        tables.0.context("standard output is closed")?,
        tables.1.context("standard error is closed")?,
    )?;
    if io::stdin().read(&mut [0])? > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    // A failure here leaves the rounds, which last until the kernel program is gone.
    let _ = abandoned.close_books();
    let mut rounds = 0;
    while rounds < ROUNDS {
        // Until then its programs are there.
        rounds += u32::from(parent_id() != memtrace);
        for pid in abandoned.stopped() {
            // SAFETY: takes two numbers. Should the process have ended, and its number be another's by now, that
            // one is told to go on, which it does.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGCONT) };
        }
        sleep(PAUSE);
    }
    Ok(ExitCode::SUCCESS)
}
