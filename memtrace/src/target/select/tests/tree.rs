//! Made-up machines: a directory that looks like `/proc`, and one that looks like `/`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::super::{Criteria, Found, Roots, SelectError, Selection};

/// A machine on which memtrace is process 1000.
pub(super) struct Machine {
    dir: TempDir,
}

/// A process of it that is being made.
pub(super) struct Made {
    dir: PathBuf,
}

/// memtrace's own id.
pub(super) const OWN: u32 = 1000;

/// When every process was started.
pub(super) const START: u64 = 4242;

/// A container's id.
pub(super) const WEB: &str = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";
/// That of another one.
pub(super) const DB: &str = "4fb123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";
/// A pod's uid.
pub(super) const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

impl Machine {
    pub(super) fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.process(OWN, "memtrace");
        symlink(OWN.to_string(), machine.proc().join("self")).unwrap();
        machine
    }

    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    /// Makes a process that sleeps, in no container, with sockets of no network.
    pub(super) fn process(&self, pid: u32, comm: &str) -> Made {
        let made = Made { dir: self.proc().join(pid.to_string()) };
        fs::create_dir_all(made.dir.join("ns")).unwrap();
        fs::create_dir_all(made.dir.join("fd")).unwrap();
        made.stat(pid, comm, 'S', 0);
        made.file("cmdline", &format!("/usr/bin/{comm}\0--flag\0"))
            .file("cgroup", "0::/init.scope\n")
            .link("exe", &format!("/usr/bin/{comm}"))
            .link("ns/net", "net:[1]")
            .link("ns/pid", "pid:[1]")
    }

    /// Writes a file of the host.
    pub(super) fn host_file(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.path().join("host").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn select(&self, criteria: Criteria) -> Selection {
        let roots = Roots { proc: self.proc(), host: vec![self.dir.path().join("host")] };
        Selection::with_roots(criteria, roots)
    }

    pub(super) fn find(&self, criteria: Criteria) -> Result<Found, SelectError> {
        self.select(criteria).processes()
    }

    /// The ids of those that match, which the selection must also say of each process alone.
    #[track_caller]
    pub(super) fn pids(&self, criteria: Criteria) -> Vec<u32> {
        let selection = self.select(criteria);
        let pids: Vec<u32> = match selection.processes() {
            Ok(found) => found.selected.iter().map(|process| process.pid).collect(),
            Err(SelectError::NothingMatches { .. }) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        for entry in fs::read_dir(self.proc()).unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            assert_eq!(selection.matches(pid).is_some(), pids.contains(&pid), "{pid}");
        }
        pids
    }

    pub(super) fn container(&self, name: &str) -> Vec<u32> {
        self.pids(Criteria { container: Some(name.to_owned()), ..Criteria::default() })
    }

    pub(super) fn pod(&self, pod: &str) -> Vec<u32> {
        self.pids(Criteria { pod: Some(pod.parse().unwrap()), ..Criteria::default() })
    }

    pub(super) fn cgroup(&self, path: &str) -> Vec<u32> {
        self.pids(Criteria { cgroup: Some(path.into()), ..Criteria::default() })
    }
}

impl Made {
    /// `/proc/PID/stat` (proc(5)): fields 3 (state), 9 (flags) and 22 (start) are of interest.
    pub(super) fn stat(&self, pid: u32, comm: &str, state: char, flags: u32) -> &Self {
        let zeros = "0 ".repeat(12);
        let rest = "0 ".repeat(30);
        let text = format!("{pid} ({comm}) {state} 1 {pid} {pid} 0 -1 {flags} {zeros}{START} {rest}\n");
        fs::write(self.dir.join("stat"), text).unwrap();
        self
    }

    /// `/proc/PID/status` of a process that has these ids, in nested PID namespaces.
    pub(super) fn nspid(self, ids: &str) -> Self {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let lines = own.lines().map(|line| match line.starts_with("NSpid:") {
            true => format!("NSpid:\t{ids}\n"),
            false => format!("{line}\n"),
        });
        let text: String = lines.collect();
        self.file("status", &text)
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        let path = self.dir.join(name);
        let _ = fs::remove_file(&path);
        symlink(Path::new(target), path).unwrap();
        self
    }

    /// Puts its directory below that of another process: it is a thread.
    pub(super) fn move_below(self, process: &Self, name: &str) {
        let place = process.dir.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::rename(self.dir, place).unwrap();
    }

    /// In this cgroup, on a machine that has only version 2.
    pub(super) fn unified(self, path: &str) -> Self {
        self.file("cgroup", &format!("0::{path}\n"))
    }

    /// In this cgroup of version 1, beside a hierarchy of version 2 and one of systemd's that the runtime leaves alone.
    pub(super) fn hybrid(self, path: &str) -> Self {
        let text = format!("5:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:/system.slice\n0::/\n");
        self.file("cgroup", &text)
    }
}
