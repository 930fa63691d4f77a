//! Tests of the digest that xtask and memtrace's build script share.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::source_digest::{INPUTS, of_sources};

/// A checkout in which each input exists, with files of one line.
fn checkout() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "memtrace-ebpf/.cargo/config.toml", "flags");
    write(root.path(), "memtrace-ebpf/Cargo.toml", "manifest");
    write(root.path(), "memtrace-ebpf/Cargo.lock", "lock");
    write(root.path(), "memtrace-ebpf/src/main.rs", "main");
    write(root.path(), "memtrace-ebpf/src/sample/mod.rs", "sample");
    write(root.path(), "memtrace-common/Cargo.toml", "manifest");
    write(root.path(), "memtrace-common/src/lib.rs", "records");
    root
}

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn digest(root: &TempDir) -> String {
    of_sources(root.path()).unwrap()
}

#[test]
fn two_checkouts_of_the_same_sources_have_the_same_digest() {
    // Pinned: a digest that changes with this code makes every committed object stale.
    let pinned = "5af905c6532bdd6bcc99b8e430d568f15972e3204be54dcc09620dc7ce0dcb1d";
    assert_eq!(digest(&checkout()), pinned);
    assert_eq!(digest(&checkout()), pinned);
}

#[test]
fn every_input_counts() {
    let before = digest(&checkout());
    for input in INPUTS {
        let root = checkout();
        let file =
            if root.path().join(input).is_dir() { format!("{input}/new.rs") } else { input.to_owned() };
        write(root.path(), &file, "changed");
        assert_ne!(digest(&root), before, "{input}");
    }
}

#[test]
fn a_renamed_file_changes_the_digest() {
    let root = checkout();
    let before = digest(&root);
    let src = root.path().join("memtrace-ebpf/src");
    fs::rename(src.join("main.rs"), src.join("moved.rs")).unwrap();
    assert_ne!(digest(&root), before);
}

#[test]
fn bytes_that_move_from_one_file_to_the_next_change_the_digest() {
    let (one, two) = (checkout(), checkout());
    write(one.path(), "memtrace-ebpf/src/a.rs", "xy");
    write(one.path(), "memtrace-ebpf/src/b.rs", "z");
    write(two.path(), "memtrace-ebpf/src/a.rs", "x");
    write(two.path(), "memtrace-ebpf/src/b.rs", "yz");
    assert_ne!(digest(&one), digest(&two));
}

#[test]
fn what_is_not_compiled_does_not_count() {
    let root = checkout();
    let before = digest(&root);
    write(root.path(), "memtrace-ebpf/target/release/memtrace-ebpf", "object");
    write(root.path(), "memtrace-ebpf/src/.main.rs.swp", "an editor's");
    write(root.path(), "memtrace-ebpf/src/main.rs~", "an editor's");
    write(root.path(), "memtrace/src/lib.rs", "userspace");
    assert_eq!(digest(&root), before);
}

#[test]
fn a_missing_input_is_an_error_that_names_it() {
    let root = checkout();
    fs::remove_file(root.path().join("memtrace-ebpf/Cargo.lock")).unwrap();
    let error = of_sources(root.path()).unwrap_err().to_string();
    assert!(error.contains("memtrace-ebpf/Cargo.lock"), "{error}");
}
