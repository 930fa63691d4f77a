//! Panics that are caught must not print: a user who reads of one thinks that memtrace has failed.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic of this thread goes to the log at debug level; those of other threads go where
/// they went before.
pub(super) fn panics_of_this_thread() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that is ending has lost the flag; then it was not ours.
            if QUIET.try_with(Cell::get).unwrap_or(false) {
                tracing::debug!("{info}");
            } else {
                previous(info);
            }
        }));
    });
    QUIET.set(true);
}
