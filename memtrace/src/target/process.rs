//! A running process, as `/proc` shows it.

use std::path::Path;

use procfs::{ProcError, process::Process};
use thiserror::Error;

use super::{elf_class, thread};
use crate::kernel::namespace;

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
    /// Its main thread has ended, but others go on: not for every mode of attaching.
    #[error(
        "the main thread of process {0} has ended while others go on: the kernel lets only --attach-mode perf set \
         probes on such a process, which is what memtrace takes when no mode is asked for"
    )]
    MainThreadEnded(u32),
    /// It is a 32-bit program.
    #[error(
        "process {0} is a 32-bit program: its functions take their arguments in a way that memtrace does not \
         read; use a 64-bit build of it"
    )]
    ThirtyTwoBit(u32),
    /// `/proc` shows processes by other numbers than those that system calls take.
    #[error(
        "/proc belongs to another PID namespace than memtrace itself, so that process ids mean different processes: \
         mount the right one (`mount -t proc proc /proc` in a mount namespace of its own), or run memtrace in the \
         namespace that /proc belongs to"
    )]
    ForeignProc,
    /// It is in a PID namespace below memtrace's own, which is not the machine's.
    #[error(
        "process {0} is in a PID namespace of its own below that of memtrace, and the kernel tells memtrace nothing of \
         such processes unless it runs in the machine's own PID namespace: run memtrace on the host, in a container \
         with --pid=host, or in the namespace of the process (`nsenter --target {0} --pid --mount`)"
    )]
    InnerNamespace(u32),
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
    /// A thread of it that lives: the main thread (whose id is `pid`), or another one where that has ended.
    pub thread: u32,
}

impl Target {
    /// Looks at a running process.
    ///
    /// # Errors
    /// When there is none with this id, or it cannot be traced; see [`TargetError`].
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        if is_proc_foreign() {
            return Err(TargetError::ForeignProc);
        }
        let fail = |source| TargetError::new(pid, source);
        let signed = i32::try_from(pid).map_err(|_| TargetError::NotFound(pid))?;
        let process = Process::new(signed).map_err(fail)?;
        let stat = process.stat().map_err(fail)?;
        // A thread's id opens /proc/TID as well, but the process is what is traced.
        let status = process.status().map_err(fail)?;
        if status.tgid != signed {
            return Self::open(status.tgid.unsigned_abs());
        }
        if stat.flags & PF_KTHREAD != 0 {
            return Err(TargetError::KernelThread(pid));
        }
        let mut thread = pid;
        if thread::has_ended(stat.state) {
            let living = thread::living(&process).ok_or(TargetError::Zombie(pid))?;
            thread = living.pid().unsigned_abs();
        }
        // Where something cannot be read, attaching will say why.
        if namespace::hides(thread).unwrap_or(false) {
            return Err(TargetError::InnerNamespace(pid));
        }
        let program = Path::new("/proc").join(thread.to_string()).join("exe");
        if elf_class::file_is_32_bit(&program).unwrap_or(false) {
            return Err(TargetError::ThirtyTwoBit(pid));
        }
        Ok(Self { pid, comm: stat.comm, thread })
    }

    /// Whether the main thread has ended while others go on.
    pub fn has_lost_main_thread(&self) -> bool {
        self.thread != self.pid
    }

    /// Reads the process's name anew: it changes when it executes another program.
    pub fn refresh(&mut self) {
        if let Ok(target) = Self::open(self.pid) {
            *self = target;
        }
    }
}

/// Whether `/proc` was mounted in another PID namespace (pid_namespaces(7)): then it knows this process by another
/// number, or not at all.
pub(super) fn is_proc_foreign() -> bool {
    let own = std::fs::read_link("/proc/self").ok();
    own.is_none_or(|own| own != Path::new(&std::process::id().to_string()))
}

/// The process is a kernel thread (`PF_KTHREAD`, include/linux/sched.h).
pub(super) const PF_KTHREAD: u32 = 0x0020_0000;
