//! All modules: each file is opened when it is first seen, and shared by all that map it.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use procfs::process::{LimitValue, Process};

use super::elf::Elf;
use super::failure::Failure;
use super::module::{Identity, Module, OpenFile, Slot};
use super::root::{Root, Roots};

/// All modules that are in use, each file once.
///
/// A file is known by device, inode, size and time of modification. A copy, such as a library that a container
/// has of its own, is another module, because probes are set on an inode; but by build-id and size it is known
/// that its [content](Module::content) is the same. Modules live as long as a region or a frame refers to them. **Descriptors are bounded**: a file that would exceed the budget is not
/// opened, its module has no symbols, and the profile says so.
#[derive(Debug)]
pub struct Modules {
    table: Mutex<Table>,
    /// Of the processes that map the files.
    pub(super) roots: Roots,
    open: Arc<AtomicUsize>,
    max_open: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_file: HashMap<Identity, Weak<Module>>,
    by_build_id: HashMap<(Vec<u8>, u64), Weak<Module>>,
    by_name: HashMap<String, Weak<Module>>,
    /// At this size the dead entries are dropped.
    prune_at: usize,
}

impl Modules {
    /// A table that uses at most half of the descriptors that this process may open now.
    pub fn new() -> Arc<Self> {
        let limit =
            Process::myself().and_then(|me| me.limits()).map(|limits| limits.max_open_files.soft_limit);
        Self::with_max_open(match limit {
            Ok(LimitValue::Value(limit)) => usize::try_from(limit / 2).unwrap_or(usize::MAX),
            Ok(LimitValue::Unlimited) => usize::MAX,
            // The limit that Linux gives by default is 1024.
            Err(_) => 512,
        })
    }

