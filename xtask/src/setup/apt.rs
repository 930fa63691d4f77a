//! Debian packages: which ones, why, and how they get here.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A package and what it is here for.
pub(crate) struct Package {
    name: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// What compiling the kernel program takes. The LLVM version is that of `rustc-web`; it occurs also in
/// `bpf_linker.rs` and `build_ebpf.rs`, through [`LLVM`].
pub(crate) const EBPF: &[Package] = &[
    package(
        "rustc-web",
        "a compiler for which Debian has a prebuilt `core` for BPF; it becomes /usr/bin/rustc",
    ),
    package("libstd-rust-web-dev-bpf", "that prebuilt `core`"),
    package("llvm-22", "llvm-objcopy, which writes the digest into the object"),
    package("llvm-22-dev", "what bpf-linker links with"),
    package("libpolly-22-dev", "llvm-config names this library, so the linker asks for it"),
    package("g++", "links bpf-linker, and the build scripts of the kernel program's crates"),
    package("libc6-dev", "headers and start files for that"),
];

/// What the tests take.
pub(crate) const TESTS: &[Package] = &[
    package("gcc", "compiles the C programs that are profiled"),
    package("g++", "compiles the C++ programs that are profiled"),
    package("libc6-dev", "their headers, and libc.a for the statically linked one"),
    package("binutils", "strip, objcopy and readelf for fixtures; `pprof -list` calls addr2line and objdump"),
    package("graphviz", "`pprof -svg` calls dot"),
    package("xz-utils", "compresses debug information as distributions do"),
    package("redis-server", "a real server to attach to"),
    package("redis-tools", "redis-benchmark, its load"),
    package("postgresql", "a real server with a process for each connection, and pgbench, its load"),
    package("nginx", "a real server that makes its processes beforehand, and has pools on top of malloc"),
    package("wrk", "its load"),
    package("python3", "a real interpreter to attach to"),
    package("python3-pip", "fetches the Go toolchain"),
    package("bpftool", "says which programs and probes the kernel still has"),
    package("util-linux", "setpriv: the tests of what happens without permission"),
    package("runc", "runs a real container, whose files are not the host's"),
    package("musl-tools", "compiles fixtures with another C library"),
    package("libjemalloc-dev", "an allocator to link and to preload"),
    package("libgoogle-perftools-dev", "tcmalloc, another one"),
    package("libmimalloc-dev", "mimalloc, another one"),
    package("bsdutils", "script: the tests of what happens on a terminal"),
];

/// What `xtask bench` takes.
pub(crate) const BENCH: &[Package] =
    &[package("gcc", "compiles the benchmark's target"), package("libc6-dev", "its headers")];

/// What `xtask kernels` takes. The kernels themselves are not installed but [downloaded](download).
pub(crate) const KERNELS: &[Package] = &[
    package("qemu-system-x86", "emulates the machines"),
    package("busybox-static", "the rest of the system that they run"),
    package("cpio", "packs that system"),
    package("gcc", "compiles the programs that are recorded there"),
    package("libc6-dev", "their headers"),
    package("binutils", "strip"),
];

/// What `xtask unwinding` takes.
pub(crate) const UNWINDING: &[Package] = &[
    package("redis-server", "a program to unwind"),
    package("redis-tools", "redis-benchmark, its load"),
    package("nginx", "a program to unwind"),
    package("wrk", "its load"),
    package("postgresql", "a program to unwind, and pgbench, its load"),
    package("util-linux", "runuser: PostgreSQL does not run as root"),
    package("python3", "a program to unwind"),
    package("sqlite3", "a program to unwind"),
    package("g++", "its compiler proper, cc1plus, is a program to unwind"),
    package("libc6-dev", "headers that it compiles"),
    package("git", "a program to unwind"),
];

/// Where the LLVM of [`EBPF`] is.
pub(crate) const LLVM: &str = "/usr/lib/llvm-22";

/// Installs those of `packages` that are not installed. Services that come with them are not started.
///
/// # Errors
/// When a package is missing and this is not Debian, or not root, or `apt-get` fails.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !process::is_root() {
        bail!("Debian packages are missing; as root: apt-get install {}", names.join(" "));
    }
    for package in missing {
        println!("installing {} ({})", package.name, package.why);
    }
    let _quiet = NoServices::new()?;
    if !has_lists() {
        apt_get(&["update"])?;
    }
    let install: Vec<_> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(names).collect();
    if apt_get(&install).is_ok() {
        return Ok(());
    }
    // Old lists name versions that the mirror no longer has.
    apt_get(&["update"])?;
    apt_get(&install)
}

/// Downloads a package into `directory`, and returns the file.
///
/// # Errors
/// When there is none of this name, or it cannot be fetched.
pub(crate) fn download(name: &str, directory: &Path) -> Result<PathBuf> {
    let mut apt = Command::new("apt-get");
    process::output(apt.args(["-qq", "download", name]).current_dir(directory))?;
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get has not downloaded {name}"))
}

fn missing(packages: &[Package]) -> Result<Vec<&Package>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
    query.args(packages.iter().map(|package| package.name));
    // Its exit status is 1 as soon as one package is unknown, which is no error here.
    let known = query.output().context("cannot start `dpkg-query`: this takes Debian 12 or later")?;
    Ok(not_in(packages, &String::from_utf8_lossy(&known.stdout)))
}

/// Those of `packages` for which `listing` has no line `installed <name>`.
fn not_in<'a>(packages: &'a [Package], listing: &str) -> Vec<&'a Package> {
    let installed =
        |package: &&Package| listing.lines().any(|line| line == format!("installed {}", package.name));
    packages.iter().filter(|package| !installed(package)).collect()
}

fn has_lists() -> bool {
    let Ok(lists) = fs::read_dir("/var/lib/apt/lists") else { return false };
    lists.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    // Quiet, and patient with whoever else installs something just now.
    apt.args(["-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    process::output(apt.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// While it lives, package scripts start no service: they ask this program, and 101 means that they
/// must not (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
struct NoServices {
    ours: bool,
}

impl NoServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<Self> {
        use std::io::Write;
        if Path::new(Self::POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut options = fs::OpenOptions::new();
        let created = options.write(true).create_new(true).mode(0o755).open(Self::POLICY);
        created
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"))
            .with_context(|| format!("cannot write {}", Self::POLICY))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(Self::POLICY).is_err() {
            eprintln!("xtask: could not remove {}; services will not be started until you do", Self::POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_or_removed_is_missing() {
        let packages = [package("here", ""), package("removed", ""), package("unknown", "")];
        let missing = not_in(&packages, "installed here\nconfig-files removed\ninstalled here-too\n");
        assert_eq!(missing.iter().map(|package| package.name).collect::<Vec<_>>(), ["removed", "unknown"]);
    }
}
