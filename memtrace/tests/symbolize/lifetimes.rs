//! Programs, files and libraries that come and go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use memtrace::symbolize::{AddressSpace, Error, Failure, Frame, Modules, Options, Symbolizer};

use crate::fixture::{MARK, Program, WAIT, brief, compile, resolve, resolve_mark, run};

fn simple(name: &str) -> String {
    format!(
        "{MARK}\n__attribute__((noinline)) void {name}(void) {{ MARK(\"here\"); }}\n\
         int main(void) {{ {name}(); {WAIT} }}\n"
    )
}

fn build(directory: &Path, function: &str) -> PathBuf {
    compile(directory, "simple.c", &simple(function), "gcc", &["-O1", "-g"])
}

#[test]
fn a_program_that_was_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "deleted");
    let program = Program::start(&mut Command::new(&path));
    std::fs::remove_file(&path).unwrap();
    let lines = resolve_mark(&program, "here", Options::default()).unwrap();
    assert_eq!(brief(&lines), [("deleted", "simple.c", program.marks["here"].1)]);
    let space = program.space();
    assert_eq!(space.main().unwrap().to_mapping().path, path.to_str().unwrap());
}

#[test]
fn a_program_that_was_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "before");
    let program = Program::start(&mut Command::new(&path));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(build(directory.path(), "after"), path);
    let lines = resolve_mark(&program, "here", Options::default()).unwrap();
    assert_eq!(lines[0].name, "before");
}

#[test]
fn a_program_that_has_exited() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "gone");
    let mut program = Program::start(&mut Command::new(&path));
    let mut space = program.space();
    program.stop();
    std::fs::remove_file(&path).unwrap();
    // Neither an address that is known nor one that is not makes a difference.
    let frames = space.normalize(&[program.address("here"), 0x1234_5678]);
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(brief(&resolve(&symbolizer, &frames[0]).unwrap())[0].0, "gone");
    assert!(frames[1].place().is_none());
    assert_eq!(space.counts().unmapped, 1);
    assert!(matches!(space.refresh(), Err(Error::NoProcess(_) | Error::NoMemory(_))));
    assert!(matches!(AddressSpace::open(program.pid(), &Modules::new()), Err(Error::NoProcess(_))));
}

#[test]
fn a_kernel_thread_has_nothing_to_read() {
    let error = AddressSpace::open(2, &Modules::new()).unwrap_err();
    assert!(matches!(error, Error::NoMemory(2)), "{error}");
}

/// A program that loads and unloads libraries as it is told.
fn loader(directory: &Path) -> Program {
    let source = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    char line[4096];
    void *library = 0;
    puts("ready 0 0"); fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "unload") == 0) { dlclose(library); }
        else {
            library = dlopen(line, RTLD_NOW);
            if (!library) { puts(dlerror()); return 1; }
            ((void (*)(void))dlsym(library, "enter"))();
        }
        puts("ready 0 0"); fflush(stdout);
    }
    return 0;
}
"#;
    let path = compile(directory, "loader.c", source, "gcc", &["-O1", "-ldl"]);
    Program::start(&mut Command::new(path))
}

fn library(directory: &Path, file: &str, function: &str) -> PathBuf {
    let source = format!(
        "{MARK}\n__attribute__((noinline)) void {function}(void) {{ MARK(\"{function}\"); }}\n\
         void enter(void) {{ {function}(); __asm__ volatile(\"\"); }}\n"
    );
    compile(directory, file, &source, "gcc", &["-O1", "-g", "-shared", "-fPIC"])
}

#[test]
fn a_library_that_is_loaded_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = loader(directory.path());
    let mut space = program.space();
    program.tell(library(directory.path(), "late.c", "late").to_str().unwrap());
    assert_eq!(space.counts().reads, 1);
    let frames = space.normalize(&[program.address("late"), program.address("late")]);
    assert_eq!(space.counts().reads, 2);
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(resolve(&symbolizer, &frames[0]).unwrap()[0].name, "late");
}

