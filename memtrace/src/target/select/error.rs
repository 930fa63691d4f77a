//! Why there is no selection.

use std::io;

use thiserror::Error;

use super::super::TargetError;

/// No process could be selected.
#[derive(Debug, Error)]
pub enum SelectError {
    /// No process meets all criteria.
    #[error(
        "there is no process that {wanted}: look at what runs (`ps -e -o pid,comm,args`, `ss -lntup`, `systemd-cgls`), \
         or let --wait wait for it{}{}", unseen(*.unreadable), .hint.as_deref().unwrap_or_default()
    )]
    NothingMatches {
        /// What was looked for: a clause that can follow "a process that".
        wanted: String,
        /// How many processes may match, but may not be looked at.
        unreadable: usize,
        /// What else may be the reason, with the punctuation before it.
        hint: Option<String>,
    },
    /// Several containers begin so.
    #[error(
        "{prefix:?} is the beginning of several containers' ids: give more of one of {}", ids.join(", ")
    )]
    AmbiguousContainer {
        /// What was given.
        prefix: String,
        /// The ids that begin so, sorted.
        ids: Vec<String>,
    },
    /// `/proc` is not that of memtrace's PID namespace.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no list of processes.
    #[error("cannot list the processes in /proc: mount it (`mount -t proc proc /proc`)")]
    Proc(#[source] io::Error),
}

fn unseen(unreadable: usize) -> String {
    let hint = "root, or CAP_SYS_PTRACE, may be missing (see `memtrace doctor`)";
    match unreadable {
        0 => String::new(),
        1 => format!("; one process could not be looked at: {hint}"),
        _ => format!("; {unreadable} processes could not be looked at: {hint}"),
    }
}
