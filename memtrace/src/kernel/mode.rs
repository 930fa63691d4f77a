//! By which kernel interface probes are set.

use std::io;

use aya_obj::generated::bpf_insn;
use procfs::KernelVersion;

use super::{
    sys::{self, AttachType, Code, MultiLink},
    trial,
};

/// A kernel interface for probes, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum AttachMode {
    /// One link for all functions of a file, and no return probe for calls that are not sampled (Linux 6.13)
    Session,
    /// One link for all functions of a file, and one for their returns (Linux 6.6)
    Multi,
    /// A perf event for each function and each return
    Perf,
}

impl AttachMode {
    /// Every mode, the best first.
    pub const ALL: [Self; 3] = [Self::Session, Self::Multi, Self::Perf];

    /// The name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Multi => "multi",
            Self::Perf => "perf",
        }
    }

    /// Tries the mode on a function of memtrace itself.
    ///
    /// # Errors
    /// Why it cannot be used on this kernel, or with these privileges.
    pub fn test(self) -> io::Result<()> {
        if self == Self::Perf {
            // All kernels that can load the programs have it.
            return Ok(());
        }
        if filters_by_thread() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "Linux 6.6 to 6.9 would leave out all threads but one (fixed in 6.10, commit 46ba0e49b642)",
            ));
        }
        let attach_type = if self == Self::Session { AttachType::Session } else { AttachType::Multi };
        let program = sys::load("mt_trial", &Code::plain(&return_zero()), None, attach_type)?;
        let link = MultiLink {
            program: &program,
            attach_type,
            at_return: false,
            path: c"/proc/self/exe",
            offsets: &[trial::file_offset(trial::emulated)?],
            cookies: &[0],
            semaphores: &[],
            pid: std::process::id(),
        };
        link.create().map(drop)
    }

    /// The best mode that this kernel has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|mode| mode.test().is_ok()).unwrap_or(Self::Perf)
    }
}

/// `r0 = 0; exit` (Documentation/bpf/standardization/instruction-set.rst).
fn return_zero() -> [bpf_insn; 2] {
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    [instruction(0xb7), instruction(0x95)]
}

/// From 6.6 to 6.9 the process id of a multi link meant a single thread (kernel/trace/bpf_trace.c,
/// `uprobe_prog_run`; fixed by commit 46ba0e49b642 in 6.10).
fn filters_by_thread() -> bool {
    KernelVersion::current().is_ok_and(|version| version.major == 6 && (6..10).contains(&version.minor))
}
