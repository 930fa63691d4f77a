//! BPF maps.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

use super::owned;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;

/// `enum bpf_map_type`, the same file.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Kind {
    Hash = 1,
    Array = 2,
    StackTrace = 7,
}

/// The part of `union bpf_attr` that makes a map.
#[repr(C)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// A map; the kernel keeps it as long as this or a program that uses it.
pub(super) struct Map(OwnedFd);

impl Map {
    /// Makes one with room for `entries`; sizes are in bytes.
    ///
    /// # Errors
    /// Without permission, or without memory.
    pub(super) fn new(kind: Kind, key_size: u32, value_size: u32, entries: u32) -> Result<Self> {
        let attributes =
            CreateAttributes { map_type: kind as u32, key_size, value_size, max_entries: entries };
        // SAFETY: the pointer and the size are those of `attributes`, which lives through the call; the
        // kernel only reads it (bpf(2)).
        let fd = unsafe {
            let size = size_of::<CreateAttributes>();
            libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size)
        };
        owned(fd).map(Self).context("the kernel does not make a BPF map")
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
