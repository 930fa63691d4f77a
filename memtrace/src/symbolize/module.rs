//! The file behind a mapping.

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::elf::Elf;
use super::failure::Failure;
use super::root::Root;

/// Names a [`Module`] for as long as memtrace runs: never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(u32);

/// What stands behind a mapping: a file, or only a name in brackets.
///
/// The file is held open, so that a program that is deleted, replaced or has exited can still be
/// symbolized from what was really mapped, and so that its inode cannot come to mean another file.
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    content: ModuleId,
    /// As the process that first mapped it sees it.
    path: PathBuf,
    file: Result<OpenFile, Failure>,
    elf: Elf,
    /// Where the target's own debug files are.
    root: Option<Arc<Root>>,
}

/// A file and what it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    identity: Identity,
    /// Gives the descriptor back to the table's budget.
    _slot: Slot,
}

/// Tells one content of one file from another. The time is that of the last modification, in
/// nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified }
    }
}

impl Identity {
    /// The file's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether both are the same file, be its content the same or not.
    pub(super) fn same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Module {
    pub(super) fn new(
        path: &Path,
        file: Result<OpenFile, Failure>,
        elf: Elf,
        root: Option<Arc<Root>>,
    ) -> Arc<Self> {
        Self::with_content(path, file, elf, root, None)
    }

    /// A module whose content is that of another one.
    pub(super) fn with_content(
        path: &Path,
        file: Result<OpenFile, Failure>,
        elf: Elf,
        root: Option<Arc<Root>>,
        content: Option<ModuleId>,
    ) -> Arc<Self> {
        // One counter for all tables: what is cached under an id must not depend on the table.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = ModuleId(NEXT.fetch_add(1, Ordering::Relaxed));
        Arc::new(Self { id, content: content.unwrap_or(id), path: path.to_owned(), file, elf, root })
    }

    /// The module's id.
    pub fn id(&self) -> ModuleId {
        self.id
    }

    /// The same for all modules that are copies of one file: the id of the first of them.
    pub fn content(&self) -> ModuleId {
        self.content
    }

    /// The path as the process that first mapped the module sees it, or a name in brackets.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build-id in lower-case hex, or empty where there is none.
    pub fn build_id(&self) -> String {
        self.elf.build_id.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The address by which the module's own symbols know the code at `file_offset`.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.elf.address_of(file_offset)
    }

    /// The address by which the module's own symbols know the first byte of a mapping of `size` bytes from
    /// `file_offset` on. `None` where the mapping has none of the module's code.
    pub fn address_of_mapping(&self, file_offset: u64, size: u64) -> Option<u64> {
        self.elf.address_of_mapping(file_offset, size)
    }

    /// A path by which memtrace (and the kernel on its behalf) reaches the very file that is mapped, also
    /// when it was deleted, replaced or is in another mount namespace. It is good as long as this module
    /// is held.
    ///
    /// # Errors
    /// Why there is no file.
    pub fn open_path(&self) -> Result<PathBuf, Failure> {
        self.file().map(OpenFile::proc_path)
    }

    /// The file, or why there is none.
    pub(super) fn file(&self) -> Result<&OpenFile, Failure> {
        self.file.as_ref().map_err(|failure| *failure)
    }

    pub(super) fn elf(&self) -> &Elf {
        &self.elf
    }

    pub(super) fn root(&self) -> Option<&Root> {
        self.root.as_deref()
    }
}

impl OpenFile {
    pub(super) fn new(file: File, identity: Identity, slot: Slot) -> Self {
        Self { file, identity, _slot: slot }
    }

    /// A path by which this process can open the same file again, whatever became of its name.
    pub(super) fn proc_path(&self) -> PathBuf {
        fd_path(&self.file)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the content is still what was opened. A file that was cut short must not be read
    /// through a mapping (SIGBUS), and one that was written to has other symbols.
    pub(super) fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Identity::from(&metadata) == self.identity)
    }
}

/// `/proc/self/fd/N`, see proc(5).
pub(super) fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// One descriptor of the budget.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// Takes one, unless `max` are taken.
    pub(super) fn take(open: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let taken = open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
        taken.ok().map(|_| Self(Arc::clone(open)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
