//! The PID namespace that memtrace lives in, and those below it.

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

/// Whether the kernel program cannot tell which process the thread `tid` belongs to. In the initial namespace it knows
/// the number of every process; in another one it is only told those of the processes that are in that very namespace
/// (kernel/bpf/helpers.c, `bpf_get_ns_current_pid_tgid`), and not of those in namespaces below.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub(crate) fn hides(tid: u32) -> io::Result<bool> {
    let own = own()?;
    if own == (0, 0) {
        return Ok(false);
    }
    let metadata = std::fs::metadata(format!("/proc/{tid}/ns/pid"))?;
    Ok((metadata.st_dev(), metadata.st_ino()) != own)
}
