//! Which functions a recording looks for.

use std::path::Path;

use super::{
    catalog::{self, Family, Function, PYTHON, USDT},
    custom::Custom,
};

/// The family of functions that the user has named.
pub(super) const CUSTOM: &str = "custom";

/// What is looked for: all that is known, or a part of it, and functions that the user has named.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this family, and what the user has named.
    pub family: Option<&'static Family>,
    /// Functions of the user's.
    pub custom: Vec<Custom>,
    /// Whether CPython's allocator of objects is looked for, too.
    pub python_objects: bool,
}

impl Selection {
    /// Whether the probes by which processes tell of their own samples are looked for.
    pub(super) fn wants_usdt(&self) -> bool {
        self.family.is_none() || self.wants_only_usdt()
    }

    /// Whether the user has asked for those and for nothing else of the table.
    pub(super) fn wants_only_usdt(&self) -> bool {
        self.family.is_some_and(|family| family.name == USDT)
    }

    /// What the symbol `name` of a file is, and of which family. `is_main` says whether the file is the program
    /// itself.
    pub(super) fn find(&self, path: &Path, is_main: bool, name: &str) -> Option<(&'static str, Function)> {
        let custom = self.custom.iter().find(|custom| custom.is_meant(path, is_main, name));
        if let Some(custom) = custom {
            return Some((CUSTOM, custom.function));
        }
        self.find_known(name)
    }

    /// The same of a symbol of any file, if it is one of the table.
    pub(super) fn find_known(&self, name: &str) -> Option<(&'static str, Function)> {
        let (family, function) = catalog::find(name)?;
        let wanted = match self.family {
            // A symbol of such a name is not the probe.
            _ if family.name == USDT => false,
            Some(wanted) => wanted.name == family.name,
            None => family.name != PYTHON || self.python_objects,
        };
        wanted.then_some((family.name, function))
    }
}