#[test]
fn a_library_that_was_unloaded_and_one_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = loader(directory.path());
    program.tell(library(directory.path(), "first.c", "first").to_str().unwrap());
    let mut space = program.space();
    program.tell("unload");
    space.refresh().unwrap();
    // It is gone from the process and still known.
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    let before = space.normalize(&[program.address("first")]);
    assert_eq!(resolve(&symbolizer, &before[0]).unwrap()[0].name, "first");

    program.tell(library(directory.path(), "other.c", "other").to_str().unwrap());
    space.refresh().unwrap();
    let after = space.normalize(&[program.address("other")]);
    assert_eq!(resolve(&symbolizer, &after[0]).unwrap()[0].name, "other");
    // The same place in the process, so the newest is meant from now on; the old frame stays the old.
    assert_eq!(program.address("first"), program.address("other"), "the loader chose another place");
    let again = space.normalize(&[program.address("first")]);
    assert_eq!(resolve(&symbolizer, &again[0]).unwrap()[0].name, "other");
    assert_eq!(resolve(&symbolizer, &before[0]).unwrap()[0].name, "first");
}

#[test]
fn a_library_that_was_replaced_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = loader(directory.path());
    let path = library(directory.path(), "plugin.c", "old_name");
    program.tell(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    library(directory.path(), "plugin.c", "new_name");
    let lines = resolve_mark(&program, "old_name", Options::default()).unwrap();
    assert_eq!(lines[0].name, "old_name");
}

#[test]
fn a_library_that_was_written_over_has_no_names_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = loader(directory.path());
    let path = library(directory.path(), "plugin.c", "old_name");
    program.tell(path.to_str().unwrap());
    let frames = program.space().normalize(&[program.address("old_name")]);
    // The same inode with other bytes: what cp does, and what makes a reader of the mapping die.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(resolve(&symbolizer, &frames[0]), Err(Failure::Changed));
}

#[test]
fn garbage_does_not_read_the_mappings_over_and_over() {
    let mut space = AddressSpace::open(std::process::id(), &Modules::new()).unwrap();
    let started = std::time::Instant::now();
    for address in 0..10_000u64 {
        space.normalize(&[0x10_0000 + address * 4096, 7, u64::MAX]);
    }
    let intervals = started.elapsed().as_millis() / 50;
    let reads = u128::from(space.counts().reads);
    assert!((2..=9 + intervals).contains(&reads), "{reads} readings in {intervals} intervals");
    assert_eq!(space.counts().unmapped, 30_000);
}

#[test]
fn a_file_is_held_once_however_many_processes_map_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "shared");
    let modules = Modules::with_max_open(256);
    let programs: Vec<_> = (0..5).map(|_| Program::start(&mut Command::new(&path))).collect();
    let open = |program: &Program| AddressSpace::open(program.pid(), &modules).unwrap();
    let first = open(&programs[0]);
    let held = modules.open_files();
    assert!(held >= 3, "the program, libc and ld.so, but {held}");
    let others: Vec<_> = programs[1..].iter().map(open).collect();
    assert_eq!(modules.open_files(), held);
    let id = |space: &AddressSpace| space.main().unwrap().module().id();
    assert!(others.iter().all(|space| id(space) == id(&first)));
    drop((first, others));
    assert_eq!(modules.open_files(), 0);
}

#[test]
fn without_privileges_the_path_serves() {
    // An unprivileged process may not use map_files, not even its own.
    let directory = tempfile::tempdir().unwrap();
    run(Command::new("chmod").arg("755").arg(directory.path()));
    let path = build(directory.path(), "plain_user");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&path);
    let program = Program::start(&mut command);
    // The test itself stays root; the unprivileged view is taken in a child that gives root up.
    let probe = std::env::current_exe().unwrap();
    let copy = directory.path().join("probe");
    // By another process: a child that another test forks meanwhile would have the copy open for writing (ETXTBSY).
    run(Command::new("cp").args([&probe, &copy]));
    let mut probe = Command::new("setpriv");
    probe.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    probe.arg(&copy).args(["--ignored", "--exact", "lifetimes::probe_as_another_user"]);
    probe.env("PROBE_PID", program.pid().to_string());
    run(probe.env("PROBE_ADDRESS", program.address("here").to_string()));
}

