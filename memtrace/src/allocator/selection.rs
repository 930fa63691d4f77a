//! Which functions a recording looks for.

use std::path::Path;

use super::{
    catalog::{self, Family, Function},
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
}

impl Selection {
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
        let wanted = self.family.is_none_or(|wanted| wanted.name == family.name);
        wanted.then_some((family.name, function))
    }
}
