//! Debug information that is not in the program itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace::symbolize::{Failure, Options};

use crate::fixture::{MARK, Program, WAIT, brief, compile, debug_directories, resolve_mark, run};

fn source() -> String {
    format!(
        "{MARK}\n__attribute__((noinline)) static void hidden(void) {{ MARK(\"hidden\"); }}\n\
         __attribute__((noinline)) void exported(void) {{ MARK(\"exported\"); }}\n\
         int main(void) {{ hidden(); exported(); {WAIT} }}\n"
    )
}

/// A program and its debug information, apart: (program, debug file).
pub(crate) fn split(directory: &Path, flags: &[&str]) -> (PathBuf, PathBuf) {
    let program = compile(directory, "split.c", &source(), "gcc", &[&["-O1", "-g"], flags].concat());
    let debug = directory.join("split.debug");
    run(Command::new("objcopy").args(["--only-keep-debug".as_ref(), program.as_os_str(), debug.as_os_str()]));
    run(Command::new("strip").arg(&program));
    (program, debug)
}

/// A program's build-id in hex.
pub(crate) fn build_id(program: &Path) -> String {
    let output = Command::new("readelf").arg("-n").arg(program).output().unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Moves a debug file to where its build-id says, under `directory`.
fn file_by_build_id(program: &Path, debug: &Path, directory: &Path) {
    let id = build_id(program);
    let place = directory.join(".build-id").join(&id[..2]);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::rename(debug, place.join(format!("{}.debug", &id[2..]))).unwrap();
}

fn assert_found(program: &Program, options: &Options) {
    for mark in ["hidden", "exported"] {
        let lines = resolve_mark(program, mark, options.clone()).unwrap();
        assert_eq!(brief(&lines), [(mark, "split.c", program.marks[mark].1)]);
        assert_ne!(lines[0].start_line, 0);
    }
}

#[test]
fn by_build_id() {
    for compression in ["none", "zlib", "zstd"] {
        let (directory, debug_directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (program, debug) = split(directory.path(), &[]);
        let compress = format!("--compress-debug-sections={compression}");
        run(Command::new("objcopy").arg(compress).arg(&debug));
        file_by_build_id(&program, &debug, debug_directory.path());
        let program = Program::start(&mut Command::new(program));
        assert_eq!(resolve_mark(&program, "hidden", debug_directories(&[])), Err(Failure::NoSymbols));
        assert_found(&program, &debug_directories(&[debug_directory.path()]));
    }
}

#[test]
fn by_build_id_only_if_it_is_the_same() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let debug_directory = tempfile::tempdir().unwrap();
    let (program, _) = split(directory.path(), &[]);
    // The debug file of another program, put where that of this one would be.
    let (_, debug) = split(other.path(), &["-DOTHER=1", "-O2"]);
    file_by_build_id(&program, &debug, debug_directory.path());
    let program = Program::start(&mut Command::new(program));
    let options = debug_directories(&[debug_directory.path()]);
    assert_eq!(resolve_mark(&program, "hidden", options), Err(Failure::NoSymbols));
}

#[test]
fn by_debug_link_beside_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let (program, debug) = split(directory.path(), &["-Wl,--build-id=none"]);
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run(Command::new("objcopy").arg(link).arg(&program));
    let running = Program::start(&mut Command::new(&program));
    assert_found(&running, &debug_directories(&[]));

    std::fs::create_dir(directory.path().join(".debug")).unwrap();
    std::fs::rename(&debug, directory.path().join(".debug/split.debug")).unwrap();
    assert_found(&running, &debug_directories(&[]));

    // One bit more, and the checksum is another one.
    let moved = directory.path().join(".debug/split.debug");
    let mut bytes = std::fs::read(&moved).unwrap();
    bytes.push(1);
    std::fs::write(&moved, bytes).unwrap();
    assert_eq!(resolve_mark(&running, "hidden", debug_directories(&[])), Err(Failure::NoSymbols));
}

#[test]
fn by_debug_link_under_a_debug_directory() {
    let (directory, debug_directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (program, debug) = split(directory.path(), &["-Wl,--build-id=none"]);
    run(Command::new("objcopy").arg(format!("--add-gnu-debuglink={}", debug.display())).arg(&program));
    let below = debug_directory.path().join(directory.path().strip_prefix("/").unwrap());
    std::fs::create_dir_all(&below).unwrap();
    std::fs::rename(&debug, below.join("split.debug")).unwrap();
    let program = Program::start(&mut Command::new(program));
    assert_found(&program, &debug_directories(&[debug_directory.path()]));
}

#[test]
fn in_the_root_of_the_target() {
    // A root of its own, as a container has it, with a debug directory of its own.
    let root = tempfile::tempdir().unwrap();
    let (program, debug) = split(root.path(), &["-static"]);
    file_by_build_id(&program, &debug, &root.path().join("usr/lib/debug"));
    let program = Program::start(Command::new("chroot").arg(root.path()).arg("/split"));
    assert_found(&program, &debug_directories(&[]));
}

#[test]
fn from_the_small_table_that_fedora_leaves_in() {
    // The recipe is that of gdb's manual, "MiniDebugInfo".
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "split.c", &source(), "gcc", &["-O1", "-g", "-rdynamic"]);
    let table = directory.path().join("table");
    let keep = ["--strip-debug", "--remove-section=.comment", "--keep-symbol=hidden"];
    run(Command::new("objcopy").arg("-S").args(keep).args([&program, &table]));
    run(Command::new("xz").arg(&table));
    run(Command::new("strip").arg(&program));
    let section = format!("--add-section=.gnu_debugdata={}.xz", table.display());
    run(Command::new("objcopy").arg(section).arg(&program));
    let program = Program::start(&mut Command::new(program));
    for mark in ["hidden", "exported"] {
        let lines = resolve_mark(&program, mark, debug_directories(&[])).unwrap();
        assert_eq!(brief(&lines), [(mark, "", 0)]);
    }
}
