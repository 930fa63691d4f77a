//! The target's root directory, held open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use procfs::process::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::module::fd_path;

/// The directory that a process calls `/`: of a container, the container's own.
#[derive(Debug)]
pub(super) struct Root {
    directory: File,
    ours: bool,
}

/// The roots that are in use, each once: mostly all processes have the same one, and a descriptor for each of them
/// would be too many.
#[derive(Debug, Default)]
pub(super) struct Roots(Mutex<HashMap<Place, Weak<Root>>>);

/// Which directory it is, and by way of which mount namespace paths lead on from there: device and inode of either.
type Place = [(u64, u64); 2];

impl Roots {
    /// The root of `process`.
    pub(super) fn of(&self, process: &Process) -> io::Result<Arc<Root>> {
        let root = Root::open(process)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = process.open_relative_flags("ns/mnt", flags).map_err(io::Error::other)?;
        let place = [root.directory.metadata()?, namespace.metadata()?];
        let place = place.map(|metadata| (metadata.dev(), metadata.ino()));
        let mut roots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = roots.get(&place).and_then(Weak::upgrade) {
            return Ok(known);
        }
        roots.retain(|_, root| root.strong_count() > 0);
        let root = Arc::new(root);
        roots.insert(place, Arc::downgrade(&root));
        Ok(root)
    }
}

impl Root {
    /// The root of `process`.
    pub(super) fn open(process: &Process) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = process.open_relative_flags("root", flags).map_err(io::Error::other)?;
        let (theirs, ours) = (directory.metadata()?, std::fs::metadata("/")?);
        Ok(Self { directory, ours: (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) })
    }

    /// Whether it is memtrace's own root as well.
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Opens a regular file by the path that the target uses. Symbolic links cannot lead out of the
    /// root: `RESOLVE_IN_ROOT`, openat2(2), Linux 5.6.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, OFlags::empty())
    }

    /// The same, but the last part of the path may not be a symbolic link: anybody may have put one
    /// there, to a file of somebody else's.
    pub(super) fn open_own_file(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, OFlags::NOFOLLOW)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        let found = openat2(&self.directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        regular_file(&File::from(found))
    }
}

/// Opens for reading what `found` (`O_PATH`) refers to. Only regular files: the target may have put a
/// FIFO there, on which open(2) would wait, or a device.
pub(super) fn regular_file(found: &File) -> io::Result<File> {
    if !found.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(fd_path(found))
}

/// Opens a regular file by its path on this machine.
pub(super) fn regular_file_at(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    regular_file(&File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_files_but_nothing_else() {
        let root = Root::open(&Process::myself().unwrap()).unwrap();
        assert!(root.is_ours());
        root.open_file(Path::new("/proc/self/exe")).unwrap_err();
        root.open_file(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(root.open_file(Path::new("/dev/null")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(root.open_file(Path::new("/nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
