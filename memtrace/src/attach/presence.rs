//! Whether a probe is still where it was set.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::allocator::Discovered;

/// No instruction by which a probe stands is longer (kernel/events/uprobes.c, `UPROBE_SWBP_INSN_SIZE`).
const LENGTH: usize = 4;

/// Whether the code of a function is other than in its file at the place of its probe, in the process that `thread`
/// belongs to: the kernel has written an instruction there.
///
/// # Errors
/// When one of both cannot be read.
pub fn is_set(found: &Discovered, thread: u32) -> io::Result<bool> {
    let file = File::open(found.region.module().open_path().map_err(|_| io::ErrorKind::NotFound)?)?;
    let memory = File::open(format!("/proc/{thread}/mem"))?;
    let (mut original, mut present) = ([0; LENGTH], [0; LENGTH]);
    file.read_exact_at(&mut original, found.place().1)?;
    memory.read_exact_at(&mut present, found.address + found.site.offset)?;
    Ok(original != present)
}
