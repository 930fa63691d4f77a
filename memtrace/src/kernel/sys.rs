//! The system calls bpf(2) and perf_event_open(2), as far as memtrace needs what aya does not offer:
//! programs for uprobe links that carry many probes at once, and trying out what a kernel can do.
//!
//! The structures are the kernel's (include/uapi/linux/bpf.h, perf_event.h), as aya-obj's bindings give
//! them. Fields that a kernel does not know are zero, which it accepts (`bpf_check_uarg_tail_zero`).

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_func_info, bpf_insn, bpf_map_type, bpf_prog_type, perf_event_attr,
};

/// What a program for uprobes is loaded and attached as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttachType {
    /// By a perf event.
    Perf = 0,
    /// At many probes, or at the returns from the functions there (`BPF_TRACE_UPROBE_MULTI`, Linux 6.6).
    Multi = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as isize,
    /// At both, as the program decides (`BPF_TRACE_UPROBE_SESSION`, Linux 6.13; newer than the bindings).
    Session = 57,
}

/// The link's program runs when the function returns (`BPF_F_UPROBE_MULTI_RETURN`).
const AT_RETURN: u32 = 1;

const PERF_EVENT: u32 = bpf_attach_type::BPF_PERF_EVENT as u32;

/// `PERF_UPROBE_REF_CTR_OFFSET_SHIFT` (kernel/events/core.c): where in the event's configuration the offset of a
/// semaphore stands.
const SEMAPHORE_SHIFT: u32 = 32;

/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// # Safety
/// The pointers in the fields that `command` reads must be valid for it.
pub(super) unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    let size = size_of::<bpf_attr>() as libc::c_uint;
    // SAFETY: `attr` is a whole bpf_attr and lives until the call is over; for its content the caller vouches.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, attr as *mut bpf_attr, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`bpf`], for commands that return a new descriptor.
///
/// # Safety
/// As [`bpf`], and `command` must be one of those.
pub(super) unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for it.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers and structures of integers, for which all zeros are a value.
    unsafe { mem::zeroed() }
}

/// Creates a map.
pub(crate) fn create_map(kind: bpf_map_type, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    create_map_with(0, kind, key, value, entries)
}

/// Creates a map with flags.
pub(super) fn create_map_with(
    flags: u32,
    kind: bpf_map_type,
    key: u32,
    value: u32,
    entries: u32,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: BPF_MAP_CREATE reads this member, which has no pointers.
    unsafe {
        let map = &mut attr.__bindgen_anon_1;
        map.map_type = kind as u32;
        (map.key_size, map.value_size, map.max_entries) = (key, value, entries);
        map.map_flags = flags;
        bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
    }
}

/// What is said of one element of a map: its key, and where its value is or goes to, if that is asked for. Good
/// as long as both live.
pub(super) fn element<K>(map: BorrowedFd<'_>, key: &K, value: u64) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = ptr::from_ref(key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    attr
}

/// The first value of an array map whose values have the size of `T`.
pub(crate) fn read_first<const N: usize>(map: &OwnedFd) -> io::Result<[u64; N]> {
    let (key, mut value) = (0_u32, [0_u64; N]);
    let mut attr = element(map.as_fd(), &key, &raw mut value as u64);
    // SAFETY: BPF_MAP_LOOKUP_ELEM reads this member. Key and value outlive the call, and are as large as
    // the map's: it was created here with keys of 4 and values of 8 * N bytes.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
}

