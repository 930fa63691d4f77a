//! What a container runs is named by its own files, whatever the host has at the same paths.

use std::path::Path;

use memtrace_tests::container::Bundle;
use memtrace_tests::fixture::{JIT, LEAK, keep};
use memtrace_tests::record::Recorder;
use memtrace_tests::stacks::{Stacks, Values};

/// A directory with a program and its library, and a bundle that has others at the same paths: a container
/// sees the bundle's, and the host its own.
fn two_worlds() -> (tempfile::TempDir, Bundle) {
    let host = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    keep(host.path(), "host", true);
    let contained = keep(other.path(), "container", false);
    let bundle = Bundle::new();
    bundle.add_libraries_of(&contained);
    // ldd has found the library beside the program; in the container it belongs to the shared path.
    for file in ["keep", "libkeep.so"] {
        bundle.add(&other.path().join(file), &host.path().join(file));
    }
    (host, bundle)
}

fn assert_names_of_the_container(stacks: &Stacks, calls: i64) {
    for function in ["container_program", "container_library"] {
        assert_eq!(stacks.of(function), Values::live(calls, 100), "{function}: {stacks:#?}");
        let leaf = &stacks.with_leaf(function).next().unwrap().frames[0];
        assert!(leaf.file.ends_with("keep.c") && leaf.line > 0, "{leaf:?}");
    }
    let functions = stacks.0.iter().flat_map(|stack| &stack.frames).map(|frame| &frame.function);
    assert_eq!(functions.filter(|name| name.starts_with("host_") || *name == "padding").count(), 0);
}

#[test]
fn the_host_has_another_file_at_the_same_path() {
    let (host, bundle) = two_worlds();
    let program = host.path().join("keep");
    let mut container = bundle.run(&[program.to_str().unwrap()]);
    let recording = Recorder::exact().attach(container.pid());
    for _ in 0..3 {
        assert_eq!(container.ask("go"), "done");
    }
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_names_of_the_container(&recorded.stacks(), 3);
    // The paths are those of the container.
    let profile = recorded.pprof();
    assert_eq!(profile.text(profile.mapping_of("keep").filename), program.to_str().unwrap());
    container.finish();
}

#[test]
fn files_of_a_container_that_were_deleted_or_replaced() {
    let (host, bundle) = two_worlds();
    let program = host.path().join("keep");
    let mut container = bundle.run(&[program.to_str().unwrap()]);
    std::fs::remove_file(bundle.on_host(&program)).unwrap();
    // An update: the host's version takes the library's place in the container.
    let library = bundle.on_host(&host.path().join("libkeep.so"));
    std::fs::remove_file(&library).unwrap();
    std::fs::copy(host.path().join("libkeep.so"), &library).unwrap();

    let recording = Recorder::exact().attach(container.pid());
    assert_eq!(container.ask("go"), "done");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_names_of_the_container(&recorded.stacks(), 1);
    container.finish();
}

#[test]
fn a_container_that_has_ended_before_the_names_are_looked_up() {
    let (host, bundle) = two_worlds();
    let mut container = bundle.run(&[host.path().join("keep").to_str().unwrap()]);
    let recording = Recorder::exact().attach(container.pid());
    assert_eq!(container.ask("go"), "done");
    container.finish();
    let recorded = recording.finish().expect_success();
    assert_names_of_the_container(&recorded.stacks(), 1);
}

/// The map has the number that the process has in its own PID namespace, in its own `/tmp`.
#[test]
fn generated_code_in_a_container() {
    let bundle = Bundle::new();
    let program = JIT.path();
    bundle.add_libraries_of(&program);
    bundle.add(&program, Path::new("/jit"));
    let mut container = bundle.run(&["/jit", "early"]);
    assert!(bundle.on_host(Path::new("/tmp/perf-1.map")).is_file(), "the process is number 1 in there");
    let recording = Recorder::exact().attach(container.pid());
    assert_eq!(container.ask("go"), "done");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_eq!(recorded.stacks().of("compiled_function script:2"), Values::live(1, 100));
    container.finish();
}

/// Debug files of the container: in its own `/usr/lib/debug`, not in the host's.
#[test]
fn debug_files_in_the_container() {
    let bundle = Bundle::new();
    let program = LEAK.path();
    bundle.add_libraries_of(&program);
    bundle.add(&program, Path::new("/leak"));
    memtrace_tests::fixture::split(
        &bundle.on_host(Path::new("/leak")),
        &bundle.on_host(Path::new("/usr/lib/debug")),
    );
    let mut container = bundle.run(&["/leak", "serve"]);
    let recording = Recorder::exact().attach(container.pid());
    container.ask("leak_a 2 100");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let stacks = recorded.stacks();
    assert_eq!(stacks.of("leak_a"), Values::live(2, 100));
    let leaf = &stacks.with_leaf("leak_a").next().unwrap().frames[0];
    assert_eq!(leaf.line as u64, LEAK.line("leak_a"));
    container.finish();
}
