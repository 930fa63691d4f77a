//! Which processes are recorded beside those that were there at the beginning.

use std::sync::Arc;

use crate::{
    kernel::{Newcomers, Watch},
    target::Selection,
};

/// Which new processes are recorded, too.
#[derive(Clone, Debug)]
pub enum Follow {
    /// None.
    Nobody,
    /// Those that a recorded process has created.
    Children,
    /// Those that match, whoever has created them.
    Matching(Arc<Selection>),
}

impl Follow {
    /// What the kernel program has to tell of.
    pub fn newcomers(&self) -> Newcomers {
        Newcomers { children: !matches!(self, Self::Nobody), all: matches!(self, Self::Matching(_)) }
    }

    /// How a recorded process is watched; `stop` where it is one that memtrace has started.
    pub(super) fn watch(&self, stop: bool) -> Watch {
        Watch { stop, children: self.newcomers().children }
    }

    /// Whether the recording goes on without any process: others may come.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Matching(_))
    }
}
