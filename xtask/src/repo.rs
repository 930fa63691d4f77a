//! Where things are: the checkout, its target directory, the tools that xtask installs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// A checkout of this repository.
pub(crate) struct Repo {
    /// The checkout's root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the root.
    pub(crate) target: PathBuf,
}

impl Repo {
    /// The checkout that this xtask was built in.
    pub(crate) fn find() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent().context("xtask is not inside of a checkout")?.to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(given) => env::current_dir().context("there is no current directory")?.join(given),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The directory of what xtask installs for itself; `cargo clean` removes it.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The committed BPF object of `arch` (as in `CARGO_CFG_TARGET_ARCH`).
    pub(crate) fn committed_object(&self, arch: &str) -> PathBuf {
        self.root.join("memtrace/bpf").join(format!("memtrace.{arch}.bpf.o"))
    }

    /// `cargo`, in the root, building into [`Repo::target`] whatever the user's configuration says.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// `path` as a reader in the root would write it.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