    /// A table that holds at most `max_open` descriptors.
    pub fn with_max_open(max_open: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), roots: Roots::default(), open: Arc::default(), max_open })
    }

    /// How many descriptors are held.
    pub fn open_files(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The module of a name in brackets.
    pub(super) fn named(&self, name: &str) -> Arc<Module> {
        let mut table = self.lock();
        if let Some(module) = table.by_name.get(name).and_then(Weak::upgrade) {
            return module;
        }
        let module = Module::new(Path::new(name), Err(Failure::NoFile), Elf::default(), None);
        table.prune();
        table.by_name.insert(name.to_owned(), Arc::downgrade(&module));
        module
    }

    /// The module of a file that was opened, or could not be.
    pub(super) fn file(&self, path: &Path, file: io::Result<File>, root: Option<&Arc<Root>>) -> Arc<Module> {
        self.module(path, file, root, |_| None)
    }

    /// The module of what was copied from a process's memory: one for all copies, since no probe is set there.
    pub(super) fn image(&self, path: &Path, image: File) -> Arc<Module> {
        self.module(path, Ok(image), None, |original| original)
    }

    /// `instead` may choose the module of which a file is a copy.
    fn module(
        &self,
        path: &Path,
        file: io::Result<File>,
        root: Option<&Arc<Root>>,
        instead: impl FnOnce(Option<Arc<Module>>) -> Option<Arc<Module>>,
    ) -> Arc<Module> {
        let opened = file.and_then(|file| Ok((Identity::from(&file.metadata()?), file)));
        let mut table = self.lock();
        let (identity, file) = match opened {
            Ok(opened) => opened,
            Err(_) => return Module::new(path, Err(Failure::Unreadable), Elf::default(), None),
        };
        if let Some(module) = table.by_file.get(&identity).and_then(Weak::upgrade) {
            return module;
        }
        let elf = match Elf::read(&file) {
            Ok(elf) => elf,
            Err(_) => return table.keep(identity, path, Err(Failure::Malformed), Elf::default(), None),
        };
        if let Some(original) = instead(table.original(&elf, identity.size())) {
            return original;
        }
        let Some(slot) = Slot::take(&self.open, self.max_open) else {
            return Module::new(path, Err(Failure::TooManyFiles), elf, None);
        };
        let file = OpenFile::new(file, identity, slot);
        table.keep(identity, path, Ok(file), elf, root.cloned())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements that can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn keep(
        &mut self,
        identity: Identity,
        path: &Path,
        file: Result<OpenFile, Failure>,
        elf: Elf,
        root: Option<Arc<Root>>,
    ) -> Arc<Module> {
        let original = self.original(&elf, identity.size());
        let key = (elf.build_id.clone(), identity.size());
        let content = original.as_ref().map(|original| original.content());
        let module = Module::with_content(path, file, elf, root, content);
        self.prune();
        self.by_file.insert(identity, Arc::downgrade(&module));
        if original.is_none() && !key.0.is_empty() {
            self.by_build_id.insert(key, Arc::downgrade(&module));
        }
        module
    }

    /// The module of which a file is a copy.
    fn original(&self, elf: &Elf, size: u64) -> Option<Arc<Module>> {
        if elf.build_id.is_empty() {
            return None;
        }
        self.by_build_id.get(&(elf.build_id.clone(), size)).and_then(Weak::upgrade)
    }

    /// Drops what nobody refers to any more, once per doubling of the table.
    fn prune(&mut self) {
        if self.by_file.len() + self.by_name.len() < self.prune_at {
            return;
        }
        drop_dead(&mut self.by_file);
        drop_dead(&mut self.by_build_id);
        drop_dead(&mut self.by_name);
        self.prune_at = (2 * (self.by_file.len() + self.by_name.len())).max(64);
    }
}

fn drop_dead<K: Eq + Hash>(map: &mut HashMap<K, Weak<Module>>) {
    map.retain(|_, module| module.strong_count() > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> io::Result<File> {
        File::open("/proc/self/exe")
    }

    #[test]
    fn a_file_is_one_module_and_one_descriptor() {
        let modules = Modules::with_max_open(8);
        let first = modules.file(Path::new("/a"), own(), None);
        let second = modules.file(Path::new("/b"), own(), None);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(modules.open_files(), 1);
        drop((first, second));
        assert_eq!(modules.open_files(), 0);
    }

    #[test]
    fn a_copy_with_the_same_build_id_is_a_module_of_the_same_content() {
        // The test binary may be linked without a build-id; libc is not.
        let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = libc.lines().find(|line| line.contains("/libc.so")).unwrap();
        let libc = &libc[libc.find('/').unwrap()..];
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(libc, copy.path()).unwrap();
        let modules = Modules::with_max_open(8);
        let first = modules.file(Path::new(libc), File::open(libc), None);
        let second = modules.file(copy.path(), File::open(copy.path()), None);
        assert_ne!(first.id(), second.id());
        assert_eq!(first.content(), second.content());
        let inodes = [&first, &second].map(|module| module.file().unwrap().identity());
        assert!(!inodes[0].same_inode(&inodes[1]));
        let other = modules.file(Path::new("/bin/sh"), File::open("/bin/sh"), None);
        assert_ne!(other.content(), first.content());
        assert_eq!(first.build_id().len(), 40);
    }

    #[test]
    fn descriptors_are_bounded() {
        let modules = Modules::with_max_open(1);
        let _first = modules.file(Path::new("/a"), own(), None);
        let second = modules.file(Path::new("/bin/sh"), File::open("/bin/sh"), None);
        assert_eq!(second.file().unwrap_err(), Failure::TooManyFiles);
        assert_eq!(modules.open_files(), 1);
        // What is known without the file stays known.
        assert!(!second.build_id().is_empty());
    }

    #[test]
    fn dead_modules_are_forgotten_and_ids_are_not_used_again() {
        let modules = Modules::with_max_open(8);
        let mut ids = Vec::new();
        for index in 0..1000 {
            ids.push(modules.named(&format!("[{index}]")).id());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1000);
        assert!(modules.lock().by_name.len() <= 64);
    }

    #[test]
    fn a_file_that_was_cut_short_is_noticed() {
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy("/proc/self/exe", copy.path()).unwrap();
        let modules = Modules::with_max_open(8);
        let module = modules.file(copy.path(), File::open(copy.path()), None);
        assert!(module.file().unwrap().is_unchanged());
        copy.as_file().set_len(4096).unwrap();
        assert!(!module.file().unwrap().is_unchanged());
    }
}
