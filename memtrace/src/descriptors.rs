//! How many files this process may have open.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that the process was started with, if it was changed.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit to the most that is permitted: each process under observation takes some, and the limit that most
/// systems set (1024) is meant for programs that call select(2), which memtrace does not.
pub fn raise_limit() {
    let now = getrlimit(Resource::Nofile);
    // A refusal leaves all as it was.
    if now.current != now.maximum
        && setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now }).is_ok()
    {
        let _ = BEFORE.set(now);
    }
}

/// Gives a process that was forked the limit that memtrace was started with. Allocates nothing.
pub(crate) fn restore_limit() {
    if let Some(before) = BEFORE.get() {
        // It is no more than what is permitted.
        let _ = setrlimit(Resource::Nofile, *before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_can_be_restored() {
        let before = getrlimit(Resource::Nofile);
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        restore_limit();
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
