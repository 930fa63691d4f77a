//! One frame of a stack, and the mapping that its address is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::failure::Failure;
use super::generated::Generated;
use super::maps::MapLine;
use super::module::{Module, ModuleId};
use crate::{profile::Mapping, python::PythonPlace};

/// An executable mapping of one process, as it was when its address space was read.
#[derive(Debug)]
pub struct Region {
    id: u64,
    start: u64,
    end: u64,
    file_offset: u64,
    path: String,
    is_main: bool,
    module: Arc<Module>,
    /// Where the names are, if the region holds code that the process has generated.
    generated: Option<Arc<Generated>>,
}

impl Region {
    pub(super) fn new(
        line: &MapLine,
        module: Arc<Module>,
        is_main: bool,
        generated: Option<Arc<Generated>>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            start: line.start,
            end: line.end,
            file_offset: line.file_offset,
            path: line.path.clone(),
            is_main,
            module,
            generated,
        }
    }

    /// Never the same for two regions of one run of memtrace.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// First address in the target.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last address.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether the region maps the process's executable.
    pub fn is_main(&self) -> bool {
        self.is_main
    }

    /// Whether a file is mapped, and not anonymous memory or one of the kernel's own pages.
    pub fn is_file(&self) -> bool {
        self.path.starts_with('/')
    }

    /// What is mapped.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Whether `address` lies in the region.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The offset in the file of `address`, which must lie in the region.
    pub fn file_offset_of(&self, address: u64) -> u64 {
        self.file_offset.wrapping_add(address.wrapping_sub(self.start))
    }

    /// The address of the byte at `file_offset`, if the region maps it.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let within = file_offset.checked_sub(self.file_offset)?;
        (within < self.end - self.start).then_some(self.start + within)
    }

    /// The name that the process's JIT compiler gives to the code at `address`. What was found once stays.
    pub(super) fn generated_name(&self, address: u64) -> Option<Arc<str>> {
        self.generated.as_ref()?.name(address)
    }

    pub(super) fn generated(&self) -> Option<&Arc<Generated>> {
        self.generated.as_ref()
    }

    /// The region as a profile has it.
    pub fn to_mapping(&self) -> Mapping {
        Mapping {
            start: self.start,
            end: self.end,
            file_offset: self.file_offset,
            path: self.path.clone(),
            build_id: self.module.build_id(),
        }
    }
}

/// One frame of a stack. It keeps alive what its name is found in, not the process.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Code at an address.
    Code {
        /// The address to look up in the target: within the calling instruction, where the frame was
        /// given as a return address.
        address: u64,
        /// The mapping that it was in, or `None` if that is not known.
        region: Option<Arc<Region>>,
    },
    /// A function of the Python interpreter.
    Python(PythonPlace),
    /// No code but a remark, such as `[truncated]`: shown as a function of this name.
    Pseudo(&'static str),
}

impl Frame {
    /// The module and the offset in its file, for a frame of code in a known mapping.
    pub fn place(&self) -> Option<(&Arc<Module>, u64)> {
        match self {
            Self::Code { address, region: Some(region) } => {
                Some((region.module(), region.file_offset_of(*address)))
            }
            _ => None,
        }
    }

    /// The key under which the frame's name is kept, or why it cannot have one.
    pub(super) fn key(&self) -> Result<(ModuleId, u64), Failure> {
        self.place().map(|(module, offset)| (module.id(), offset)).ok_or(Failure::Unmapped)
    }
}
