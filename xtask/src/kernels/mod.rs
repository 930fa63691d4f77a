//! `cargo xtask kernels`: memtrace on other kernels than this machine's, in virtual machines.
//!
//! Each kernel is one of Debian's, boots with a small system in memory ([`system`]), and records programs that say
//! themselves what they have done; [`check`] compares. Nothing is installed but the emulator.

mod boot;
mod check;
mod image;
mod system;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::Repo;
use crate::setup::apt;

/// Boots other kernels and records small programs there; needs Debian and, the first time, root.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Boot only kernels whose names contain one of these
    kernels: Vec<String>,
}

/// A kernel and what it can do.
struct Kernel {
    /// Its series, as Debian's package names have it.
    series: &'static str,
    /// The attach modes that have to work.
    modes: &'static [&'static str],
}

/// The kernels: Debian 12's own and the one of its backports, which is Debian 13's.
const KERNELS: [Kernel; 2] =
    [Kernel { series: "6.1", modes: &["perf"] }, Kernel { series: "6.12", modes: &["perf", "multi"] }];

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    let wanted = |kernel: &&Kernel| {
        arguments.kernels.is_empty() || arguments.kernels.iter().any(|name| kernel.series.contains(name))
    };
    let kernels: Vec<_> = KERNELS.iter().filter(wanted).collect();
    if kernels.is_empty() {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.series).collect();
        bail!("there is no such kernel; there are {}", known.join(" and "));
    }
    apt::install(apt::KERNELS)?;
    process::run(repo.cargo().args(["build", "--quiet", "--release", "--package", "memtrace"]))?;
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let system = system::make(repo, directory.path())?;
    let mut failed = Vec::new();
    for kernel in kernels {
        let image = image::ensure(repo, kernel.series)?;
        let out = directory.path().join(kernel.series);
        let result =
            boot::boot(&image, &system, kernel.modes, &out).and_then(|()| check::all(&out, kernel.modes));
        match result {
            Ok(done) => println!("{}: passed: {done}", image.display()),
            Err(error) => {
                println!("{}: FAILED: {error:#}", image.display());
                failed.push(kernel.series);
            }
        }
    }
    if !failed.is_empty() {
        bail!("memtrace does not work on Linux {}", failed.join(" and "));
    }
    Ok(())
}
