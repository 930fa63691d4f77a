//! What became of processes that came while others were recorded.

/// What became of new processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Newcomers {
    /// They had ended before anything could be done.
    pub(super) missed: u64,
    /// They had ended before it could be seen whether they are meant.
    pub(super) unseen: u64,
    /// They were created by recorded ones, but are none of those that were meant.
    pub(super) unwanted: u64,
}
