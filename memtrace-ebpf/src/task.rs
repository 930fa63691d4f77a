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
    let mut info = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes to `info`, whose size it is given.
    let failed = unsafe {
        bpf_get_ns_current_pid_tgid(
            config.pid_namespace_dev,
            config.pid_namespace_ino,
            &raw mut info,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if failed != 0 {
        return 0;
    }
    u64::from(info.tgid) << 32 | u64::from(info.pid)
}

/// The process id of a `pid_tgid`.
#[inline(always)]
pub(crate) fn tgid(pid_tgid: u64) -> u32 {
    (pid_tgid >> 32) as u32
}
