//! Which process and thread this is.

use aya_ebpf::{
    bindings::bpf_pidns_info,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_get_ns_current_pid_tgid},
};

use crate::control;

/// Process id in the upper, thread id in the lower half, as memtrace's own PID namespace numbers them. A
/// process that has no number there is none of ours: 0.
#[inline(always)]
pub(crate) fn pid_tgid() -> u64 {
    let config = control::config();
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

/// PID namespaces are nested no deeper (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
const MAX_LEVEL: u32 = 32;

/// A field of one of the kernel's structures.
#[inline(always)]
fn field<T>(structure: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; whoever asks for a type takes any value of it.
    unsafe { bpf_probe_read_kernel(structure.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// The process id of another task (`struct task_struct`) in the initial PID namespace.
#[inline(always)]
pub(crate) fn number(task: *const u8) -> Option<u32> {
    field(task, control::config().offsets.tgid)
}

/// The process id of another task, a main thread, in memtrace's PID namespace; `number` is that in the initial one.
#[inline(always)]
pub(crate) fn tgid_of(task: *const u8, number: u32) -> Option<u32> {
    let config = control::config();
    if config.pid_namespace_ino == 0 {
        return Some(number);
    }
    let offsets = config.offsets;
    let pid: *const u8 = field(task, offsets.thread_pid)?;
    let deepest: u32 = field(pid, offsets.level)?;
    let mut level = 0;
    while level < MAX_LEVEL {
        if level > deepest {
            break;
        }
        let upid = pid.wrapping_add((offsets.numbers + level * offsets.upid) as usize);
        let namespace: *const u8 = field(upid, offsets.upid_namespace)?;
        if u64::from(field::<u32>(namespace, offsets.namespace_inum)?) == config.pid_namespace_ino {
            return field(upid, 0);
        }
        level += 1;
    }
    None
}
