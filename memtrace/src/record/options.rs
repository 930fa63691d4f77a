//! What a recording is asked for.

use std::sync::Arc;

use super::{Follow, PythonMode};
use crate::allocator;

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether Python functions are shown.
    pub python: PythonMode,
    /// Which new processes are recorded, too. The kernel program must have been loaded with
    /// [its newcomers](Follow::newcomers).
    pub follow: Follow,
    /// Which allocators are looked for.
    pub allocators: Arc<allocator::Files>,
}

impl Default for Options {
    /// The processes that are named, all known allocators, and native functions alone.
    fn default() -> Self {
        Self { python: PythonMode::Off, follow: Follow::Nobody, allocators: Arc::default() }
    }
}
