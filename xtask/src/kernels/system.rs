//! The system that the virtual machines run: busybox, memtrace, and the programs that it records.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::Repo;

/// The programs that are recorded, and their arguments. They are fixtures of the tests.
const PROGRAMS: [(&str, &str); 2] = [
    ("leak", "run leak_a 1000 100 churn 5000 64 leak_b 300 10000"),
    (
        "frames",
        "plain with_alloca with_array with_alignment raises raises_on_another_stack thread calls_back",
    ),
];

/// How many stacks the second one makes.
pub(super) fn shapes() -> usize {
    PROGRAMS[1].1.split(' ').count()
}

/// Makes it in `directory`: an archive that the kernel unpacks into memory.
///
/// # Errors
/// When a program does not compile, or something that it needs is not there.
pub(super) fn make(repo: &Repo, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    for below in ["bin", "proc", "sys", "dev", "tmp"] {
        let path = root.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    copy(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    copy(&repo.root.join("xtask/kernels/init.sh"), &root.join("init"))?;
    process::run(Command::new("chmod").arg("+x").arg(root.join("init")))?;
    let memtrace = root.join("bin/memtrace");
    // It is large, and has to be unpacked by a slow machine.
    process::run(Command::new("strip").arg("-o").arg(&memtrace).arg(repo.target.join("release/memtrace")))?;
    let mut programs = vec![memtrace];
    for (name, arguments) in PROGRAMS {
        let program = root.join("bin").join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu17", "-O2", "-g", "-pthread", "-o"]).arg(&program);
        process::run(gcc.arg(repo.root.join(format!("tests/fixtures/{name}.c"))))?;
        let file = root.join(format!("{name}.arguments"));
        fs::write(&file, arguments).with_context(|| format!("cannot write {}", file.display()))?;
        programs.push(program);
    }
    for program in programs {
        for library in libraries(&program)? {
            copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
        }
    }
    pack(&root, &directory.join("system.cpio"))
}

/// What the dynamic loader maps for `program`, and the loader itself.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = process::output(Command::new("ldd").arg(program))?;
    let words = listing.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// Copies what `from` is, whatever links lead there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "find . | cpio --quiet --create --format newc"]).current_dir(root);
    let status = shell.stdout(Stdio::from(file)).status().context("cannot start `sh`")?;
    if !status.success() {
        bail!("cannot pack the system for the virtual machines ({status})");
    }
    Ok(archive.to_owned())
}
