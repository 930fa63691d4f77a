//! Where a profile goes: checked before the recording begins, written whole or not at all, and never
//! over an existing file without a word.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::NamedTempFile;

/// An output that is open for writing.
#[derive(Debug)]
pub(super) enum Destination {
    /// Standard output, for `-o -`.
    Stdout,
    /// A device, a pipe or the like, which cannot be replaced.
    Special(PathBuf, File),
    /// A file that appears under its name when it is complete. Until then it is a temporary one beside it.
    File {
        /// Its name.
        path: PathBuf,
        /// The temporary file.
        temporary: NamedTempFile,
    },
}

impl Destination {
    /// Opens the output that the user has named.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn named(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                bail!("cannot write to {}: it is a directory; name a file with -o", path.display())
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(path);
                Ok(Self::Special(path.to_owned(), file.with_context(|| cannot_write(path))?))
            }
            _ => Self::file(path.to_owned()),
        }
    }

    /// Opens an output of this name, or with a number in it if there is one already: `memtrace.redis.17.pb.gz`, `memtrace.redis.17.1.pb.gz`, ...
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn unused(stem: &Path, ending: &str) -> Result<Self> {
        for path in candidates(stem, ending) {
            if std::fs::symlink_metadata(&path).is_err() {
                return Self::file(path);
            }
        }
        Err(too_many(stem, ending))
    }

    /// Where the profiles of single processes go: `heap.processes` beside `heap.pb.gz`. None where there is no place
    /// beside it.
    pub(super) fn directory_beside(&self, ending: &str) -> Option<PathBuf> {
        let Self::File { path, .. } = self else { return None };
        let name = path.file_name()?.to_string_lossy();
        Some(path.with_file_name(format!("{}.processes", name.strip_suffix(ending).unwrap_or(&name))))
    }

    fn file(path: PathBuf) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // A new file gets the usual permissions, less what the umask takes away.
        let temporary = tempfile::Builder::new()
            .prefix(".memtrace-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(|error| error_without_temporary_name(&error))
            .with_context(|| cannot_write(&path))?;
        Ok(Self::File { path, temporary })
    }

    /// What the user calls it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::Special(path, _) | Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// Writes everything and puts the file under its name. Returns whether it has replaced another.
    ///
    /// # Errors
    /// When the writing fails; an existing file is untouched then.
    pub(super) fn write<E>(self, write: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<bool>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let name = self.name();
        let failed = || format!("failed to write the profile to {name}");
        match self {
            Self::Stdout => write(&mut io::stdout().lock()).with_context(failed)?,
            Self::Special(_, mut file) => write(&mut file).with_context(failed)?,
            Self::File { path, mut temporary } => {
                write(temporary.as_file_mut()).with_context(failed)?;
                let replaces = std::fs::symlink_metadata(&path).is_ok();
                temporary.persist(&path).map_err(|error| error.error).with_context(failed)?;
                return Ok(replaces);
            }
        }
        Ok(false)
    }
}

/// Creates a directory of this name, or with a number in it if there is one already.
///
/// # Errors
/// When none can be created.
pub(super) fn create_unused(directory: &Path) -> Result<PathBuf> {
    for path in candidates(directory, "") {
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| cannot_write(&path)),
        }
    }
    Err(too_many(directory, ""))
}

/// The names that are tried, one after another.
fn candidates(stem: &Path, ending: &str) -> impl Iterator<Item = PathBuf> {
    let name = move |middle: String| {
        let mut name = stem.as_os_str().to_owned();
        name.push(middle);
        name.push(ending);
        PathBuf::from(name)
    };
    std::iter::once(String::new()).chain((1..=9999).map(|number| format!(".{number}"))).map(name)
}

fn too_many(stem: &Path, ending: &str) -> anyhow::Error {
    let stem = stem.display();
    anyhow!("there are ten thousand files {stem}.N{ending}: remove some, or name another with -o")
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write to {}: name another file with -o", path.display())
}

/// The error without the temporary file's name, which the user has never heard of.
fn error_without_temporary_name(error: &io::Error) -> io::Error {
    match error.raw_os_error().or_else(|| {
        error
            .get_ref()
            .and_then(|inner| inner.source())
            .and_then(|source| source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
    }) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::from(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pb.gz");
        let destination = Destination::named(&path).unwrap();
        assert!(!path.exists());
        let replaced = destination.write(|out| out.write_all(b"one")).unwrap();
        assert!(!replaced);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert!(Destination::named(&path).unwrap().write(|out| out.write_all(b"two")).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pb.gz");
        std::fs::write(&path, b"old").unwrap();
        let failure = |_: &mut dyn Write| Err(io::Error::other("no"));
        assert!(Destination::named(&path).unwrap().write(failure).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Destination::named(directory.path()).is_err());
        let error = Destination::named(&directory.path().join("no/such/dir/x.pb.gz")).unwrap_err();
        assert!(!format!("{error:#}").contains(".memtrace-"), "{error:#}");
    }
}
