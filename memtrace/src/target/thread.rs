//! A process whose main thread has ended.
//!
//! The process goes on with its other threads, but what `/proc/PID` shows is the main thread's: no mappings, no
//! files, no root directory. `/proc/TID` of another thread shows them; such directories are not listed, but are there
//! (proc(5)).

use procfs::process::Process;

/// Whether a thread in this state (`/proc/PID/stat`) has ended.
pub(super) fn has_ended(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

/// A thread of the process that has not ended, if there is one: by its own directory in `/proc`.
pub(crate) fn living(process: &Process) -> Option<Process> {
    process.tasks().ok()?.flatten().find_map(|task| {
        let thread = Process::new(task.tid).ok()?;
        let lives = !has_ended(thread.stat().ok()?.state);
        // The number may have been given to another process. As long as the process has its own, so have its threads.
        let ours = thread.status().ok()?.tgid == process.pid() && process.stat().is_ok();
        (lives && ours).then_some(thread)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_living_thread() {
        let me = Process::myself().unwrap();
        let thread = living(&me).unwrap();
        assert_eq!(thread.status().unwrap().tgid, me.pid());
        assert!(has_ended('Z') && !has_ended('S'));
    }
}