/// Removes `key` from a hash map and returns its value, in one step (Linux 5.14); `None` where there is no such key.
/// The types must be those of the map, or at least as large.
pub(crate) fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = mem::MaybeUninit::<V>::zeroed();
    let mut attr = element(map, key, value.as_mut_ptr() as u64);
    // SAFETY: BPF_MAP_LOOKUP_AND_DELETE_ELEM reads this member. Key and value outlive the call, and are as
    // large as the map's.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) };
    match result {
        // SAFETY: every bit pattern is a value of a `Pod`.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many entries [`entries`] asks for at first: a bucket of a hash map has one or two.
const BATCH: usize = 1024;

/// All entries of a hash map, while others go on changing it (Linux 5.6). Other than by `BPF_MAP_GET_NEXT_KEY`, which
/// starts all over when the key that it was given is gone, this comes to an end however busy the map is: it
/// goes from bucket to bucket. The types must be those of the map.
pub(crate) fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let (mut all, mut room) = (Vec::new(), BATCH);
    // Which bucket is next, as the kernel says (`__htab_map_lookup_and_delete_batch`, kernel/bpf/hashtab.c).
    let (mut bucket, mut begun) = (0_u32, false);
    loop {
        let mut keys: Vec<K> = Vec::with_capacity(room);
        let mut values: Vec<V> = Vec::with_capacity(room);
        let mut next = 0_u32;
        let mut attr = zeroed();
        // SAFETY: BPF_MAP_LOOKUP_BATCH reads this member, and writes at most `count` keys and values, for which
        // there is room.
        let (result, count) = unsafe {
            attr.batch.in_batch = if begun { &raw const bucket as u64 } else { 0 };
            attr.batch.out_batch = &raw mut next as u64;
            attr.batch.keys = keys.as_mut_ptr() as u64;
            attr.batch.values = values.as_mut_ptr() as u64;
            attr.batch.count = room as u32;
            attr.batch.map_fd = map.as_raw_fd() as u32;
            (bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr), attr.batch.count as usize)
        };
        let last = match result {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // One bucket has more entries than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                room *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written so many of both, and every bit pattern is a value of a `Pod`.
        unsafe {
            keys.set_len(count.min(room));
            values.set_len(count.min(room));
        }
        all.extend(keys.into_iter().zip(values));
        if last {
            return Ok(all);
        }
        (bucket, begun) = (next, true);
    }
}

/// Loads type information.
pub(crate) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: BPF_BTF_LOAD reads this member; the bytes outlive the call.
    unsafe {
        let load = &mut attr.__bindgen_anon_7;
        load.btf = btf.as_ptr() as u64;
        load.btf_size = btf.len() as u32;
        bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr)
    }
}

/// A program's code.
pub(crate) struct Code<'a> {
    /// The instructions.
    pub(crate) instructions: &'a [bpf_insn],
    /// Its licence.
    pub(crate) license: &'a CStr,
    /// Where its functions begin and what type they have. The kernel wants it of whoever hands a function to
    /// a helper (kernel/bpf/verifier.c, `check_ld_imm`).
    pub(crate) functions: &'a [bpf_func_info],
}

impl<'a> Code<'a> {
    /// A program of one function that uses nothing that its types are needed for.
    pub(crate) fn plain(instructions: &'a [bpf_insn]) -> Self {
        Self { instructions, license: c"Dual MIT/GPL", functions: &[] }
    }
}

/// Loads a program for uprobes, whose functions' types are in `btf`. On refusal, the end of the verifier's
/// log is in the error.
pub(crate) fn load(
    name: &str,
    code: &Code<'_>,
    btf: Option<&OwnedFd>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    let Code { instructions, license, functions } = code;
    let mut attr = zeroed();
    // SAFETY: BPF_PROG_LOAD reads this member, of which only plain fields are written.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    program.expected_attach_type = attach_type as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = instructions.len() as u32;
    program.license = license.as_ptr() as u64;
    if let Some(btf) = btf {
        program.prog_btf_fd = btf.as_raw_fd() as u32;
        program.func_info = functions.as_ptr() as u64;
        program.func_info_cnt = functions.len() as u32;
        program.func_info_rec_size = size_of::<bpf_func_info>() as u32;
    }
    for (place, byte) in program.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *place = byte as libc::c_char;
    }
    // SAFETY: the code and the licence outlive the call.
    let error = match unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) } {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Once more, to be told why.
    let mut log = vec![0_u8; 1 << 20];
    // SAFETY: as above.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.log_level = 1;
    program.log_buf = log.as_mut_ptr() as u64;
    program.log_size = log.len() as u32;
    // SAFETY: as above, and so does the log.
    match unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) } {
        Ok(fd) => Ok(fd),
        Err(_) => Err(with_log(error, &log)),
    }
}

/// The error with the last lines of the verifier's log, which say what it did not like.
fn with_log(error: io::Error, log: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
    match &lines[lines.len().saturating_sub(4)..] {
        [] => error,
        last => io::Error::new(error.kind(), format!("{error}; the verifier says: {}", last.join(" | "))),
    }
}

/// Where a uprobe is to be set: a file, an offset in it, and the process in which it fires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uprobe<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) offset: u64,
    pub(crate) pid: u32,
    pub(crate) cookie: u64,
    /// Where in the file the counter of two bytes stands that the kernel raises as long as the probe is set, or 0.
    pub(crate) semaphore: u64,
}