#[test]
#[ignore = "started by without_privileges_the_path_serves"]
fn probe_as_another_user() {
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let pid = u32::try_from(number("PROBE_PID")).unwrap();
    let mut space = AddressSpace::open(pid, &Modules::new()).unwrap();
    let links = std::fs::read_dir(format!("/proc/{pid}/map_files")).unwrap();
    let link = links.flatten().next().unwrap().path();
    assert!(std::fs::File::open(link).is_err(), "map_files can be used, so this shows nothing");
    let frames = space.normalize(&[number("PROBE_ADDRESS")]);
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(resolve(&symbolizer, &frames[0]).unwrap()[0].name, "plain_user");
    assert!(space.main().is_some());
}

#[test]
fn a_frame_keeps_its_file_and_nothing_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "kept");
    let mut program = Program::start(&mut Command::new(&path));
    let modules = Modules::with_max_open(256);
    let frames = AddressSpace::open(program.pid(), &modules).unwrap().normalize(&[program.address("here")]);
    assert_eq!(modules.open_files(), 1);
    program.stop();
    std::thread::sleep(Duration::from_millis(10));
    let Frame::Code { region: Some(region), .. } = &frames[0] else { panic!("{frames:?}") };
    assert_eq!(Arc::strong_count(region), 1);
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(resolve(&symbolizer, &frames[0]).unwrap()[0].name, "kept");
}

/// How many descriptors of this process lead to `path`.
fn descriptors_of(path: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == path)).count()
}

/// Waits until so many are left.
fn wait_for_descriptors(path: &Path, count: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while descriptors_of(path) != count {
        assert!(std::time::Instant::now() < deadline, "{} descriptors", descriptors_of(path));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_symbolizer_and_one_that_is_dropped_give_back_what_they_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "resting");
    let program = Program::start(&mut Command::new(&path));
    let frames = program.space().normalize(&[program.address("here")]);
    assert_eq!(descriptors_of(&path), 1);
    let options = Options { idle: Duration::from_secs(3), ..Options::default() };
    let symbolizer = Symbolizer::start(options).unwrap();
    for _ in 0..2 {
        assert_eq!(resolve(&symbolizer, &frames[0]).unwrap()[0].name, "resting");
        assert_eq!(descriptors_of(&path), 2);
        wait_for_descriptors(&path, 1);
    }
    resolve(&symbolizer, &frames[0]).unwrap();
    drop((symbolizer, frames));
    wait_for_descriptors(&path, 0);
}

#[test]
fn only_so_many_modules_are_kept_parsed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = [build(one.path(), "one"), build(two.path(), "two")];
    let programs = paths.each_ref().map(|path| Program::start(&mut Command::new(path)));
    let frames =
        programs.each_ref().map(|program| program.space().normalize(&[program.address("here")]).remove(0));
    let by_count = Options { max_cached_modules: 1, ..Options::default() };
    let by_size = Options { max_cached_bytes: 1000, ..Options::default() };
    for options in [by_count, by_size] {
        let symbolizer = Symbolizer::start(options).unwrap();
        for _ in 0..3 {
            for (index, name) in ["one", "two"].into_iter().enumerate() {
                assert_eq!(resolve(&symbolizer, &frames[index]).unwrap()[0].name, name);
                assert_eq!(descriptors_of(&paths[index]), 2);
                assert_eq!(descriptors_of(&paths[1 - index]), 1);
            }
        }
        drop(symbolizer);
        paths.iter().for_each(|path| wait_for_descriptors(path, 1));
    }
}

#[test]
fn a_program_that_becomes_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), "second");
    let script = format!("echo ready 0 0; read go; exec {}", path.display());
    let mut program = Program::start(Command::new("sh").arg("-c").arg(script));
    let mut space = program.space();
    let shell = space.main().unwrap().module().id();
    program.tell("go");
    let frames = space.normalize(&[program.address("here")]);
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    assert_eq!(resolve(&symbolizer, &frames[0]).unwrap()[0].name, "second");
    assert_ne!(space.main().unwrap().module().id(), shell);
    assert_eq!(space.main().unwrap().module().path(), path);
}
