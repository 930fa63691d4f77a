//! The executable mappings of one process, now and before.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use procfs::ProcError;
use procfs::process::Process;
use rustix::fs::OFlags;

use super::frame::{Frame, Region};
use super::generated::Generated;
use super::maps::{self, MapLine};
use super::module::Identity;
use super::modules::Modules;
use super::pace::Pace;
use super::root::{Root, regular_file};
use super::vdso;
use crate::target::living_thread;

/// Mappings that are gone are remembered up to this number; the oldest go first.
const MAX_RETIRED: usize = 4096;

/// No process has code below the first page or above 57 bits of address; garbage in a broken stack
/// often does, and is no reason to read the mappings again.
const POSSIBLE: std::ops::Range<u64> = 0x1000..1 << 57;

/// What stands where in a process. It stays usable when the process is gone.
///
/// Mappings are read when the space is opened, by [`refresh`](Self::refresh), and when an address is in
/// none of those that are known. An address is looked up in the latest reading first; mappings that
/// were gone by then are searched after that, the newest first. What this cannot see: a library that
/// took the place of another between two readings. Whoever learns of dlopen, dlclose or exec in the
/// target should call `refresh`.
///
/// The process is held by its directory in `/proc`, so a later process with the same id is never read.
#[derive(Debug)]
pub struct AddressSpace {
    pid: u32,
    /// Until it has ended.
    process: Option<Process>,
    /// By way of which its memory is seen, where its main thread has ended.
    thread: Option<Process>,
    root: Option<Arc<Root>>,
    /// The names of code that has no file; needs the root.
    generated: Option<Arc<Generated>>,
    modules: Arc<Modules>,
    /// In order of address, each with the line that it was made from.
    current: Vec<(MapLine, Arc<Region>)>,
    /// The newest first.
    retired: VecDeque<(MapLine, Arc<Region>)>,
    pace: Pace,
    counts: Counts,
}

/// What happened to an address space since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often the mappings were read.
    pub reads: u64,
    /// How many looked-up addresses were in no known mapping.
    pub unmapped: u64,
    /// How many mappings that were gone had to be forgotten.
    pub forgotten: u64,
}

/// Why a process's mappings cannot be read. Full sentences.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, or it has just exited.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// Another user's process, or `hidepid`.
    #[error("the mappings of process {0} may not be read; run memtrace as root or with CAP_SYS_PTRACE")]
    Permission(u32),
    /// A kernel thread, or a process that is about to vanish.
    #[error("process {0} has no memory of its own: it is a kernel thread or has exited")]
    NoMemory(u32),
    /// Anything else.
    #[error("failed to read /proc/{0}/maps: {1}")]
    Maps(u32, ProcError),
}

impl AddressSpace {
    /// Reads the mappings of `pid`. `modules` is shared by all address spaces.
    pub fn open(pid: u32, modules: &Arc<Modules>) -> Result<Self, Error> {
        let id = i32::try_from(pid).map_err(|_| Error::NoProcess(pid))?;
        let process = Process::new(id).map_err(|error| explain(pid, error))?;
        let mut space = Self {
            pid,
            process: Some(process),
            thread: None,
            root: None,
            generated: None,
            modules: Arc::clone(modules),
            current: Vec::new(),
            retired: VecDeque::new(),
            pace: Pace::new(Instant::now()),
            counts: Counts::default(),
        };
        space.refresh()?;
        Ok(space)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The executable mappings of the latest reading, in order of address.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.current.iter().map(|(_, region)| region)
    }

    /// The first mapping of the process's executable.
    pub fn main(&self) -> Option<&Arc<Region>> {
        self.regions().find(|region| region.is_main())
    }

    /// The process's memory, for reading alone (`/proc/PID/mem`, proc(5)).
    pub(crate) fn memory(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        self.living()?.open_relative_flags("mem", flags).map_err(io::Error::other)
    }

