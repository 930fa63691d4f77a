//! The cache of debuginfod clients: `CACHE/BUILDID/debuginfo` and `CACHE/BUILDID/executable`.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::{Kind, hex};

/// The directory, which need not exist yet.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, build_id: &[u8], kind: Kind) -> PathBuf {
        self.directory.join(hex(build_id)).join(kind.name())
    }

    /// The file that is there. elfutils leaves empty files as a mark for "no server has it"; such a file is
    /// as good as none.
    pub(super) fn open(&self, build_id: &[u8], kind: Kind) -> Option<File> {
        let path = self.path(build_id, kind);
        let metadata = fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.len() == 0 {
            return None;
        }
        File::open(path).ok()
    }

    /// A file that is not in the cache yet: whoever looks meanwhile does not see half of it, and it is gone
    /// if it is not [kept](Self::keep).
    pub(super) fn create(&self, build_id: &[u8], kind: Kind) -> Result<NamedTempFile> {
        let path = self.path(build_id, kind);
        let directory = path.parent().unwrap_or(&self.directory);
        let failed = || format!("cannot write to {}", directory.display());
        fs::create_dir_all(directory).with_context(failed)?;
        tempfile::Builder::new().prefix(".memtrace-").tempfile_in(directory).with_context(failed)
    }

    /// Puts a complete file into the cache.
    pub(super) fn keep(&self, file: NamedTempFile, build_id: &[u8], kind: Kind) -> Result<()> {
        let path = self.path(build_id, kind);
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Takes away the directory in which nothing was kept.
    pub(super) fn tidy(&self, build_id: &[u8]) {
        // Fails where there is something in it, or where it never came to be.
        let _ = fs::remove_dir(self.directory.join(hex(build_id)));
    }
}
