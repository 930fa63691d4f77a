//! Setting a probe to see whether it works.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_ATOMIC, BPF_CALL, BPF_DW, BPF_EXIT, BPF_IMM, BPF_JMP, BPF_K, BPF_LD, BPF_MEM,
    BPF_MOV, BPF_PSEUDO_MAP_VALUE, BPF_STX, bpf_insn, bpf_map_type,
};
use thiserror::Error;

use crate::kernel::{
    sys::{self, AttachType, Code, MultiLink, Uprobe},
    trial,
};

/// How a probe is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A perf event of the `uprobe` PMU, whose number this is.
    Perf(u32),
    /// A link of type `uprobe_multi`.
    Multi,
    /// The same, with a program that runs at the entry and, if it says so, at the return.
    Session,
}

impl Kind {
    fn attach_type(self) -> AttachType {
        match self {
            Self::Perf(_) => AttachType::Perf,
            Self::Multi => AttachType::Multi,
            Self::Session => AttachType::Session,
        }
    }

    /// How often the program runs for one call.
    fn expected_hits(self) -> u64 {
        if self == Self::Session { 2 } else { 1 }
    }
}

/// A probe did not work.
#[derive(Debug, Error)]
pub(super) enum TrialError {
    #[error("cannot find memtrace's own code")]
    Place(#[source] io::Error),
    #[error("cannot create a map")]
    Map(#[source] io::Error),
    #[error("cannot load a program")]
    Load(#[source] io::Error),
    #[error("cannot set a probe")]
    Attach(#[source] io::Error),
    #[error("cannot read a map")]
    Read(#[source] io::Error),
    #[error("the probe was set, but one call hit it {seen} times instead of {expected}")]
    Hits { seen: u64, expected: u64 },
    #[error("the probe was hit, but instead of its cookie {seen:#x} arrived")]
    Cookie { seen: u64 },
}

/// Any number that does not come about by itself.
const COOKIE: u64 = 0x6d65_6d74_7261_6365;

/// Sets a probe on a function of memtrace's own, calls it, and looks whether the program has run and
/// has seen the cookie.
///
/// # Errors
/// What did not work.
pub(super) fn on_ourselves(kind: Kind) -> Result<(), TrialError> {
    let offset = trial::file_offset(trial::emulated).map_err(TrialError::Place)?;
    let (map, program) = load(kind)?;
    let pid = std::process::id();
    // By this name the file is found although it was deleted or replaced (proc(5)).
    let path = c"/proc/self/exe";
    match kind {
        Kind::Perf(pmu) => {
            let probe = Uprobe { path, offset, pid, cookie: COOKIE, semaphore: 0 };
            let _probe = sys::link_perf(&program, pmu, &probe).map_err(TrialError::Attach)?;
            trial::call(trial::emulated);
        }
        Kind::Multi | Kind::Session => {
            let link = MultiLink {
                program: &program,
                attach_type: kind.attach_type(),
                at_return: false,
                path,
                offsets: &[offset],
                cookies: &[COOKIE],
                semaphores: &[],
                pid,
            };
            let _link = link.create().map_err(TrialError::Attach)?;
            trial::call(trial::emulated);
        }
    }
    let [hits, cookie] = sys::read_first(&map).map_err(TrialError::Read)?;
    let expected = kind.expected_hits();
    if hits != expected {
        return Err(TrialError::Hits { seen: hits, expected });
    }
    if cookie != COOKIE {
        return Err(TrialError::Cookie { seen: cookie });
    }
    Ok(())
}

/// Sets a probe at an offset of a file for process `pid`, and takes it off again. For `semaphore` see [`Uprobe`].
///
/// # Errors
/// What did not work.
pub(super) fn on_file(
    pmu: u32,
    path: &CString,
    offset: u64,
    semaphore: u64,
    pid: u32,
) -> Result<(), TrialError> {
    let (_map, program) = load(Kind::Perf(pmu))?;
    let probe = Uprobe { path, offset, pid, cookie: COOKIE, semaphore };
    sys::link_perf(&program, pmu, &probe).map(drop).map_err(TrialError::Attach)
}

/// A map with two numbers, hits and the cookie, and the program that writes them.
fn load(kind: Kind) -> Result<(OwnedFd, OwnedFd), TrialError> {
    let map = sys::create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY, 4, 16, 1).map_err(TrialError::Map)?;
    let program =
        sys::load("mt_trial", &Code::plain(&instructions(map.as_raw_fd())), None, kind.attach_type())
            .map_err(TrialError::Load)?;
    Ok((map, program))
}

/// `map[1] = bpf_get_attach_cookie(ctx); map[0] += 1; return 0`, see the kernel's
/// Documentation/bpf/standardization/instruction-set.rst.
fn instructions(map: i32) -> [bpf_insn; 8] {
    /// `BPF_FUNC_get_attach_cookie`, include/uapi/linux/bpf.h; Linux 5.15.
    const GET_ATTACH_COOKIE: i32 = 174;
    [
        instruction(BPF_JMP | BPF_CALL, 0, 0, 0, GET_ATTACH_COOKIE),
        instruction(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_VALUE as u8, 0, map),
        instruction(0, 0, 0, 0, 0),
        instruction(BPF_STX | BPF_DW | BPF_MEM, 1, 0, 8, 0),
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 1),
        instruction(BPF_STX | BPF_DW | BPF_ATOMIC, 1, 2, 0, BPF_ADD as i32),
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
        instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    ]
}

fn instruction(code: u32, destination: u8, source: u8, off: i16, imm: i32) -> bpf_insn {
    let registers = bpf_insn::new_bitfield_1(destination, source);
    bpf_insn { code: code as u8, _bitfield_align_1: [], _bitfield_1: registers, off, imm }
}
