//! One process's directory in `/proc`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use procfs::{
    ProcError, ProcResult,
    process::{FDTarget, Process as Directory},
};

use super::{
    super::{process::PF_KTHREAD, thread},
    Roots,
};

/// Why something about a process is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// It has ended, or there is no such thing in this kernel.
    Gone,
    /// Not permitted.
    NotPermitted,
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Gone,
        }
    }
}

impl From<ProcError> for Unseen {
    fn from(error: ProcError) -> Self {
        match error {
            ProcError::PermissionDenied(_) => Self::NotPermitted,
            ProcError::Io(error, _) => error.into(),
            _ => Self::Gone,
        }
    }
}

/// A process with user memory that has not ended.
#[derive(Debug)]
pub(super) struct Process {
    /// Its id, as `/proc` has it.
    pub(super) pid: u32,
    /// Its name.
    pub(super) comm: String,
    /// When it was started, in clock ticks after boot: with the id, this says which process it is.
    pub(super) start: u64,
    /// Its directory, or that of another thread where its main thread has ended: what a main thread shows of files
    /// and namespaces goes with it.
    path: PathBuf,
    directory: Directory,
}

impl Process {
    /// Looks at a process; none where it is a kernel thread or a zombie.
    pub(super) fn open(roots: &Roots, pid: u32) -> Result<Option<Self>, Unseen> {
        let mut path = roots.process(pid);
        let mut directory = Directory::new_with_root(path.clone())?;
        let stat = directory.stat()?;
        if stat.flags & PF_KTHREAD != 0 {
            return Ok(None);
        }
        if thread::has_ended(stat.state) {
            let Some(living) = living_thread(&path) else { return Ok(None) };
            path = living;
            directory = Directory::new_with_root(path.clone())?;
        }
        Ok(Some(Self { pid, comm: stat.comm, start: stat.starttime, path, directory }))
    }

    /// The path of its executable, as the kernel shows it.
    pub(super) fn executable(&self) -> Result<PathBuf, Unseen> {
        Ok(self.directory.exe()?)
    }

    /// Its first argument, which it can change.
    pub(super) fn first_argument(&self) -> Result<String, Unseen> {
        let arguments = fs::read(self.path.join("cmdline"))?;
        let first = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(first).into_owned())
    }

    /// Its cgroups: one per hierarchy.
    pub(super) fn cgroups(&self) -> Result<Vec<procfs::ProcessCGroup>, Unseen> {
        Ok(self.directory.cgroups()?.0)
    }

    /// What a namespace of it is called, as in `net:[4026531840]`.
    pub(super) fn namespace(&self, name: &str) -> Result<PathBuf, Unseen> {
        Ok(fs::read_link(self.path.join("ns").join(name))?)
    }

    /// Its ids, from memtrace's PID namespace (or one outside of it, if `/proc` is of that) to its own.
    pub(super) fn ids(&self) -> Result<Vec<i32>, Unseen> {
        Ok(self.directory.status()?.nspid.unwrap_or_default())
    }

    /// The inodes of the sockets that it holds.
    pub(super) fn sockets(&self) -> Result<Vec<u64>, Unseen> {
        let files = self.directory.fd()?;
        let socket = |target| match target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        };
        // A file that is closed meanwhile is none of it.
        Ok(files.flatten().filter_map(|file| socket(file.target)).collect())
    }

    /// Reads something of its network namespace.
    pub(super) fn network<T>(&self, table: impl Fn(&Directory) -> ProcResult<T>) -> Result<T, Unseen> {
        Ok(table(&self.directory)?)
    }
}

/// The id of the process that a thread belongs to: `/proc/TID` is there as well, though it is not listed (proc(5)). The id
/// itself where there is none.
pub(super) fn of_thread(roots: &Roots, id: u32) -> u32 {
    let status = Directory::new_with_root(roots.process(id)).and_then(|thread| thread.status());
    status.map_or(id, |status| status.tgid.unsigned_abs())
}

/// The directory of a thread that has not ended, below that of its process.
fn living_thread(process: &Path) -> Option<PathBuf> {
    let tasks = fs::read_dir(process.join("task")).ok()?;
    tasks.flatten().map(|task| task.path()).find(|task| {
        let stat = Directory::new_with_root(task.clone()).and_then(|thread| thread.stat());
        stat.is_ok_and(|stat| !thread::has_ended(stat.state))
    })
}
