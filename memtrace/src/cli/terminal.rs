//! What standard error is, and how errors are written there.

use std::io::IsTerminal;

use memtrace::profile::printable;

/// Whether to use colours and lines that overwrite themselves: only on a terminal, and not where
/// `NO_COLOR` (<https://no-color.org>) is set.
pub(super) fn colors() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard error is a terminal.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// The terminal's width in characters, or 100 where there is none.
pub(super) fn width() -> usize {
    // SAFETY: an all-zero winsize is a valid value to be overwritten.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize (ioctl_tty(2)).
    let done = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size) } == 0;
    if done && size.ws_col > 0 { size.ws_col.into() } else { 100 }
}

/// An error and its causes on one line. Names chosen by a target cannot send escapes to the terminal.
pub(super) fn error_chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    printable(&text).into_owned()
}
