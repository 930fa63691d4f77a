use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::LOSSES;
use crate::symbolize::Failure;

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every variant; the `match` fails to compile when there is another one.
fn failures() -> Vec<Failure> {
    use Failure::{
        Absent, Changed, Malformed, NoFile, NoSymbols, Panicked, Stopped, TooManyFiles, Unmapped, Unreadable,
    };
    let all = Failure::OF_FILES.into_iter().chain([Unmapped, NoFile]);
    all.inspect(|failure| match failure {
        Absent | NoSymbols | Unreadable | Malformed | Changed | TooManyFiles | Panicked | Stopped => {}
        Unmapped | NoFile => {}
    })
    .collect()
}

/// The names that are added to losses in this source: the first argument of every `losses.add(`. A call
/// whose name is no literal is one of those that add the names of a table.
fn names_added(text: &str, from_tables: &mut usize) -> Vec<String> {
    let mut names = Vec::new();
    for call in text.split("losses.add(").skip(1) {
        match call.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            Some((name, _)) => names.push(name.to_owned()),
            None => *from_tables += 1,
        }
    }
    names
}

fn names_in_code() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = LOSSES.iter().map(|(_, name, _)| (*name).to_owned()).collect();
    names.extend(failures().into_iter().map(|failure| failure.loss().0.to_owned()));
    let mut from_tables = 0;
    for folder in ["src/record", "src/symbolize"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("the folder is readable").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("the source is readable");
                names.extend(names_added(&text, &mut from_tables));
            }
        }
    }
    assert_eq!(from_tables, 2, "another call adds losses whose names this test does not know");
    names
}

#[test]
fn every_loss_is_documented_and_nothing_else_is() {
    let text = source("../docs/losses.md");
    let documented: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let documented_once: BTreeSet<String> = documented.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(documented.len(), documented_once.len(), "a loss is documented twice");
    let code = names_in_code();
    let missing: Vec<_> = code.difference(&documented_once).collect();
    let stale: Vec<_> = documented_once.difference(&code).collect();
    assert!(missing.is_empty(), "docs/losses.md says nothing of {missing:?}");
    assert!(stale.is_empty(), "docs/losses.md explains {stale:?}, which memtrace does not count");
}

#[test]
fn names_are_found_in_source() {
    let mut from_tables = 0;
    let text = "losses.add(\n \"a_b\", 1); profile.losses.add(\"c\", 2, \"x\"); losses.add(name, 3);";
    assert_eq!(names_added(text, &mut from_tables), ["a_b", "c"]);
    assert_eq!(from_tables, 1);
}