    /// The PID namespace by which the process itself counts processes and threads: a file that stands for it
    /// (pid_namespaces(7)).
    pub(crate) fn pid_namespace(&self) -> io::Result<Metadata> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let process = self.process.as_ref().ok_or_else(ended)?;
        process.open_relative_flags("ns/pid", flags).map_err(io::Error::other)?.metadata()
    }

    /// Reads the mappings again. On error those that are known stay as they are.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let lines = self.executable_mappings()?;
        if self.root.is_none() {
            // Without it only the target's own debug files and map_files' substitute are missed.
            let living = self.living();
            self.root = living.and_then(|living| self.modules.roots.of(living)).ok();
            let generated = |root| Generated::of(self.process.as_ref()?, root);
            self.generated = self.root.as_ref().and_then(generated);
        }
        self.counts.reads += 1;
        let known = std::mem::take(&mut self.current).into_iter();
        let mut known: HashMap<u64, _> = known.map(|entry| (entry.0.start, entry)).collect();
        let mut executable = None;
        for line in lines {
            let kept = match known.get(&line.start) {
                Some((old, _)) if *old == line => known.remove(&line.start),
                // Mapped once more, and the file was held open: it cannot be another one.
                _ => self
                    .retired
                    .iter()
                    .position(|(old, _)| *old == line)
                    .and_then(|at| self.retired.remove(at)),
            };
            let region = kept.map_or_else(|| self.region(&line, &mut executable), |(_, region)| region);
            self.current.push((line, region));
        }
        known.into_values().for_each(|gone| self.retired.push_front(gone));
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_back();
            self.counts.forgotten += 1;
        }
        Ok(())
    }

    /// Whether the process has memory: one that is about to end has none for a moment before it has ended.
    pub(crate) fn has_memory(&mut self) -> bool {
        !matches!(self.executable_mappings(), Err(Error::NoProcess(_) | Error::NoMemory(_)))
    }

    /// The process has ended: nothing more can be read of it, so nothing of it is held open.
    pub(crate) fn close(&mut self) {
        (self.process, self.thread) = (None, None);
    }

    /// Where its memory is seen.
    fn living(&self) -> io::Result<&Process> {
        self.thread.as_ref().or(self.process.as_ref()).ok_or_else(ended)
    }

    /// Reads the mappings, by way of another thread if the one that was asked so far has ended.
    fn executable_mappings(&mut self) -> Result<Vec<MapLine>, Error> {
        let living = self.living().map_err(|_| Error::NoProcess(self.pid))?;
        let error = match maps::executable(living) {
            Ok((lines, true)) => return Ok(lines),
            Ok((_, false)) => Error::NoMemory(self.pid),
            Err(error) => explain(self.pid, error),
        };
        if matches!(error, Error::Permission(_)) {
            return Err(error);
        }
        self.thread = self.process.as_ref().and_then(living_thread);
        match self.thread.as_ref().map(maps::executable) {
            Some(Ok((lines, true))) => Ok(lines),
            _ => Err(error),
        }
    }

    /// Finds the mappings of a stack of **return addresses**, the innermost caller first.
    ///
    /// A return address is that of the instruction after the call, which can belong to another line or
    /// even to another function; the frame's address is therefore one less, inside of the call. Stacks
    /// that are taken when the allocation function returns begin at its caller, so this holds for
    /// their first address too. An address that is not a return address goes to
    /// [`locate`](Self::locate).
    ///
    /// Mappings are read again at most once per call.
    pub fn normalize(&mut self, return_addresses: &[u64]) -> Vec<Frame> {
        let mut may_read = true;
        return_addresses.iter().map(|&address| self.find(address.saturating_sub(1), &mut may_read)).collect()
    }

    /// Finds the mapping of one instruction's own address, such as that of a page fault.
    pub fn locate(&mut self, address: u64) -> Frame {
        self.find(address, &mut true)
    }

    fn find(&mut self, address: u64, may_read: &mut bool) -> Frame {
        let mut region = self.in_current(address);
        if region.is_none() && *may_read && POSSIBLE.contains(&address) && self.pace.allows(Instant::now()) {
            *may_read = false;
            // When the process is gone there is nothing new to be seen, and nothing is lost.
            if self.refresh().is_ok() {
                region = self.in_current(address);
            }
        }
        let region = region.or_else(|| self.in_retired(address));
        self.counts.unmapped += u64::from(region.is_none());
        if let Some(region) = &region {
            // Looked up now, so that the name is that of the code which was there when the stack was new.
            region.generated_name(address);
        }
        Frame::Code { address, region }
    }

    fn in_current(&self, address: u64) -> Option<Arc<Region>> {
        let after = self.current.partition_point(|(_, region)| region.start() <= address);
        let (_, region) = self.current.get(after.checked_sub(1)?)?;
        region.contains(address).then(|| Arc::clone(region))
    }

    fn in_retired(&self, address: u64) -> Option<Arc<Region>> {
        self.retired.iter().find(|(_, region)| region.contains(address)).map(|(_, region)| Arc::clone(region))
    }

    /// Makes the region of a line that was not there before. `executable` is found out once per reading.
    fn region(&self, line: &MapLine, executable: &mut Option<Option<Identity>>) -> Arc<Region> {
        let module = if line.is_file() {
            self.modules.file(line.path.as_ref(), self.open_mapped(line), self.root.as_ref())
        } else if line.path == vdso::NAME
            && let Ok(living) = self.living()
            && let Ok(image) = vdso::copy(living, line)
        {
            self.modules.image(vdso::NAME.as_ref(), image)
        } else {
            self.modules.named(&line.path)
        };
        let executable = *executable.get_or_insert_with(|| {
            let exe = self.living().ok()?.open_relative_flags("exe", OFlags::PATH | OFlags::CLOEXEC);
            exe.ok().and_then(|exe| exe.metadata().ok()).map(|metadata| Identity::from(&metadata))
        });
        let is_main = match (executable, module.file()) {
            (Some(exe), Ok(file)) => exe.same_inode(&file.identity()),
            _ => self.living().is_ok_and(|living| living.exe().is_ok_and(|exe| exe == module.path())),
        };
        let generated = self.generated.as_ref().filter(|_| line.is_memory()).cloned();
        Arc::new(Region::new(line, module, is_main, generated))
    }

    /// Opens the very file that is mapped, and where that is not permitted (it needs CAP_SYS_ADMIN or
    /// CAP_CHECKPOINT_RESTORE, proc(5)) the one that now has its path, if it is the same inode.
    fn open_mapped(&self, line: &MapLine) -> io::Result<File> {
        let link = format!("map_files/{:x}-{:x}", line.start, line.end);
        let found = self.living()?.open_relative_flags(link, OFlags::PATH | OFlags::CLOEXEC);
        if let Ok(found) = found {
            return regular_file(&found);
        }
        let root = self.root.as_deref().filter(|_| !line.deleted).ok_or(io::ErrorKind::NotFound)?;
        let file = root.open_file(line.path.as_ref())?;
        if file.metadata()?.ino() == line.inode { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// What the open directory of a process that has exited gives, too (proc(5)).
fn ended() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

fn explain(pid: u32, error: ProcError) -> Error {
    match error {
        ProcError::NotFound(_) => Error::NoProcess(pid),
        ProcError::PermissionDenied(_) => Error::Permission(pid),
        // What the open directory of a process gives that has exited: ESRCH, proc(5).
        ProcError::Io(error, _) if error.raw_os_error() == Some(libc::ESRCH) => Error::NoProcess(pid),
        error => Error::Maps(pid, error),
    }
}
