//! Images on disk: compiling a large program takes a second, reading its image some milliseconds.
//!
//! The directory is memtrace's own. What is in it is never trusted: a file that is cut short, of another
//! version, damaged or somebody else's is as good as none, and is written anew.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::image::Image;
use super::image_file::{self, Header};

/// How large all files of the cache together may be, in bytes.
pub const DEFAULT_LIMIT: u64 = 512 << 20;

/// The end of the names of its files. No other file is ever removed.
const SUFFIX: &str = ".unwind";

/// A directory with images.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    limit: u64,
}

/// Names an image: what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// By build-id, size and owner. (Anyone may write a file with the build-id of another. By the owner such
    /// a file cannot take the place of one that belongs to somebody else.) A file without build-id is known
    /// by its inode and the times of its last changes.
    pub fn new(build_id: &str, file: &Metadata) -> Self {
        let (size, owner) = (file.size(), file.uid());
        let is_id =
            (8..=128).contains(&build_id.len()) && build_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self(if is_id {
            format!("{build_id}-{size:x}-{owner}")
        } else {
            let inode = format!("{:x}-{:x}-{size:x}-{owner}", file.dev(), file.ino());
            let modified = format!("{}.{:09}", file.mtime(), file.mtime_nsec());
            let changed = format!("{}.{:09}", file.ctime(), file.ctime_nsec());
            format!("file-{inode}-{modified}-{changed}")
        })
    }
}

/// Why there is no cache. Reads well after "unwind tables are not cached: ".
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// None of the environment's variables says where, or the home directory is another user's.
    #[error("no directory for them; set MEMTRACE_CACHE_DIR")]
    NoDirectory,
    /// It cannot be made or looked at.
    #[error("cannot use the directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// Others could put anything into it.
    #[error(
        "the directory {0} belongs to another user or can be written to by others; set MEMTRACE_CACHE_DIR"
    )]
    NotOurs(PathBuf),
}

impl Cache {
    /// The cache in the directory that the environment says.
    ///
    /// # Errors
    /// See [`CacheError`]. One can do without.
    pub fn open() -> Result<Self, CacheError> {
        let directory = directory(|name| std::env::var_os(name).map(PathBuf::from), user());
        Self::at(&directory.ok_or(CacheError::NoDirectory)?, DEFAULT_LIMIT)
    }

