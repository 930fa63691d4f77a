//! Why the kernel program cannot be used.

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

/// The kernel program could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel refused for lack of privileges.
    #[error(
        "not permitted to load BPF programs: run memtrace as root, or give it CAP_BPF and CAP_PERFMON \
         (`memtrace doctor` says what is missing)"
    )]
    NotPermitted,
    /// This kernel has no BTF, or no readable one.
    #[error(
        "this kernel offers no BTF at /sys/kernel/btf/vmlinux: memtrace needs Linux 5.15 or newer, built \
         with CONFIG_DEBUG_INFO_BTF, and /sys mounted"
    )]
    NoBtf(#[source] aya::BtfError),
    /// `/proc` is not usable.
    #[error("cannot tell memtrace's own PID namespace from /proc/self/ns/pid: is /proc mounted?")]
    Namespace(#[source] std::io::Error),
    /// The object does not hold what this binary expects: a bug.
    #[error("the embedded kernel program has no {0}; this is a bug in memtrace")]
    Missing(&'static str),
    /// Parsing, relocation or map creation failed.
    #[error("cannot load the kernel program")]
    Object(#[source] EbpfError),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused the program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The kernel refused a program for links that carry many probes.
    #[error("the kernel refused the program {name}; --attach-mode perf may be possible")]
    MultiProgram {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Relocation failed: a bug.
    #[error("cannot prepare the embedded kernel program; this is a bug in memtrace")]
    Relocation(#[source] anyhow::Error),
    /// A map could not be used.
    #[error("cannot set up the kernel program's tables")]
    Map(#[from] MapError),
}
