//! Which process and thread this is.

use aya_ebpf::{
    bindings::bpf_pidns_info,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_ns_current_pid_tgid},
};

/// Process id in the upper, thread id in the lower half, as memtrace's own PID namespace numbers them. A
/// process that has no number there is none of ours: 0.
#[inline(always)]
pub(crate) fn pid_tgid() -> u64 {
    let config = crate::control::config();
    if config.pid_namespace_ino == 0 {
        return bpf_get_current_pid_tgid();
    }
    match ids_in(config.pid_namespace_dev, config.pid_namespace_ino) {
        Some(ids) => u64::from(ids.tgid) << 32 | u64::from(ids.pid),
        None => 0,
    }
}

/// The ids of the current process and thread in the PID namespace with this device number and inode, if it is in
/// that one itself: the helper knows no ids of an outer one.
#[inline(always)]
pub(crate) fn ids_in(device: u64, inode: u64) -> Option<bpf_pidns_info> {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes to `ids`, whose size it is given.
    let failed = unsafe {
        bpf_get_ns_current_pid_tgid(device, inode, &raw mut ids, size_of::<bpf_pidns_info>() as u32)
    };
    if failed == 0 { Some(ids) } else { None }
}

/// The process id of a `pid_tgid`.
#[inline(always)]
pub(crate) fn tgid(pid_tgid: u64) -> u32 {
    (pid_tgid >> 32) as u32
}
