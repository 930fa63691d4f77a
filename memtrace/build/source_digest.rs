//! The digest of the kernel program's sources: by it an object is known to be theirs.
//!
//! `cargo xtask build-ebpf` writes it into the object that it makes, as the ELF section [`SECTION`];
//! memtrace's build script compares it with the sources that it finds. Both include this one file (it
//! lies in memtrace's package, so that a published package can still be built), hence it uses nothing
//! but `std` and `sha2`.
//!
//! The digest is SHA-256 over the inputs in the order of their paths, each as: length of the relative
//! path, path, length of the content, content. Lengths are 8 bytes, little endian. No absolute path,
//! time stamp or file mode is in it: every checkout of the same sources has the same digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The ELF section that carries the digest, as 64 hexadecimal characters. It is not allocated and aya
/// skips sections that it does not know (`EbpfSectionKind::Undefined` in aya-obj's `obj.rs`).
pub(crate) const SECTION: &str = ".memtrace.digest";

/// What the object is made from, relative to the root of the repository: files, and folders in which
/// every file counts.
pub(crate) const INPUTS: [&str; 6] = [
    "memtrace-ebpf/.cargo",
    "memtrace-ebpf/Cargo.lock",
    "memtrace-ebpf/Cargo.toml",
    "memtrace-ebpf/src",
    "memtrace-common/Cargo.toml",
    "memtrace-common/src",
];

/// The digest of the sources in the checkout at `root`, in hexadecimal.
///
/// # Errors
/// When one of [`INPUTS`] is missing or cannot be read; the error names it.
pub(crate) fn of_sources(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for input in INPUTS {
        collect(&root.join(input), input, &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for (name, path) in &files {
        let content = fs::read(path).map_err(|error| naming(path, &error))?;
        for part in [name.as_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Adds the file at `path`, or all files below it, with their names relative to the root.
fn collect(path: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if !fs::metadata(path).map_err(|error| naming(path, &error))?.is_dir() {
        files.push((name.to_owned(), path.to_owned()));
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| naming(path, &error))? {
        let entry = entry.map_err(|error| naming(path, &error))?;
        let file = entry.file_name();
        let file = file.to_str().ok_or_else(|| {
            io::Error::other(format!("{} is not a file name in UTF-8", entry.path().display()))
        })?;
        // What editors leave beside a file while it is edited.
        if !(file.starts_with('.') || file.ends_with('~')) {
            collect(&entry.path(), &format!("{name}/{file}"), files)?;
        }
    }
    Ok(())
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}
