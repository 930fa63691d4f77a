//! A running process, as `/proc` shows it.

use procfs::{ProcError, process::Process};
use thiserror::Error;

/// A process could not be looked at.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No such process.
    #[error(
        "there is no process {0}: it has ended, or it is in a PID namespace that memtrace does not see \
         (`ps -e` lists those it does)"
    )]
    NotFound(u32),
    /// It is a zombie.
    #[error("process {0} has ended and only waits for its parent to notice: there is nothing left to trace")]
    Zombie(u32),
    /// Its main thread has ended, but others go on.
    #[error(
        "the main thread of process {0} has ended while others go on: memtrace cannot attach to such a process, \
         because the kernel hides its mappings; attach before the main thread ends, or start it with `memtrace \
         record -- CMD`"
    )]
    MainThreadEnded(u32),
    /// It has no user memory.
    #[error("process {0} is a kernel thread: it has no heap that memtrace could trace")]
    KernelThread(u32),
    /// Not permitted.
    #[error(
        "not permitted to look into process {0}: run memtrace as root, or give it CAP_SYS_PTRACE \
         (`memtrace doctor -p {0}` says what is missing)"
    )]
    NotPermitted(u32),
    /// It ended meanwhile.
    #[error("process {0} ended while memtrace was attaching to it: there is nothing left to trace")]
    Ended(u32),
    /// Anything else.
    #[error("cannot read /proc/{pid}")]
    Proc {
        /// The process.
        pid: u32,
        /// What happened.
        #[source]
        source: ProcError,
    },
}

impl TargetError {
    fn new(pid: u32, source: ProcError) -> Self {
        match source {
            ProcError::NotFound(_) => Self::NotFound(pid),
            ProcError::PermissionDenied(_) => Self::NotPermitted(pid),
            ProcError::Io(error, _) if error.raw_os_error() == Some(libc::ESRCH) => Self::Ended(pid),
            source => Self::Proc { pid, source },
        }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id, as memtrace's PID namespace numbers it.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub comm: String,
}

impl Target {
    /// Looks at a running process.
    ///
    /// # Errors
    /// When there is none with this id, or it cannot be traced; see [`TargetError`].
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let fail = |source| TargetError::new(pid, source);
        let signed = i32::try_from(pid).map_err(|_| TargetError::NotFound(pid))?;
        let process = Process::new(signed).map_err(fail)?;
        let stat = process.stat().map_err(fail)?;
        // A thread's id opens /proc/TID as well, but the process is what is traced.
        let status = process.status().map_err(fail)?;
        if status.tgid != signed {
            return Self::open(status.tgid.unsigned_abs());
        }
        match stat.state {
            'Z' if stat.num_threads > 1 => return Err(TargetError::MainThreadEnded(pid)),
            'Z' | 'X' => return Err(TargetError::Zombie(pid)),
            _ if stat.flags & PF_KTHREAD != 0 => return Err(TargetError::KernelThread(pid)),
            _ => {}
        }
        Ok(Self { pid, comm: stat.comm })
    }

    /// Reads the process's name anew: it changes when it executes another program.
    pub fn refresh(&mut self) {
        if let Ok(target) = Self::open(self.pid) {
            *self = target;
        }
    }
}

/// The process is a kernel thread (`PF_KTHREAD`, include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