    /// The cache in this directory, which is made if need be; its files take at most `limit` bytes.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn at(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io(directory.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let metadata = fs::metadata(directory).map_err(failed)?;
        if metadata.uid() != user() || metadata.mode() & 0o022 != 0 {
            return Err(CacheError::NotOurs(directory.to_owned()));
        }
        Ok(Self { directory: directory.to_owned(), limit })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}{SUFFIX}", key.0))
    }

    /// The image of this key, if there is a good one.
    pub fn load(&self, key: &Key) -> Option<Image> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags).open(self.path(key)).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.uid() != user() {
            return None;
        }
        let mut header = Header::default();
        file.read_exact(header.bytes_mut()).ok()?;
        let mut pages = header.pages(metadata.size())?;
        file.read_exact(image_file::bytes_mut(&mut pages)).ok()?;
        let image = header.image(pages);
        if image.is_none() {
            tracing::debug!(path = %self.path(key).display(), "the cached unwind table is damaged");
        }
        // What is in use is removed last. Only the order of removal depends on it.
        let _ = file.set_modified(SystemTime::now());
        image
    }

    /// Keeps an image.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, key: &Key, image: &Image) -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        let mut file = builder.prefix(".new-").suffix(SUFFIX).tempfile_in(&self.directory)?;
        file.write_all(Header::new(image).bytes())?;
        file.write_all(image_file::bytes(&image.pages))?;
        file.persist(self.path(key))?;
        Ok(())
    }

    /// Removes the files that were not used for the longest time, until the others are within the limit.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX));
            // One that is gone meanwhile was removed by another memtrace.
            if let Some(metadata) = entry.metadata().ok().filter(|metadata| is_ours && metadata.is_file()) {
                files.push((metadata.modified()?, metadata.size(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= self.limit {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                tracing::debug!(path = %path.display(), "removed from the cache of unwind tables");
            }
            total -= size;
        }
        Ok(())
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Where the cache is. A home directory that belongs to another user, as sudo may leave it in the environment,
/// is left alone.
fn directory(variable: impl Fn(&str) -> Option<PathBuf>, user: u32) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
    if let Some(directory) = variable("MEMTRACE_CACHE_DIR") {
        return Some(directory);
    }
    let is_own = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.uid() == user);
    let home = variable("HOME").filter(is_own);
    let cache = variable("XDG_CACHE_HOME").filter(|path| is_own(path) || !path.exists() && home.is_some());
    if let Some(cache) = cache.or_else(|| home.map(|home| home.join(".cache"))) {
        return Some(cache.join("memtrace/unwind"));
    }
    (user == 0).then(|| PathBuf::from("/var/cache/memtrace/unwind"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::unwind::{compile, sections::Cfi};

    fn image() -> Image {
        let cache = object::ReadCache::new(File::open("/proc/self/exe").unwrap());
        Image::new(&compile(&Cfi::read(&cache).unwrap()).unwrap()).unwrap()
    }

    fn own_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    fn key(name: &str) -> Key {
        Key(name.to_owned())
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = own_directory();
        let cache = Cache::at(&directory.path().join("a/b"), DEFAULT_LIMIT).unwrap();
        let image = image();
        assert_eq!(cache.load(&key("x")), None);
        cache.store(&key("x"), &image).unwrap();
        assert_eq!(cache.load(&key("x")), Some(image));
        let mode = fs::metadata(directory.path().join("a/b")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn damaged_files_are_none() {
        let directory = own_directory();
        let cache = Cache::at(directory.path(), DEFAULT_LIMIT).unwrap();
        cache.store(&key("x"), &image()).unwrap();
        let path = cache.path(&key("x"));
        let good = fs::read(&path).unwrap();
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        let mut other_version = good.clone();
        other_version[8] ^= 1;
        let mut longer = good.clone();
        longer.push(0);
        let damaged: [&[u8]; 7] =
            [&[], &good[..10], &good[..middle], &flipped, &other_version, &longer, &[0xff; 5000]];
        for content in damaged {
            fs::write(&path, content).unwrap();
            assert_eq!(cache.load(&key("x")), None);
        }
        // Any byte of the header.
        for place in 0..size_of::<Header>() {
            let mut content = good.clone();
            content[place] ^= 0x10;
            fs::write(&path, &content).unwrap();
            assert_eq!(cache.load(&key("x")), None, "byte {place}");
        }
        fs::write(&path, &good).unwrap();
        assert!(cache.load(&key("x")).is_some());
        let link = cache.path(&key("link"));
        std::os::unix::fs::symlink(&path, link).unwrap();
        assert_eq!(cache.load(&key("link")), None);
    }

    #[test]
    fn the_oldest_are_removed() {
        let directory = own_directory();
        let image = image();
        let size = image.bytes() + size_of::<Header>() as u64;
        let cache = Cache::at(directory.path(), 2 * size).unwrap();
        fs::write(directory.path().join("not-ours"), vec![0; 10]).unwrap();
        for (age, name) in [(30, "a"), (20, "b"), (10, "c")] {
            cache.store(&key(name), &image).unwrap();
            let file = File::options().append(true).open(cache.path(&key(name))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert!(cache.load(&key("a")).is_some(), "this makes it the youngest");
        cache.trim().unwrap();
        assert!(cache.load(&key("a")).is_some());
        assert!(cache.load(&key("b")).is_none());
        assert!(cache.load(&key("c")).is_some());
        assert!(directory.path().join("not-ours").exists());
    }

    #[test]
    fn directories_of_others_are_refused() {
        let directory = own_directory();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Cache::at(directory.path(), 1), Err(CacheError::NotOurs(_))));
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Cache::at(&file.join("x"), 1), Err(CacheError::Io(..))));
    }

    #[test]
    fn the_environment_says_where() {
        let home = own_directory();
        let home = home.path();
        let with = |variables: &[(&str, &Path)], user| {
            let find = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, path)| path.to_path_buf())
            };
            directory(find, user)
        };
        let in_home = Some(home.join(".cache/memtrace/unwind"));
        assert_eq!(with(&[("HOME", home)], user()), in_home);
        assert_eq!(with(&[("HOME", home), ("XDG_CACHE_HOME", Path::new("relative"))], user()), in_home);
        let elsewhere = home.join("elsewhere");
        let xdg = with(&[("HOME", home), ("XDG_CACHE_HOME", &elsewhere)], user());
        assert_eq!(xdg, Some(elsewhere.join("memtrace/unwind")));
        assert_eq!(with(&[("MEMTRACE_CACHE_DIR", &elsewhere)], user()), Some(elsewhere.clone()));
        // Not the user's own home.
        assert_eq!(with(&[("HOME", home)], user() + 1), None);
        assert_eq!(with(&[], 0), Some(PathBuf::from("/var/cache/memtrace/unwind")));
    }

    #[test]
    fn a_build_id_is_no_path() {
        let metadata = fs::metadata("/proc/self/exe").unwrap();
        assert!(Key::new("../../x", &metadata).0.starts_with("file-"));
        assert!(Key::new("0123456789abcdef", &metadata).0.starts_with("0123456789abcdef-"));
        assert_ne!(Key::new("", &metadata), Key::new("", &fs::metadata("/bin/sh").unwrap()));
    }
}
