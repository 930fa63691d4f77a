//! Waiting for a process to stop that is about to.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use procfs::process::Process;

/// How long a process may take to stop that was sent `SIGSTOP`.
const LIMIT: Duration = Duration::from_secs(1);

/// Waits until process `pid` has stopped, or ended: its `SIGSTOP` is on its way. Not for ever, because somebody else
/// may have let it go on.
pub(crate) fn wait_stopped(pid: u32) {
    let limit = Instant::now() + LIMIT;
    while !is_stopped_or_ended(pid) && Instant::now() < limit {
        sleep(Duration::from_micros(100));
    }
}

/// By its main thread (proc(5)): a stop is one of all threads.
fn is_stopped_or_ended(pid: u32) -> bool {
    let stat = Process::new(pid as i32).and_then(|process| process.stat());
    stat.map_or(true, |stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_stop_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(!is_stopped_or_ended(child.id()));
        // SAFETY: takes two numbers.
        unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) };
        wait_stopped(child.id());
        assert!(is_stopped_or_ended(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_stopped(child.id());
    }
}
