//! What the kernel program is told of a process.

use aya::maps::{HashMap, MapData, MapError};
use memtrace_common::{InternalCallers, WATCH, WATCH_AND_STOP, Wrappers, python::PythonRuntime};

use super::{
    Kernel, LoadError,
    load::{TRACEPOINTS, tracepoint},
};

/// Whether there simply was no such key.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
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
        let mut map: HashMap<&mut MapData, u32, PythonRuntime> = self.map_mut("PYTHON")?;
        match runtime {
            Some(runtime) => map.insert(pid, runtime, 0)?,
            None => match map.remove(&pid) {
                Err(error) if !is_missing(&error) => return Err(error.into()),
                _ => {}
            },
        }
        Ok(())
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
    /// at work, and counts its children. With `stop`, the process is stopped (`SIGSTOP`) each time: only for one that memtrace has
    /// started itself.
    ///
    /// # Errors
    /// When the kernel refuses the tracepoint or the write.
    pub fn watch(&mut self, pid: u32, stop: bool) -> Result<(), LoadError> {
        let watch = if stop { WATCH_AND_STOP } else { WATCH };
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        map.insert(pid, watch, 0)?;
        if !self.watches {
            for (name, _) in TRACEPOINTS {
                tracepoint(&mut self.ebpf, name)?
                    .attach()
                    .map_err(|source| LoadError::Program { name, source })?;
            }
            self.watches = true;
        }
        Ok(())
    }

    /// Ends what [`watch`](Self::watch) began.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn unwatch(&mut self, pid: u32) -> Result<(), LoadError> {
        let mut map: HashMap<&mut MapData, u32, u32> = self.map_mut("WATCHED")?;
        match map.remove(&pid) {
            Err(error) if !is_missing(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
