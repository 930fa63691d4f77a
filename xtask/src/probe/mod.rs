//! Uprobes with small BPF programs, attached through perf events or, by [`multi`], through a link that holds
//! many probes.
//!
//! With a program that does nothing the benchmark measures what the kernel charges for a probe whatever
//! the program does, and the tests ask whether this kernel and these permissions allow uprobes at all.
//! [`naive`] and [`walk`] are what memtrace is compared with. All goes through the system calls themselves, so that it
//! shares no code with what is measured and tested.

mod instruction;
mod map;
mod multi;
pub(crate) mod naive;
mod preflight;
mod program;
pub(crate) mod site;
pub(crate) mod walk;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use preflight::preflight;
pub(crate) use program::Program;

/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_SET_BPF`, include/uapi/linux/perf_event.h.
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
/// `PERF_PROBE_CONFIG_IS_RETPROBE`, kernel/events/core.c; /sys/bus/event_source/devices/uprobe/format/retprobe
/// says the same.
const CONFIG_RETPROBE: u64 = 1;
/// `PERF_FLAG_FD_CLOEXEC`, the same file.
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` as of its second version (`PERF_ATTR_SIZE_VER1`, 72 bytes).
#[repr(C)]
#[derive(Default)]
struct PerfAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// Here: `uprobe_path`, an address of a C string.
    config1: u64,
    /// Here: `probe_offset`, an offset in the file.
    config2: u64,
}

/// When a probe fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Before the probed instruction.
    Entry,
    /// When the function has returned: the kernel replaces the return address at the entry, which is a hit
    /// of its own, by that of a trampoline.
    Return,
}

/// By what a probe is held. The kernel wants to know when it loads the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// A perf event for each probe.
    Perf,
    /// One link for all probes of a file (Linux 6.6).
    Multi,
}

/// An attached probe, or many in one link; removed when dropped.
pub(crate) struct Probe {
    _link: OwnedFd,
}

impl Probe {
    /// Attaches `program` to the instruction at `offset` in the file `path`, or to the return of the function
    /// there, for the process `pid` alone.
    ///
    /// # Errors
    /// Without permission, without uprobes in the kernel, or when no instruction can be probed there.
    pub(crate) fn attach(program: &Program, path: &Path, offset: u64, leg: Leg, pid: u32) -> Result<Self> {
        let file = CString::new(path.as_os_str().as_bytes()).context("the path has a zero byte")?;
        let mut attributes = PerfAttributes {
            kind: uprobe_pmu()?,
            size: size_of::<PerfAttributes>() as u32,
            config: if leg == Leg::Return { CONFIG_RETPROBE } else { 0 },
            config1: file.as_ptr() as u64,
            config2: offset,
            ..PerfAttributes::default()
        };
        let (any_cpu, no_group) = (-1, -1);
        // SAFETY: `attributes` and the string that it points to live through the call, and its `size` is
        // its own; the kernel may write the size back into it (perf_event_open(2)).
        let fd = unsafe {
            let attributes = &raw mut attributes;
            let (pid, flags) = (pid as libc::pid_t, PERF_FLAG_FD_CLOEXEC);
            libc::syscall(libc::SYS_perf_event_open, attributes, pid, any_cpu, no_group, flags)
        };
        let event = owned(fd).with_context(|| {
            format!("the kernel does not attach a uprobe to {}+{offset:#x}", path.display())
        })?;
        for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program.fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
            // SAFETY: both requests take an integer and no pointer; both descriptors are open.
            if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
                return Err(io::Error::last_os_error())
                    .context("the kernel does not run the program on the uprobe");
            }
        }
        Ok(Self { _link: event })
    }
}

/// The number by which perf events name the uprobe PMU.
fn uprobe_pmu() -> Result<u32> {
    let path = "/sys/bus/event_source/devices/uprobe/type";
    let text = fs::read_to_string(path).with_context(|| format!("this kernel has no uprobes (no {path})"))?;
    text.trim().parse().with_context(|| format!("{path} does not hold a number"))
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system call has just returned this descriptor, so that it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structure_has_the_kernels_size() {
        assert_eq!(size_of::<PerfAttributes>(), 72);
    }
}
