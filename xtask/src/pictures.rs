//! `cargo xtask pictures`: makes docs/images anew, from recordings of real programs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::Repo;

/// Makes the pictures of the documentation: records ripgrep at work; needs root.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The recorded program, of this version.
const RIPGREP: &str = "14.1.1";

/// A pattern that takes a while, because the program is to be recorded in the middle of its work.
const PATTERN: &str = r"(?i)\w+\s+error";

/// Names without which the picture does not show a search at work: what it reads into, and the regex engine's cache.
const SHOWN: &[&str] = &["line_buffer", "create_cache", "search_path"];

/// In bytes. Whoever clones the repository downloads the picture, and each of its former versions.
const LARGEST: u64 = 300 << 10;

/// Runs the command.
pub(crate) fn run(repo: &Repo, _: &Arguments) -> Result<()> {
    process::run(repo.cargo().args(["build", "--quiet", "--release", "--package", "memtrace"]))?;
    let ripgrep = ensure_ripgrep(repo)?;
    let picture = repo.root.join("docs/images/flamegraph.svg");
    let parent = picture.parent().context("the picture has no directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;

    let mut record = Command::new(repo.target.join("release/memtrace"));
    record.args(["record", "--sample-interval", "4KiB", "--duration", "2", "--output"]).arg(&picture);
    record.arg("--").arg(ripgrep).args(["--threads=1", "--sort=path", "--count", PATTERN]);
    // Sources that every machine has on which this was compiled; often enough to be recorded in the middle.
    record.args(vec![cargo_home()?.join("registry/src"); 8]);
    process::run(record.stdout(Stdio::null()))?;

    let svg = fs::read_to_string(&picture).with_context(|| format!("cannot read {}", picture.display()))?;
    if let Some(missing) = SHOWN.iter().find(|name| !svg.contains(**name)) {
        bail!("{} does not show {missing}: was the search over too soon?", repo.relative(&picture));
    }
    if svg.len() as u64 > LARGEST {
        bail!("{} has {} bytes; {LARGEST} are the most", repo.relative(&picture), svg.len());
    }
    println!("{}: {} bytes; look at it before you commit it", repo.relative(&picture), svg.len());
    Ok(())
}

/// The path of a ripgrep that has line numbers: from an earlier call, or installed now (a minute or two).
fn ensure_ripgrep(repo: &Repo) -> Result<PathBuf> {
    let root = repo.tools().join(format!("ripgrep-{RIPGREP}"));
    let program = root.join("bin/rg");
    if program.is_file() {
        return Ok(program);
    }
    println!("installing ripgrep {RIPGREP} into {}", repo.relative(&root));
    let mut install = repo.cargo();
    install.args(["install", "--quiet", "--locked", "ripgrep", "--version", RIPGREP, "--root"]).arg(&root);
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
    // Its own build directory, which cargo removes afterwards.
    install.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    process::run(&mut install)?;
    Ok(program)
}

/// Where cargo keeps what it downloads.
fn cargo_home() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.context("neither CARGO_HOME nor HOME is set")
}
