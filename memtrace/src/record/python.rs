//! The Python interpreter of a process under observation.

use std::collections::HashSet;

use crate::{
    collect::PythonStack,
    kernel::{Kernel, LoadError},
    python::Interpreter,
    symbolize::{AddressSpace, ModuleId},
};

/// Whether Python functions are shown in stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PythonMode {
    /// Where the process is a CPython interpreter, or has one in it.
    #[default]
    Auto,
    /// Never: stacks show the interpreter's own functions.
    Off,
}

/// The interpreter, once it was found.
#[derive(Debug)]
pub(super) struct Python {
    mode: PythonMode,
    interpreter: Option<Interpreter>,
    seen: HashSet<ModuleId>,
    unsupported: u64,
}

impl Python {
    pub(super) fn new(mode: PythonMode) -> Self {
        Self { mode, interpreter: None, seen: HashSet::new(), unsupported: 0 }
    }

    pub(super) fn interpreter(&mut self) -> Option<&mut Interpreter> {
        self.interpreter.as_mut()
    }

    /// Reads the code objects of a stack that were not read before.
    pub(super) fn read_code(&mut self, python: &PythonStack) {
        if let Some(interpreter) = &mut self.interpreter {
            interpreter.read_code(&python.frames);
        }
    }

    /// How many interpreters were found whose frames cannot be read.
    pub(super) fn unsupported(&self) -> u64 {
        self.unsupported
    }

    /// Looks for an interpreter in code that was not looked at before, and tells the kernel program of it.
    pub(super) fn look(&mut self, kernel: &mut Kernel, space: &AddressSpace) -> Result<(), LoadError> {
        if self.mode == PythonMode::Off || self.interpreter.is_some() {
            return Ok(());
        }
        match Interpreter::find(space, &mut self.seen) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let (version, path) = (found.version, found.path.display());
                tracing::info!(
                    pid = space.pid(),
                    "found CPython {version} in {path}: Python functions are shown in stacks"
                );
                kernel.set_python(space.pid(), Some(found.runtime))?;
                self.interpreter = Some(found);
            }
            Err(error) => {
                self.unsupported += 1;
                tracing::info!(pid = space.pid(), "{error}");
            }
        }
        Ok(())
    }

    /// The process has executed another program.
    pub(super) fn forget(&mut self, kernel: &mut Kernel, pid: u32) -> Result<(), LoadError> {
        self.seen.clear();
        if self.interpreter.take().is_some() {
            kernel.set_python(pid, None)?;
        }
        Ok(())
    }
}
