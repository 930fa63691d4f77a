//! Letting processes go on that are stopped when memtrace is killed.
//!
//! A process that memtrace has started, and each of its descendants, is stopped by the kernel program until memtrace
//! has set its probes. If memtrace is killed meanwhile (`SIGKILL`, or for want of memory), nobody would let it go on.
//! So there is a second process, which does nothing but wait for memtrace's end.

use std::{
    io::{self, PipeWriter, Write, pipe},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use memtrace_common::WATCH_STOP;

use crate::kernel::sys;

/// A process that lets others go on when this is dropped, or memtrace ends, unless it was [dismissed](Self::dismiss).
#[derive(Debug)]
pub(super) struct Guardian {
    pid: libc::pid_t,
    alive: PipeWriter,
}

impl Guardian {
    /// Starts it. `watched` is the map of the processes that are watched, and how.
    ///
    /// # Errors
    /// When there can be no more processes or descriptors.
    pub(super) fn start(watched: BorrowedFd<'_>) -> io::Result<Self> {
        let (ending, alive) = pipe()?;
        // SAFETY: the new process only makes system calls, as signal-safety(7) wants it of one with several threads.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => guard(ending.as_raw_fd(), watched.as_raw_fd()),
            pid => Ok(Self { pid, alive }),
        }
    }

    /// Ends it: no process is stopped any more.
    pub(super) fn dismiss(mut self) {
        // A failure means that it was killed.
        let _ = self.alive.write_all(&[1]);
        // SAFETY: takes numbers, and no place for a status. It is a child that was not waited for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

/// What the new process does. No destructor may run in it, and nothing may be allocated: what it has is memtrace's.
fn guard(ending: RawFd, watched: RawFd) -> ! {
    const PIPE: RawFd = 0;
    const MAP: RawFd = 1;
    let mut byte = 0_u8;
    // SAFETY: system calls with numbers, and pointers to variables that outlive them.
    unsafe {
        // Ctrl-C is not for it, nor does it keep a terminal or a pipe open. What it has of the kernel program's
        // links would keep the probes.
        libc::setsid();
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"memtrace-guard".as_ptr());
        if libc::dup2(ending, PIPE) < 0 || libc::dup2(watched, MAP) < 0 {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, MAP + 1, libc::c_uint::MAX, 0);
        if libc::read(PIPE, (&raw mut byte).cast(), 1) == 0 {
            // SAFETY: it was opened above.
            let_all_go(BorrowedFd::borrow_raw(MAP));
        }
        libc::_exit(0)
    }
}

/// How often it is looked for processes, and told those that were found to go on: the kernel program's links go a
/// moment after memtrace, and a stop may just have been on its way.
const ROUNDS: u32 = 20;

/// The time between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes all processes out of the map, so that none is stopped any more, and lets them go on.
fn let_all_go(watched: BorrowedFd<'_>) {
    // As many as the map has room for.
    let mut stopped = [0_u32; 1024];
    let mut found = 0;
    for _ in 0..ROUNDS {
        while let Ok(Some(pid)) = sys::first_key::<u32>(watched) {
            if let Ok(Some(watch)) = sys::take::<u32, u32>(watched, &pid)
                && watch & WATCH_STOP != 0
            {
                stopped[found % stopped.len()] = pid;
                found += 1;
            }
        }
        for &pid in &stopped[..found.min(stopped.len())] {
            // SAFETY: takes two numbers. To a process that is not stopped it means nothing.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGCONT) };
        }
        std::thread::sleep(PAUSE);
    }
}
