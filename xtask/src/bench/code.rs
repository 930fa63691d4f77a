//! The allocator's code in a process: whether it has probes now. A uprobe is a breakpoint written into
//! the process's own copy of a page, so its memory tells, whoever has set the probe and by whatever means.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::patience;
use crate::probe::site::{self, Library};

/// The functions of a pair.
pub(crate) const FUNCTIONS: [&str; 2] = ["malloc", "free"];

/// How much of a function is compared in order to see a probe in it, in bytes from its entry.
const WINDOW: usize = 32;

/// The code of [`FUNCTIONS`] in a process.
pub(crate) struct Code {
    /// The C library that defines them.
    pub(crate) libc: Library,
    memory: File,
    /// Address and original bytes of each.
    unprobed: Vec<(u64, Vec<u8>)>,
}

impl Code {
    /// That of process `pid`.
    ///
    /// # Errors
    /// When its memory cannot be read, or it has no libc that defines [`FUNCTIONS`].
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let libc = site::mapped_library(pid, "libc.so")?;
        let memory = format!("/proc/{pid}/mem");
        let memory = File::open(&memory).with_context(|| format!("cannot open {memory}"))?;
        let file = File::open(&libc.path).with_context(|| format!("cannot open {}", libc.path.display()))?;
        let mut unprobed = Vec::new();
        for function in FUNCTIONS {
            let entry = site::entry(&libc.path, function)?;
            let mut bytes = vec![0; WINDOW];
            file.read_exact_at(&mut bytes, entry.offset)
                .with_context(|| format!("cannot read {}", libc.path.display()))?;
            unprobed.push((libc.bias.wrapping_add(entry.offset), bytes));
        }
        Ok(Self { libc, memory, unprobed })
    }

    /// Those of [`FUNCTIONS`] that have a probe near their entry now.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn probed(&self) -> Result<Vec<&'static str>> {
        let mut probed = Vec::new();
        for (function, (address, original)) in FUNCTIONS.into_iter().zip(&self.unprobed) {
            let mut bytes = vec![0; original.len()];
            self.memory.read_exact_at(&mut bytes, *address).context("cannot read the target's memory")?;
            if bytes != *original {
                probed.push(function);
            }
        }
        Ok(probed)
    }

    /// Fails if probes stay.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn wait_for_no_probe(&self) -> Result<()> {
        if !patience::wait_until(|| Ok(self.probed()?.is_empty()))? {
            anyhow::bail!("probes were left behind on {}", self.probed()?.join(" and "));
        }
        Ok(())
    }
}
