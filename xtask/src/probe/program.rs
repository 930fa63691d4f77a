//! BPF programs, as instructions.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

use super::instruction::{self, Instruction, R0};
use super::{Link, multi, owned};

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
/// `enum bpf_prog_type`, the same file; uprobes run programs of the kprobe type.
const BPF_PROG_TYPE_KPROBE: u32 = 2;

/// The part of `union bpf_attr` that loads a program; the kernel takes what is missing as zero.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// A loaded program; it is unloaded when it and all probes that run it are dropped.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// One that does nothing, for probes held by `link`.
    ///
    /// # Errors
    /// Without permission (`CAP_BPF` and `CAP_PERFMON`, or root), or without BPF in the kernel.
    pub(crate) fn empty(link: Link) -> Result<Self> {
        Self::load(&[instruction::set(R0, 0), instruction::exit()], link)
    }

    /// That of `instructions`, for probes held by `link`.
    ///
    /// # Errors
    /// As [`empty`](Self::empty), or when the verifier refuses it.
    pub(super) fn load(instructions: &[Instruction], link: Link) -> Result<Self> {
        let mut attributes = LoadAttributes {
            prog_type: BPF_PROG_TYPE_KPROBE,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"xtask\0\0\0\0\0\0\0\0\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: if link == Link::Multi { multi::BPF_TRACE_UPROBE_MULTI } else { 0 },
        };
        // SAFETY: the pointer and the size are those of `attributes`, which lives through the call, as do
        // the instructions and the string that it points to; the kernel only reads them (bpf(2)).
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw mut attributes, size_of::<LoadAttributes>())
        };
        owned(fd).map(Self).context("the kernel does not load a BPF program")
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structure_has_the_kernels_size() {
        assert_eq!(size_of::<LoadAttributes>(), 72);
    }
}
