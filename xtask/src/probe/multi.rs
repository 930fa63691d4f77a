//! Many probes in one link: `BPF_LINK_CREATE` with the attach type for uprobes (Linux 6.6).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Leg, Probe, Program, owned};

/// `enum bpf_attach_type`, include/uapi/linux/bpf.h.
pub(super) const BPF_TRACE_UPROBE_MULTI: u32 = 48;
/// `BPF_F_UPROBE_MULTI_RETURN`, the same file.
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;
/// `enum bpf_cmd`, the same file.
const BPF_LINK_CREATE: libc::c_long = 28;

/// The part of `union bpf_attr` that makes such a link (`link_create`, with its member `uprobe_multi`).
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

impl Probe {
    /// Attaches `program`, which was loaded for [`Link::Multi`](super::Link::Multi), to the instructions at
    /// `offsets` in the file `path`, or to the returns of the functions there, for the process `pid` alone.
    ///
    /// # Errors
    /// Without permission, before Linux 6.6, or when an instruction cannot be probed.
    pub(crate) fn attach_multi(
        program: &Program,
        path: &Path,
        offsets: &[u64],
        leg: Leg,
        pid: u32,
    ) -> Result<Self> {
        let file = CString::new(path.as_os_str().as_bytes()).context("the path has a zero byte")?;
        let attributes = LinkAttributes {
            prog_fd: program.fd() as u32,
            target_fd: 0,
            attach_type: BPF_TRACE_UPROBE_MULTI,
            flags: 0,
            path: file.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            ref_ctr_offsets: 0,
            cookies: 0,
            cnt: offsets.len() as u32,
            multi_flags: if leg == Leg::Return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
            pid,
            padding: 0,
        };
        // SAFETY: the pointer and the size are those of `attributes`, which lives through the call, as do
        // the string and the `cnt` offsets that it points to; the kernel only reads them (bpf(2)).
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<LinkAttributes>())
        };
        let link = owned(fd).with_context(|| {
            format!("the kernel makes no link with many uprobes (Linux 6.6) in {}", path.display())
        })?;
        Ok(Self { _link: link })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structure_has_the_kernels_size() {
        // 60 bytes, and the 4 that align the next member of `union bpf_attr`.
        assert_eq!(size_of::<LinkAttributes>(), 64);
        assert_eq!(std::mem::offset_of!(LinkAttributes, pid), 56);
    }
}
