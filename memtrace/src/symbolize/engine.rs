//! blazesym, held so that no file can do harm: runs on the symbolizer's thread only.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use blazesym::symbolize::{Symbolizer, evict};
use indexmap::IndexMap;

use super::debug_file::DebugFile;
use super::debuginfod::Kind;
use super::failure::Failure;
use super::lookup::{self, Start};
use super::module::{Identity, Module, ModuleId, OpenFile};
use super::worker::{NamedLine, Options, Resolution};

/// Resolves addresses of modules, one after the other.
///
/// Each module has a list of sources, the richest first; an address goes down the list until one of
/// them knows it. A source that fails or panics is struck off the list, so that bad debug information
/// costs the lines and not the names.
pub(super) struct Engine {
    options: Options,
    symbolizer: Symbolizer,
    /// The least recently used first.
    modules: IndexMap<ModuleId, Sources>,
    /// How often the symbolizer panicked and was made anew.
    pub(super) restarts: u64,
    /// How many sources were struck off without a panic.
    pub(super) bad_sources: u64,
}

/// Where the names of one module come from.
struct Sources {
    module: Arc<Module>,
    /// Held for as long as blazesym refers to it by its descriptor.
    debug_file: Option<DebugFile>,
    list: Vec<Source>,
    /// The size of the files in `list`.
    bytes: u64,
}

/// One file and how to read it.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Whether to read its DWARF, or its symbol tables alone.
    pub(super) debug_info: bool,
    /// The start lines that were found so far, by the function's first address.
    pub(super) starts: HashMap<u64, Option<Start>>,
}

impl Source {
    fn new(path: PathBuf, debug_info: bool) -> Self {
        Self { path, debug_info, starts: HashMap::new() }
    }
}

impl Engine {
    pub(super) fn new(options: Options) -> Self {
        Self { options, symbolizer: new_symbolizer(), modules: IndexMap::new(), restarts: 0, bad_sources: 0 }
    }

    /// The lines of each of `offsets` in the module's file, in their order.
    pub(super) fn resolve(&mut self, module: &Arc<Module>, offsets: &[u64]) -> Vec<Resolution> {
        let file = match module.file() {
            Ok(file) => file,
            Err(failure) => return vec![Err(failure); offsets.len()],
        };
        if !file.is_unchanged() {
            return vec![Err(Failure::Changed); offsets.len()];
        }
        let mut results: Vec<Resolution> = vec![Err(Failure::NoSymbols); offsets.len()];
        let mut open = Vec::new();
        for (index, &offset) in offsets.iter().enumerate() {
            // Code outside of all segments has no address in the file, hence no symbol.
            open.extend(module.address_of(offset).map(|address| (index, address)));
        }
        self.touch(module);
        let mut source = 0;
        while !open.is_empty() {
            let Some(outcome) = self.attempt(module.id(), source, &open) else { break };
            match outcome {
                Ok(found) => {
                    let mut left = Vec::new();
                    for ((index, address), lines) in open.into_iter().zip(found) {
                        match lines {
                            Some(lines) => results[index] = Ok(lines.into()),
                            None => left.push((index, address)),
                        }
                    }
                    open = left;
                    source += 1;
                }
                Err(failure) => {
                    open.iter().for_each(|(index, _)| results[*index] = Err(failure));
                    if let Some(sources) = self.modules.get_mut(&module.id()) {
                        sources.list.remove(source);
                    }
                }
            }
        }
        results
    }

