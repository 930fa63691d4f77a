//! The vDSO: an ELF library that the kernel maps into every process and that no file holds (vdso(7)).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use procfs::process::Process;
use rustix::fs::{MemfdFlags, memfd_create};

use super::maps::MapLine;

/// On x86-64 it has two pages.
const MAX_BYTES: u64 = 1 << 20;

/// The name of its mapping.
pub(super) const NAME: &str = "[vdso]";

/// Copies the vDSO of `process` into a file in memory. It is read from the process and not from
/// memtrace itself, because a 32-bit process has another one.
pub(super) fn copy(process: &Process, line: &MapLine) -> io::Result<File> {
    let size = line.end - line.start;
    if size > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut image = vec![0; size as usize];
    let memory = process.open_relative("mem").map_err(io::Error::other)?;
    memory.read_exact_at(&mut image, line.start)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&image)?;
    Ok(file)
}
