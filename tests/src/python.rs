//! Python interpreters, and the script that they run.

use std::path::PathBuf;

use crate::stacks::{Frame, Stack};
use crate::tools;

/// The made-up mapping of Python functions.
pub const MAPPING: &str = "[python]";

/// The interpreters to test with: Debian's, and those that `$MEMTRACE_TEST_PYTHONS` names, separated by colons.
/// Not the `python3` of the path, which may be a wrapper.
pub fn interpreters() -> impl Iterator<Item = PathBuf> {
    tools::command("/usr/bin/python3");
    let more = std::env::var_os("MEMTRACE_TEST_PYTHONS").unwrap_or_default();
    let more: Vec<_> = std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()).collect();
    std::iter::once(PathBuf::from("/usr/bin/python3"))
        .chain(more)
        .inspect(|path| println!("{}", path.display()))
}

/// `functions.py`: see its head.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its path.
    pub path: PathBuf,
    text: String,
}

impl Script {
    /// The script.
    pub fn functions() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/functions.py");
        let text = std::fs::read_to_string(&path).expect("the script is readable");
        Self { path, text }
    }

    /// The path as an argument.
    pub fn argument(&self) -> &str {
        self.path.to_str().expect("the path is UTF-8")
    }

    /// The line that is marked `# LINE <name>`, from 1.
    pub fn line(&self, name: &str) -> i64 {
        let marker = format!("# LINE {name}");
        let index = self.text.lines().position(|line| line.ends_with(&marker));
        index.unwrap_or_else(|| panic!("the script marks no line {name}")) as i64 + 1
    }
}

/// The Python frames of a stack, the innermost first.
pub fn python_frames(stack: &Stack) -> Vec<&Frame> {
    stack.frames.iter().filter(|frame| frame.mapping == MAPPING).collect()
}