/// One link that sets probes at many places of one file, for one process.
pub(crate) struct MultiLink<'a> {
    /// The program.
    pub(crate) program: &'a OwnedFd,
    /// What it was loaded as.
    pub(crate) attach_type: AttachType,
    /// Whether the probes are on the returns of the functions.
    pub(crate) at_return: bool,
    /// The file.
    pub(crate) path: &'a CStr,
    /// Offsets in the file, each that of an instruction.
    pub(crate) offsets: &'a [u64],
    /// What the program is told at each.
    pub(crate) cookies: &'a [u64],
    /// Where in the file the counter of two bytes stands that the kernel raises for each, 0 for none; empty for none
    /// at all.
    pub(crate) semaphores: &'a [u64],
    /// The process.
    pub(crate) pid: u32,
}

impl MultiLink<'_> {
    /// Sets the probes. They are there until the descriptor is closed.
    pub(crate) fn create(&self) -> io::Result<OwnedFd> {
        assert_eq!(self.offsets.len(), self.cookies.len(), "one cookie for each probe");
        assert!(self.semaphores.is_empty() || self.semaphores.len() == self.offsets.len());
        let mut attr = zeroed();
        // SAFETY: BPF_LINK_CREATE reads this member. Path, offsets, cookies and semaphores outlive the call.
        unsafe {
            let link = &mut attr.link_create;
            link.__bindgen_anon_1.prog_fd = self.program.as_raw_fd() as u32;
            link.attach_type = self.attach_type as u32;
            let multi = &mut link.__bindgen_anon_3.uprobe_multi;
            multi.path = self.path.as_ptr() as u64;
            multi.offsets = self.offsets.as_ptr() as u64;
            multi.cookies = self.cookies.as_ptr() as u64;
            if self.semaphores.iter().any(|offset| *offset != 0) {
                multi.ref_ctr_offsets = self.semaphores.as_ptr() as u64;
            }
            multi.cnt = self.offsets.len() as u32;
            multi.flags = if self.at_return { AT_RETURN } else { 0 };
            multi.pid = self.pid;
            bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
        }
    }
}

/// Where the kernel numbers the kinds of perf events (Documentation/ABI/testing/sysfs-bus-event_source-devices-*).
pub(crate) const UPROBE_PMU: &str = "/sys/bus/event_source/devices/uprobe/type";

/// The number of the `uprobe` PMU.
pub(crate) fn uprobe_pmu() -> io::Result<u32> {
    let text = std::fs::read_to_string(UPROBE_PMU)?;
    text.trim().parse().map_err(io::Error::other)
}

/// A probe that was set through a perf event. It is taken off when both descriptors are closed.
#[derive(Debug)]
pub(crate) struct PerfProbe {
    _link: OwnedFd,
    _event: OwnedFd,
}

/// Sets a probe through a perf event of type `pmu`, which is that of the `uprobe` PMU.
pub(crate) fn link_perf(program: impl AsFd, pmu: u32, probe: &Uprobe<'_>) -> io::Result<PerfProbe> {
    let event = perf_event(pmu, probe)?;
    let mut attr = zeroed();
    // SAFETY: BPF_LINK_CREATE reads this member, which has no pointers for perf events.
    let link = unsafe {
        let link = &mut attr.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_fd().as_raw_fd() as u32;
        link.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
        link.attach_type = PERF_EVENT;
        link.__bindgen_anon_3.perf_event.bpf_cookie = probe.cookie;
        bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
    }?;
    Ok(PerfProbe { _link: link, _event: event })
}

fn perf_event(pmu: u32, probe: &Uprobe<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a structure of integers and unions of integers, for which all zeros are a value.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.type_ = pmu;
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.config = probe.semaphore << SEMAPHORE_SHIFT;
    attr.__bindgen_anon_3.uprobe_path = probe.path.as_ptr() as u64;
    attr.__bindgen_anon_4.probe_offset = probe.offset;
    let (any_cpu, no_group): (libc::c_int, libc::c_int) = (-1, -1);
    // SAFETY: `attr` and the path in it outlive the call.
    let fd = unsafe {
        let attr = &raw const attr;
        libc::syscall(
            libc::SYS_perf_event_open,
            attr,
            probe.pid as libc::pid_t,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
