//! Real containers: an OCI bundle, made from files of this machine and run by runc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{PATIENCE, Process};
use crate::tools;

/// A root directory for a container, and what runc needs beside it.
#[derive(Debug)]
pub struct Bundle {
    dir: TempDir,
}

impl Bundle {
    /// An empty root, but for `/tmp`.
    pub fn new() -> Self {
        let bundle = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        std::fs::create_dir_all(bundle.root().join("tmp")).expect("the bundle is writable");
        bundle
    }

    /// The directory that the container calls `/`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Where `path` of the container is on the host.
    pub fn on_host(&self, path: &Path) -> PathBuf {
        self.root().join(path.strip_prefix("/").expect("a path in a container is absolute"))
    }

    /// Puts a copy of `file` at `path`.
    pub fn add(&self, file: &Path, path: &Path) {
        let place = self.on_host(path);
        std::fs::create_dir_all(place.parent().expect("a file is in a directory"))
            .expect("the bundle is writable");
        std::fs::copy(file, &place).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Puts copies of the libraries that `program` needs where they are on the host, the dynamic loader
    /// among them.
    pub fn add_libraries_of(&self, program: &Path) {
        let output = tools::command("ldd").arg(program).output().expect("ldd runs");
        let text = String::from_utf8(output.stdout).expect("ldd prints UTF-8");
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            self.add(Path::new(library), Path::new(library));
        }
    }

    /// Runs `arguments` in a container of this root; returns when it has printed `ready`.
    pub fn run(&self, arguments: &[&str]) -> Container<'_> {
        let mut container = self.start(arguments, |_| ());
        container.process().stdout_line(|line| line == "ready");
        container
    }

    /// Runs `arguments` in a container of this root, after `change` has been made to runc's specification.
    pub fn start(&self, arguments: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> Container<'_> {
        let dir = self.dir.path();
        let specification = dir.join("config.json");
        let output = tools::command("runc").arg("spec").current_dir(dir).output().expect("runc runs");
        assert!(output.status.success() || specification.is_file(), "{output:?}");
        let text = std::fs::read_to_string(&specification).expect("runc has written its defaults");
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("they are JSON");
        config["process"]["args"] = arguments.into();
        config["process"]["terminal"] = false.into();
        config["root"]["readonly"] = false.into();
        // Raising a limit takes CAP_SYS_RESOURCE, which is missing in some places.
        config["process"].as_object_mut().expect("it is an object").remove("rlimits");
        change(&mut config);
        std::fs::write(&specification, config.to_string()).expect("the bundle is writable");

        let name = self.name();
        let pid_file = dir.join("pid");
        let mut runc = runc(dir);
        runc.arg("run").arg("--pid-file").arg(&pid_file).arg(&name).current_dir(dir);
        let process = Process::spawn(&mut runc);
        let limit = Instant::now() + PATIENCE;
        let pid = loop {
            let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if let Ok(pid) = text.trim().parse() {
                break pid;
            }
            assert!(Instant::now() < limit, "runc does not say which process it has started");
            std::thread::sleep(Duration::from_millis(5));
        };
        Container { process: Some(process), pid, name, bundle: self }
    }

    /// The name of the container that it runs as.
    pub fn name(&self) -> String {
        let dir = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        format!("memtrace-{}", dir.trim_start_matches('.'))
    }

    /// The directory in which runc keeps the state of the container while it runs.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state").join(self.name())
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

/// runc with a state directory of its own.
fn runc(dir: &Path) -> Command {
    let mut runc = tools::command("runc");
    runc.arg("--root").arg(dir.join("state"));
    runc
}

/// A container that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Container<'a> {
    process: Option<Process>,
    pid: u32,
    name: String,
    bundle: &'a Bundle,
}

impl Container<'_> {
    /// The id that its first process has on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// runc, to whose standard streams the first process is connected, and which passes signals on to it.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it has not been stopped")
    }

    /// Writes a line to its first process and returns the line that it answers.
    pub fn ask(&mut self, line: &str) -> String {
        self.process().ask(line)
    }

    /// Closes its input and waits until it has ended.
    pub fn finish(mut self) {
        if let Some(process) = self.process.take() {
            process.finish().expect_success();
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let dir = self.bundle.dir.path();
        let _ = runc(dir).args(["delete", "--force", &self.name]).output();
    }
}
