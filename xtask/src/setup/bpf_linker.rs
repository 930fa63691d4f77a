//! bpf-linker: rustc's linker for the BPF target.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::repo::Repo;
use crate::setup::apt;

/// The version that goes with the LLVM of `apt::EBPF`.
const VERSION: &str = "0.13.0";

/// The path of bpf-linker [`VERSION`]: from an earlier call, from `PATH`, or installed now (a minute).
///
/// # Errors
/// When cargo cannot install it.
pub(crate) fn ensure(repo: &Repo) -> Result<PathBuf> {
    let root = repo.tools().join(format!("bpf-linker-{VERSION}"));
    let own = root.join("bin/bpf-linker");
    let candidates = [Some(own.clone()), process::find_program("bpf-linker")];
    if let Some(found) = candidates.into_iter().flatten().find(|path| is_right_version(path)) {
        return Ok(found);
    }
    println!("installing bpf-linker {VERSION} into {}", repo.relative(&root));
    let mut install = repo.cargo();
    install.args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", VERSION]);
    install.args(["--no-default-features", "--features", "llvm-22", "--root"]).arg(&root);
    // Its own build directory, which cargo removes afterwards.
    install.env_remove("CARGO_TARGET_DIR").env("LLVM_PREFIX", apt::LLVM);
    process::run(&mut install)?;
    Ok(own)
}

fn is_right_version(path: &Path) -> bool {
    let version = process::output(Command::new(path).arg("--version"));
    version.is_ok_and(|text| text.trim() == format!("bpf-linker {VERSION}"))
}
