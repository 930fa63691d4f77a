//! The allocator functions of files, each of which is read once for all processes that map it.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    catalog,
    discover::LOADER_HOOK,
    elf::{ElfError, ElfSymbols},
};
use crate::symbolize::{Module, ModuleId, Region};

/// What a file has, or why it cannot be said: a clause that can follow "because".
pub(super) type Symbols = Arc<Result<ElfSymbols, String>>;

/// The functions of those files that processes map now. A file that no process maps any more is read again.
#[derive(Debug, Default)]
pub struct Files(Mutex<HashMap<ModuleId, (Weak<Module>, Symbols)>>);

impl Files {
    /// The functions of the file that is mapped there.
    pub(super) fn symbols(&self, region: &Region) -> Symbols {
        let module = region.module();
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An id may be that of another file when nobody holds the module any more.
        if let Some((known, symbols)) = files.get(&module.id())
            && known.strong_count() > 0
        {
            return Arc::clone(symbols);
        }
        let symbols = Arc::new(read(region));
        files.retain(|_, (module, _)| module.strong_count() > 0);
        files.insert(module.id(), (Arc::downgrade(module), Arc::clone(&symbols)));
        symbols
    }
}

fn read(region: &Region) -> Result<ElfSymbols, String> {
    let path = region.module().open_path().map_err(|failure| failure.loss().1.to_owned())?;
    let file = File::open(path).map_err(|error| ElfError::from(error).to_string())?;
    ElfSymbols::read(file, |name| name == LOADER_HOOK || catalog::find(name).is_some())
        .map_err(|error| error.to_string())
}
