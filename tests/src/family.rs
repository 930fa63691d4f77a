//! The fixture `family`: processes that create others.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::fixture::FAMILY;
use crate::process::Process;
use crate::stacks::{Books, truths};

/// The program under a name that nobody else has, in a directory of its own.
#[derive(Debug)]
pub struct Named {
    dir: TempDir,
    name: String,
}

impl Named {
    /// A name that begins so; at most nine characters, since the kernel cuts names off after fifteen.
    pub fn new(beginning: &str) -> Self {
        Self::of(&FAMILY.path(), beginning)
    }

    /// The same for another program.
    pub fn of(program: &Path, beginning: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The part of the directory's name that is random.
        let random = dir.path().to_string_lossy().chars().rev().take(5).collect::<String>();
        let name = format!("{beginning}-{random}");
        symlink(program, dir.path().join(&name)).expect("a new link");
        Self { dir, name }
    }

    /// The path.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Lets other users run it.
    pub fn open_to_all(&self) {
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), permissions).expect("the directory is ours");
    }

    /// What selects it by its name, and nothing else.
    pub fn selection(&self) -> [String; 2] {
        ["--name".to_owned(), format!("^{}$", self.name)]
    }
}

/// A `family serve`.
#[derive(Debug)]
pub struct Server(pub Process);

impl Server {
    /// Starts `program`; it has some blocks.
    pub fn start(program: &Path) -> Self {
        let mut process = Process::spawn(Command::new(program).arg("serve"));
        process.stdout_line(|line| line == "ready");
        Self(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Makes `count` workers, which wait, and returns their ids.
    pub fn fork(&mut self, count: usize) -> Vec<u32> {
        fork(&mut self.0, count)
    }

    /// Lets `count` workers work, and returns what each says.
    pub fn work(&mut self, count: usize) -> BTreeMap<u32, Books> {
        work(&mut self.0, count)
    }

    /// Lets it work itself, and returns its truth from the beginning.
    pub fn truth(&mut self) -> Books {
        let line = self.0.ask("truth");
        truths(&line).remove(&self.pid()).unwrap_or_else(|| panic!("{line} is not its truth"))
    }

    /// Has all workers end.
    pub fn end(&mut self) {
        assert_eq!(self.0.ask("end"), "ended");
    }
}

/// Has a `family serve` behind `process` make workers, and returns the ids that they have for it.
pub fn fork(process: &mut Process, count: usize) -> Vec<u32> {
    process.tell(&format!("fork {count}"));
    let line = process.stdout_line(|line| line.starts_with("workers "));
    let workers: Vec<_> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(workers.len(), count, "{line}");
    workers
}

/// Lets the `count` workers of a `family serve` behind `process` work.
pub fn work(process: &mut Process, count: usize) -> BTreeMap<u32, Books> {
    process.tell("work");
    let lines: Vec<_> = (0..count).map(|_| process.stdout_line(|line| line.ends_with('}'))).collect();
    let truths = truths(&lines.join("\n"));
    assert_eq!(truths.len(), count, "{lines:#?}");
    truths
}
