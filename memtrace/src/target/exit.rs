//! Noticing the end of a process.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// Watches a process until it ends, through a pidfd (pidfd_open(2)): no polling, and no confusion with a
/// later process of the same number.
pub struct ExitWatch {
    fd: AsyncFd<OwnedFd>,
}

impl ExitWatch {
    /// Begins to watch. To be called inside of a tokio runtime.
    ///
    /// # Errors
    /// When there is no such process, or the kernel is older than 5.3.
    pub fn new(pid: u32) -> io::Result<Self> {
        // SAFETY: the system call takes a number and flags, and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { fd: readable(fd)? })
    }

    /// Waits for the end of the process. Returns at once when it has ended already.
    pub async fn ended(&self) {
        // A pidfd is readable once the process is a zombie and for ever after; an error of the runtime's
        // poller would mean the same: nothing more to wait for.
        let _ = self.fd.readable().await;
    }

    /// Sends the process a signal (pidfd_send_signal(2)): never a later process of the same number. One that has
    /// ended takes none, which is no error.
    pub fn signal(&self, signal: i32) {
        let none = std::ptr::null::<libc::siginfo_t>();
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: takes numbers, and no information about the signal.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives until the call is over; it does not wait.
        unsafe { libc::poll(&mut poll, 1, 0) > 0 }
    }
}
