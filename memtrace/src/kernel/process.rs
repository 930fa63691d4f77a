//! What the kernel program is told of a process.

use std::os::fd::BorrowedFd;

use aya::maps::{HashMap, MapData, MapError};
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

impl Kernel {
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

    /// The map of the watched processes: by id, the bits of [`Watch`].
    ///
    /// # Errors
    /// When the kernel program has none.
    pub(crate) fn watched(&self) -> Result<BorrowedFd<'_>, LoadError> {
        let name = "WATCHED";
        self.ebpf.map(name).and_then(multi::descriptor).ok_or(LoadError::Missing(name))
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
