//! `cargo xtask build-ebpf`: compiles the kernel program and puts the object where memtrace embeds it.
//!
//! Stable Rust has no `core` for BPF, so the compiler is Debian's (see docs/building.md). The flags are
//! in `memtrace-ebpf/.cargo/config.toml`, because they belong to what the digest covers.

mod stack_depth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use crate::process;
use crate::repo::Repo;
use crate::setup::{apt, bpf_linker};
use crate::source_digest;

/// The architectures whose object can be built: the argument types of probes (`pt_regs`) differ, the
/// target does not. A further one is a further row and a further committed object.
const ARCHS: [&str; 1] = ["x86_64"];

/// Debian's compiler, from the package `rustc-web`.
const RUSTC: &str = "/usr/bin/rustc";

/// Compiles memtrace-ebpf into memtrace/bpf/, after installing what that takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build into the target directory only, and fail unless the committed objects are of these sources
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    for arch in ARCHS {
        let committed = repo.committed_object(arch);
        if arguments.check {
            check_committed(repo, arch)?;
            let fresh = build(repo, arch)?;
            compare(repo, &fresh, &committed)?;
        } else {
            let fresh = build(repo, arch)?;
            let parent = committed.parent().context("the object has no directory")?;
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            fs::copy(&fresh, &committed).with_context(|| format!("cannot write {}", committed.display()))?;
            println!("{}: sources {}", repo.relative(&committed), carried_digest(&committed)?);
        }
    }
    Ok(())
}

/// Builds the object of `arch` from the checkout's sources and returns its path, in the target
/// directory. It carries the digest of the sources.
///
/// # Errors
/// When the toolchain cannot be installed, the program does not compile, or it takes too much stack.
pub(crate) fn build(repo: &Repo, arch: &str) -> Result<PathBuf> {
    apt::install(apt::EBPF)?;
    let linker = bpf_linker::ensure(repo)?;
    let digest = source_digest::of_sources(&repo.root)?;

    let target = repo.target.join("ebpf").join(arch);
    let mut cargo = repo.cargo();
    cargo.current_dir(repo.root.join("memtrace-ebpf")).args(["build", "--quiet", "--release", "--locked"]);
    cargo
        .arg("--config")
        .arg(format!("target.bpfel-unknown-none.rustflags={:?}", machine_flags(repo, arch)?));
    // Debian's rustc counts as stable, but its BPF target needs unstable features.
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &target);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker);
    // Each of these would replace the flags or the compiler.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(variable);
    }
    process::run(&mut cargo).context("the kernel program did not compile")?;

    let linked = target.join("bpfel-unknown-none/release/memtrace-ebpf");
    let object = target.join(format!("memtrace.{arch}.bpf.o"));
    check_stack_depth(&linked)?;
    finish(&linked, &digest, &object)?;
    // The sources may have been edited while they were compiled.
    if source_digest::of_sources(&repo.root)? != digest {
        bail!("the sources changed while they were compiled; run it again");
    }
    Ok(object)
}

/// Fails unless the committed object of `arch` is of the checkout's sources.
///
/// # Errors
/// See above; or when either cannot be read.
pub(crate) fn check_committed(repo: &Repo, arch: &str) -> Result<()> {
    let committed = repo.committed_object(arch);
    let (carried, sources) = (carried_digest(&committed)?, source_digest::of_sources(&repo.root)?);
    if carried != sources {
        bail!(
            "{} was built from other sources than those in memtrace-ebpf and memtrace-common (it carries {carried}, \
             they have {sources}); run `cargo xtask build-ebpf` and commit the object",
            repo.relative(&committed)
        );
    }
    Ok(())
}

/// The flags that are this machine's or the architecture's. The prefixes are cut off so that no path of
/// this machine gets into the object. (In the functions' names there is a hash of where the checkout is.)
fn machine_flags(repo: &Repo, arch: &str) -> Result<Vec<String>> {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    Ok(vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("--remap-path-prefix={home}=cargo"),
        format!("--remap-path-prefix={}=.", repo.root.display()),
    ])
}

/// Fails if old kernels would refuse the object at `path` for the stack that it takes.
fn check_stack_depth(path: &Path) -> Result<()> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let chain = stack_depth::deepest_chain(&content)
        .with_context(|| format!("cannot tell how much stack {} takes", path.display()))?;
    if chain.bytes > stack_depth::LIMIT {
        bail!(
            "a chain of calls in the kernel program takes {} bytes of stack, and before Linux 6.8 no more than {} \
             are allowed: {chain}; move values of these functions into map memory, or into functions beside the chain \
             that are not inlined",
            chain.bytes,
            stack_depth::LIMIT
        );
    }
    Ok(())
}

/// Makes the committed form of what the linker made: without DWARF (BTF is what the kernel reads), with
/// the digest.
fn finish(linked: &Path, digest: &str, object: &Path) -> Result<()> {
    let text = object.with_extension("digest");
    fs::write(&text, digest).with_context(|| format!("cannot write {}", text.display()))?;
    let mut objcopy = Command::new(format!("{}/bin/llvm-objcopy", apt::LLVM));
    objcopy.arg("--strip-debug");
    objcopy.arg(format!("--add-section={}={}", source_digest::SECTION, text.display()));
    process::run(objcopy.arg(linked).arg(object))
}

/// The digest in the object at `path`.
fn carried_digest(path: &Path) -> Result<String> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf =
        object::File::parse(&*content).with_context(|| format!("{} is not an ELF file", path.display()))?;
    let section = elf.section_by_name(source_digest::SECTION);
    let section = section.with_context(|| format!("{} carries no digest", path.display()))?;
    let digest = section.data().with_context(|| format!("{} is damaged", path.display()))?;
    Ok(String::from_utf8_lossy(digest).into_owned())
}

/// Says whether a rebuild gives the committed bytes. That it does not is no error: Debian's compiler is
/// updated over time, and cargo's names for crates depend on where the checkout is.
fn compare(repo: &Repo, fresh: &Path, committed: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let same = read(fresh)? == read(committed)?;
    let verdict = if same {
        "the same bytes"
    } else {
        "other bytes (it was built by another compiler, or in another place)"
    };
    println!("{} is of these sources; a fresh build gives {verdict}", repo.relative(committed));
    Ok(())
}
