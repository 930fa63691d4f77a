//! Starting a command so that it can be traced from its first allocation.
//!
//! The new process waits before it executes the command, until the kernel program knows of it. From then
//! on the kernel program stops it (`SIGSTOP`) when the command is executed and when its libraries are
//! loaded, and memtrace lets it go on when the probes are set.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::AsRawFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use thiserror::Error;

use crate::descriptors;

/// A command could not be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// No such file.
    #[error("there is no command {0:?}: check the spelling, or give its path")]
    NotFound(String),
    /// Not executable.
    #[error("{0:?} cannot be executed: it is not a program, or its execute permission is missing")]
    NotExecutable(String),
    /// Anything else.
    #[error("cannot start {command:?}")]
    Io {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    fn new(command: &str, source: io::Error) -> Self {
        let command = command.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound(command),
            io::ErrorKind::PermissionDenied => Self::NotExecutable(command),
            _ if source.raw_os_error() == Some(libc::ENOEXEC) => Self::NotExecutable(command),
            _ => Self::Io { command, source },
        }
    }

    /// The exit status that shells give for this (POSIX, 2.8.2): 127 not found, 126 not executable.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) => 126,
            Self::Io { .. } => 1,
        }
    }
}

/// A process that has been started but waits before it executes its command.
pub struct Launched {
    /// Its id.
    pub pid: u32,
    command: String,
    go: Option<PipeWriter>,
    spawning: Option<JoinHandle<io::Result<Child>>>,
    child: Option<Child>,
}

/// Starts a process that will execute `command` with `arguments` once it is [released](Launched::release).
///
/// # Errors
/// When no process can be started.
pub fn launch(command: &str, arguments: &[String]) -> Result<Launched, LaunchError> {
    let fail = |source| LaunchError::new(command, source);
    let (mut pid_reader, pid_writer) = io::pipe().map_err(fail)?;
    let (go_reader, go_writer) = io::pipe().map_err(fail)?;
    let mut child = Command::new(command);
    child.args(arguments);
    // The descriptors are close-on-exec, so the command itself never has them. The child must not hold
    // the writing end of the pipe it waits on, or it would wait for ever if memtrace died.
    let go_writer_fd = go_writer.as_raw_fd();
    let wait = move || wait_before_exec(&pid_writer, &go_reader, go_writer_fd);
    // SAFETY: between fork and exec the closure only calls getpid, close, setrlimit, read and write, which are
    // async-signal-safe (signal-safety(7)).
    unsafe { child.pre_exec(wait) };
    // The standard library's spawn returns only when exec has succeeded or failed.
    let spawning = std::thread::spawn(move || child.spawn());
    let mut pid = [0; 4];
    if pid_reader.read_exact(&mut pid).is_err() {
        // The process could not even be forked; the thread knows why.
        let error = match spawning.join() {
            Ok(Err(error)) => error,
            _ => io::Error::other("the new process ended at once"),
        };
        return Err(fail(error));
    }
    Ok(Launched {
        pid: u32::from_ne_bytes(pid),
        command: command.to_owned(),
        go: Some(go_writer),
        spawning: Some(spawning),
        child: None,
    })
}

fn wait_before_exec(mut pid_writer: &PipeWriter, mut go: &PipeReader, go_writer_fd: i32) -> io::Result<()> {
    // SAFETY: closes the child's copy of a descriptor that nothing in the child uses.
    unsafe { libc::close(go_writer_fd) };
    descriptors::restore_limit();
    pid_writer.write_all(&std::process::id().to_ne_bytes())?;
    // One byte: go on. End of file: memtrace has died or given up, and then the command is not run.
    go.read_exact(&mut [0])
}

impl Launched {
    /// Lets the process execute its command. It will stop (see the module) before the command's first
    /// instruction.
    pub fn release(&mut self) {
        if let Some(mut go) = self.go.take() {
            // A failure means that the process is gone, which `executed` reports.
            let _ = go.write_all(&[1]);
        }
    }

    /// Whether the command has been executed; to be asked when the process was seen to execute it, or to
    /// have ended.
    ///
    /// # Errors
    /// When the command could not be executed.
    pub fn executed(&mut self) -> Result<(), LaunchError> {
        let Some(spawning) = self.spawning.take() else { return Ok(()) };
        let fail = |source| LaunchError::new(&self.command, source);
        let child = spawning.join().map_err(|_| fail(io::Error::other("the starting thread panicked")))?;
        self.child = Some(child.map_err(fail)?);
        Ok(())
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes two numbers. The process is our child and not yet waited for, so its id cannot
        // have been given to another one.
        unsafe { libc::kill(self.pid as libc::pid_t, signal) };
    }

    /// Waits for the end of the process. Blocks.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait(),
            None => Err(io::Error::other("the command was never executed")),
        }
    }
}

/// The exit status that a shell would give for this one: 128 + N for a process that signal N has ended.
pub fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}
