//! What the kernel program is told of a process.

use std::os::fd::{BorrowedFd, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use memtrace_common::{InternalCallers, WATCH_CHILDREN, WATCH_STOP, Wrappers, python::PythonRuntime};

use super::{Kernel, LoadError, load::tracepoint, multi};

/// Whether there simply was no such key.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// How a process is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// It is stopped (`SIGSTOP`) with each event: only one that memtrace has started, or a descendant of it.
    pub stop: bool,
    /// The processes that it creates are watched as it is. Otherwise they are counted.
    pub children: bool,
}

/// What a memtrace that was killed has left for a moment, for whoever holds descriptors of its tables: processes that are
/// stopped, or are about to be, and nobody who lets them go on.
pub struct Abandoned {
    watched: HashMap<MapData, u32, u32>,
    running: Array<MapData, u64>,
}

impl Abandoned {
    /// From descriptors of [these tables](Kernel::for_guard).
    ///
    /// # Errors
    /// When they are others.
    pub fn new(watched: OwnedFd, running: OwnedFd) -> Result<Self, MapError> {
        Ok(Self {
            watched: Map::HashMap(MapData::from_fd(watched)?).try_into()?,
            running: Map::Array(MapData::from_fd(running)?).try_into()?,
        })
    }

    /// Closes the books, so that the kernel program stops no more processes.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn close_books(&mut self) -> Result<(), MapError> {
        self.running.set(0, 0, 0)
    }

    /// The processes that may be stopped.
    pub fn stopped(&self) -> Vec<u32> {
        let stopped = self.watched.iter().filter_map(Result::ok).filter(|(_, watch)| watch & WATCH_STOP != 0);
        stopped.map(|(pid, _)| pid).collect()
    }
}

impl Kernel {
    /// The tables that [`Abandoned`] is made of.
    ///
    /// # Errors
    /// When the kernel program has no such tables.
    pub fn for_guard(&self) -> Result<(BorrowedFd<'_>, BorrowedFd<'_>), LoadError> {
        let table = |name| multi::descriptor(self.any_map(name)?).ok_or(LoadError::Missing(name));
        Ok((table("WATCHED")?, table("RUNNING")?))
    }

    /// Says which wrappers process `pid` has.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_wrappers(&mut self, pid: u32, wrappers: Wrappers) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, Wrappers> = self.map_mut("WRAPPERS")?;
        Ok(map.insert(pid, wrappers, 0)?)
    }

    /// Says where the Python interpreter of process `pid` keeps its frames, or that it has none.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_python(&mut self, pid: u32, runtime: Option<PythonRuntime>) -> Result<(), LoadError> {
        let Some(runtime) = runtime else { return self.remove::<PythonRuntime>("PYTHON", pid) };
        let mut map: HashMap<&mut MapData, u32, PythonRuntime> = self.map_mut("PYTHON")?;
        Ok(map.insert(pid, runtime, 0)?)
    }

    /// Says where the allocation functions of process `pid` stand.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_internal_callers(&mut self, pid: u32, callers: InternalCallers) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, InternalCallers> = self.map_mut("INTERNAL_CALLERS")?;
        Ok(map.insert(pid, callers, 0)?)
    }

    /// Sends [events](Self::take_events) whenever process `pid` executes a program or its dynamic loader is
    /// at work, and also in `watch`'s cases.
    ///
    /// # Errors
    /// When the kernel refuses a tracepoint or the write.
    pub fn watch(&mut self, pid: u32, watch: Watch) -> Result<(), LoadError> {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(watch.stop, WATCH_STOP) | bit(watch.children, WATCH_CHILDREN);
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        map.insert(pid, bits, 0)?;
        self.tell_of_processes()
    }

    /// Begins to tell of watched processes, and of [newcomers](super::Newcomers).
    ///
    /// # Errors
    /// When the kernel refuses a tracepoint.
    pub fn tell_of_processes(&mut self) -> Result<(), LoadError> {
        while let Some(name) = self.tracepoints.pop() {
            let program = tracepoint(&mut self.ebpf, name)?;
            program.attach().map_err(|source| LoadError::Program { name, source })?;
        }
        Ok(())
    }

    /// Ends what [`watch`](Self::watch) began.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn unwatch(&mut self, pid: u32) -> Result<(), LoadError> {
        self.remove::<u32>("WATCHED", pid)
    }

    /// Forgets what was told of a process that has ended.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn forget_process(&mut self, pid: u32) -> Result<(), LoadError> {
        self.remove::<InternalCallers>("INTERNAL_CALLERS", pid)?;
        self.remove::<Wrappers>("WRAPPERS", pid)?;
        self.set_python(pid, None)
    }

    /// Removes what a map has of a process, if it has anything.
    fn remove<V: aya::Pod>(&mut self, name: &'static str, pid: u32) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, V> = self.map_mut(name)?;
        match map.remove(&pid) {
            Err(error) if !is_missing(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
