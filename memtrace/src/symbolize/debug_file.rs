//! Finds the file that holds a stripped module's debug information.
//!
//! The places are those of gdb ("Debugging Information in Separate Files" in its manual): by build-id
//! under each debug directory, then by the name in `.gnu_debuglink` beside the module, in `.debug`
//! there, and under each debug directory. They are looked for on the host and in the target's root,
//! since a container has debug files of its own. A file counts only if its build-id is the module's,
//! or, where there is none, if its CRC is the one in the link.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::elf::Elf;
use super::module::{Identity, Module, fd_path};
use super::root::{Root, regular_file_at};

/// A debug file, held open.
#[derive(Debug)]
pub(super) struct DebugFile {
    file: File,
    identity: Identity,
    pub(super) has_debug_info: bool,
}

impl DebugFile {
    /// The debug file of `module`, if there is one. `directories` are searched on the host, and
    /// `/usr/lib/debug` in the target's root.
    pub(super) fn find(module: &Module, directories: &[PathBuf]) -> Option<Self> {
        let host = directories.iter().map(|directory| (None, directory.as_path()));
        let target = module.root().filter(|root| !root.is_ours());
        let target_directory = target.map(|root| (Some(root), Path::new("/usr/lib/debug")));
        let places: Vec<_> = host.chain(target_directory).collect();

        let by_build_id = build_id_path(&module.elf().build_id);
        let mut candidates: Vec<(Option<&Root>, PathBuf)> = Vec::new();
        for (root, directory) in &places {
            candidates.extend(by_build_id.iter().map(|path| (*root, directory.join(path))));
        }
        if let Some((name, _)) = &module.elf().debug_link {
            // The module's directory is one of the target; that of the host by the same name need not
            // be the same, but then the checks below refuse what is in it.
            let directory = module.path().parent().unwrap_or(Path::new("/"));
            candidates.push((module.root(), directory.join(name)));
            candidates.push((module.root(), directory.join(".debug").join(name)));
            for (root, debug) in &places {
                let below = directory.strip_prefix("/").unwrap_or(directory);
                candidates.push((*root, debug.join(below).join(name)));
            }
        }
        candidates.into_iter().find_map(|(root, path)| Self::open(module, root, &path))
    }

    /// A file that is known to be that of the module.
    pub(super) fn of(file: File) -> Option<Self> {
        let identity = Identity::from(&file.metadata().ok()?);
        let has_debug_info = Elf::read(&file).ok()?.has_debug_info;
        Some(Self { file, identity, has_debug_info })
    }

    fn open(module: &Module, root: Option<&Root>, path: &Path) -> Option<Self> {
        let file = match root {
            Some(root) => root.open_file(path),
            None => regular_file_at(path),
        };
        let file = file.ok()?;
        let identity = Identity::from(&file.metadata().ok()?);
        if module.file().is_ok_and(|own| own.identity().same_inode(&identity)) {
            return None;
        }
        let elf = Elf::read(&file).ok()?;
        let matches = match &module.elf().debug_link {
            _ if !module.elf().build_id.is_empty() => elf.build_id == module.elf().build_id,
            Some((_, crc)) => checksum(&file).is_ok_and(|found| found == *crc),
            None => false,
        };
        matches.then_some(Self { file, identity, has_debug_info: elf.has_debug_info })
    }

    /// See [`super::module::OpenFile::proc_path`].
    pub(super) fn proc_path(&self) -> PathBuf {
        fd_path(&self.file)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// See [`super::module::OpenFile::is_unchanged`].
    pub(super) fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Identity::from(&metadata) == self.identity)
    }
}

/// `.build-id/xx/yyyy.debug`; a build-id of one byte has no place there.
fn build_id_path(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(PathBuf::from(format!(".build-id/{first:02x}/{rest}.debug")))
}

/// The CRC-32 of the whole file, which is what `.gnu_debuglink` holds.
fn checksum(mut file: &File) -> io::Result<u32> {
    io::Seek::rewind(&mut file)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&buffer[..length]),
        }
    }
}