    /// Asks one source of a module, `None` if there are no more of them.
    fn attempt(
        &mut self,
        module: ModuleId,
        source: usize,
        open: &[(usize, u64)],
    ) -> Option<Result<Vec<Option<Vec<NamedLine>>>, Failure>> {
        let sources = self.modules.get_mut(&module)?;
        let source = sources.list.get_mut(source)?;
        let addresses: Vec<u64> = open.iter().map(|(_, address)| *address).collect();
        let symbolizer = &self.symbolizer;
        let attempt = catch_unwind(AssertUnwindSafe(|| lookup::lookup(symbolizer, source, &addresses)));
        Some(match attempt {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::debug!("failed to symbolize {}: {error:#}", sources.module.path().display());
                self.bad_sources += 1;
                Err(Failure::Malformed)
            }
            Err(_) => {
                tracing::debug!("the symbolizer panicked on {}", sources.module.path().display());
                self.restarts += 1;
                // Whatever state it was left in, it is not used again.
                self.symbolizer = new_symbolizer();
                Err(Failure::Panicked)
            }
        })
    }

    /// Makes `module` the most recently used one, and forgets those that are too many.
    fn touch(&mut self, module: &Arc<Module>) {
        let sources = match self.modules.shift_remove(&module.id()) {
            Some(sources) if sources.debug_file.as_ref().is_none_or(DebugFile::is_unchanged) => sources,
            Some(sources) => {
                self.forget(sources);
                self.sources(module)
            }
            None => self.sources(module),
        };
        self.modules.insert(module.id(), sources);
        while self.modules.len() > 1 && self.is_over_limit() {
            let Some((_, oldest)) = self.modules.shift_remove_index(0) else { break };
            self.forget(oldest);
        }
    }

    fn is_over_limit(&self) -> bool {
        let bytes: u64 = self.modules.values().map(|sources| sources.bytes).sum();
        self.modules.len() > self.options.max_cached_modules || bytes > self.options.max_cached_bytes
    }

    /// Gives back all that is kept. What was found unusable is forgotten too and will be tried again.
    pub(super) fn rest(&mut self) {
        let parsed = !self.modules.is_empty();
        self.modules.clear();
        self.symbolizer = new_symbolizer();
        if parsed {
            trim();
        }
    }

    /// Gives back what blazesym keeps for a module: a descriptor, a mapping and parsed tables per file.
    fn forget(&mut self, sources: Sources) {
        for source in sources.list {
            // Fails only for what blazesym does not know, and then there is nothing to give back.
            let _ = self.symbolizer.evict(&evict::Evict::from(evict::Elf::new(source.path)));
        }
    }

    fn sources(&self, module: &Arc<Module>) -> Sources {
        let elf = module.elf();
        let mut list = Vec::new();
        let mut debug_file = None;
        if self.options.debug_info {
            if !elf.has_debug_info {
                debug_file = DebugFile::find(module, &self.options.debug_directories)
                    .or_else(|| self.download(module));
            }
            if let Some(file) = &debug_file {
                if file.has_debug_info {
                    list.push(Source::new(file.proc_path(), true));
                }
                // Its symbol table is complete, where that of the module is only what is exported.
                list.push(Source::new(file.proc_path(), false));
            }
        }
        if let Ok(file) = module.file() {
            if self.options.debug_info && elf.has_debug_info {
                list.push(Source::new(file.proc_path(), true));
            }
            list.push(Source::new(file.proc_path(), false));
        }
        let files =
            [module.file().ok().map(OpenFile::identity), debug_file.as_ref().map(DebugFile::identity)];
        let bytes = files.iter().flatten().map(Identity::size).sum();
        Sources { module: Arc::clone(module), debug_file, list, bytes }
    }
}

impl Engine {
    /// The debug file from a server, where the user wants that.
    fn download(&self, module: &Module) -> Option<DebugFile> {
        let servers = self.options.debuginfod.as_ref()?;
        // What is in brackets is no file that a server could have.
        let path = module.path().to_str().filter(|path| path.starts_with('/'))?;
        let file = servers.find(&module.elf().build_id, Kind::DebugInfo, path)?;
        DebugFile::of(file)
    }
}

/// Names are demangled here, to have both forms, and debug files are found here: blazesym would look
/// for them by the path of the descriptor, on the host only, and give up a module whose link leads to
/// another version.
fn new_symbolizer() -> Symbolizer {
    let no_directories: [PathBuf; 0] = [];
    Symbolizer::builder().enable_demangling(false).set_debug_dirs(Some(no_directories)).build()
}

/// Returns freed memory to the system. Left alone, glibc kept 40 MB after python3 and libc were parsed.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
