//! The allocator functions of files, each of which is read once for all processes that map it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    Selection,
    inspect::{Inspection, inspect},
};
use crate::symbolize::{Module, ModuleId};

/// What a file has, or why it cannot be said: a clause that can follow "because".
type Shared = Arc<Result<Inspection, String>>;

/// A file, and whether it is the executable of the process that asks.
type Key = (ModuleId, bool);

/// The functions of those files that processes map now. A file that no process maps any more is read again.
#[derive(Debug, Default)]
pub struct Files {
    selection: Arc<Selection>,
    known: Mutex<HashMap<Key, (Weak<Module>, Shared)>>,
}

impl Files {
    /// Nothing was read yet. These functions are looked for.
    pub fn new(selection: Selection) -> Self {
        Self { selection: Arc::new(selection), known: Mutex::default() }
    }

    /// Which functions are looked for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What a file has.
    pub(super) fn inspection(&self, module: &Arc<Module>, is_main: bool) -> Shared {
        let key = (module.id(), is_main);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // An id may be that of another file when nobody holds the module any more.
        if let Some((module, found)) = known.get(&key)
            && module.strong_count() > 0
        {
            return Arc::clone(found);
        }
        let found = Arc::new(inspect(module, is_main, &self.selection));
        known.retain(|_, (module, _)| module.strong_count() > 0);
        known.insert(key, (Arc::downgrade(module), Arc::clone(&found)));
        found
    }
}
