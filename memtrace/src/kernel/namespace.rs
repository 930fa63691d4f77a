//! The PID namespace that memtrace lives in.

use std::{io, os::linux::fs::MetadataExt};

/// Inode of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFC;

/// Device and inode of memtrace's PID namespace, or zeros when it is the initial one, whose numbers
/// the kernel program sees anyway.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub(super) fn own() -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata("/proc/self/ns/pid")?;
    if metadata.st_ino() == INITIAL {
        return Ok((0, 0));
    }
    Ok((metadata.st_dev(), metadata.st_ino()))
}
