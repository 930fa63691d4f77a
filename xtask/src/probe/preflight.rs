//! Whether this machine can run the tests that attach probes; asked by attaching one.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Leg, Link, Probe, Program, site};

/// Fails, with what is missing and what to do, where probes cannot be attached. Tests are never
/// skipped for a missing capability, so this says once what they would all say.
///
/// # Errors
/// See above.
pub(crate) fn preflight() -> Result<()> {
    attach().context(
        "this machine cannot run the tests that attach probes: they need root (or CAP_BPF, CAP_PERFMON and \
         CAP_SYS_PTRACE) and a kernel with BPF, uprobes and BTF; `cargo xtask test --unit` runs those that do not",
    )
}

fn attach() -> Result<()> {
    let btf = "/sys/kernel/btf/vmlinux";
    if !Path::new(btf).exists() {
        bail!("this kernel has no BTF (no {btf})");
    }
    let own = std::process::id();
    let libc = site::mapped_library(own, "libc.so")?;
    let malloc = site::good(&libc.path, "malloc")?;
    Probe::attach(&Program::empty(Link::Perf)?, &libc.path, malloc.offset, Leg::Entry, own).map(drop)
}
