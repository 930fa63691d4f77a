//! Where processes and the files of container runtimes are.

use std::{
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

/// The directories that are looked into. Tests put made-up trees in their place.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The directory of processes.
    pub proc: PathBuf,
    /// The root directories in which the files of container runtimes and of the kubelet may be, best first.
    pub host: Vec<PathBuf>,
}

impl Default for Roots {
    /// Those of this machine. Where memtrace runs in a container that shares the host's PID namespace, the host's files
    /// are behind process 1.
    fn default() -> Self {
        Self { proc: "/proc".into(), host: vec!["/".into(), "/proc/1/root".into()] }
    }
}

impl Roots {
    /// The places where a file or directory of the host may be.
    fn places(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let relative = path.trim_start_matches('/').to_owned();
        self.host.iter().map(move |root| root.join(&relative))
    }

    /// The contents of a host's file, if one can be read.
    pub(super) fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.places(path).find_map(|path| fs::read(path).ok())
    }

    /// What is in a host's directory, as far as that can be read.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = self
            .places(path)
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flat_map(|entries| entries.flatten())
            .map(name_of)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The directory of a process.
    pub(super) fn process(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// memtrace's own number in that directory of processes; none where it does not know memtrace.
    pub(super) fn own_pid(&self) -> Option<u32> {
        fs::read_link(self.proc.join("self")).ok()?.to_str()?.parse().ok()
    }

    /// All processes, by number.
    pub(super) fn pids(&self) -> std::io::Result<Vec<u32>> {
        let entries = fs::read_dir(&self.proc)?;
        let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| name_of(entry).parse().ok()).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Whether these are the processes of the machine itself.
    pub(super) fn is_real(&self) -> bool {
        self.proc == Path::new("/proc")
    }
}

fn name_of(entry: DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}
