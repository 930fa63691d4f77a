//! The probes of one process.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::CString,
    io,
    num::NonZeroU32,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
};

use aya::programs::{
    ProgramError,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
};
use thiserror::Error;

use super::{
    Plan,
    links::{self, Link},
};
use crate::{
    allocator::Discovered,
    kernel::{Kernel, Leg, LoadError, Places, sys::Uprobe},
    symbolize::{Module, ModuleId},
};

/// A probe could not be set.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The ELF file cannot be reached.
    #[error(
        "cannot open {path} of the process, neither by /proc/PID/map_files nor by its path: run memtrace as \
         root, with CAP_SYS_ADMIN",
        path = path.display()
    )]
    File {
        /// Its path in the process.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error(
        "the kernel refused a probe on {function} in {path}; `memtrace doctor` says what it allows",
        path = path.display()
    )]
    Refused {
        /// The function.
        function: String,
        /// The ELF's path in the process.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel refused a set of probes.
    #[error(
        "the kernel refused {count} probes in {path}; try --attach-mode perf, and see `memtrace doctor`",
        path = path.display()
    )]
    MultiRefused {
        /// How many.
        count: usize,
        /// The ELF's path in the process.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel program is not as expected.
    #[error(transparent)]
    Kernel(#[from] LoadError),
}

/// The probes that are set. Dropping them takes them off.
#[derive(Debug, Default)]
pub struct Probes {
    links: Vec<Link>,
    /// By file and offset in it: what is set there stays set when the process executes another program
    /// that maps the same file.
    places: HashSet<(ModuleId, u64)>,
    /// The same for `ret` instructions.
    rets: HashSet<(ModuleId, u64)>,
    /// The files behind those ids. A file that nobody holds gets another id when it is mapped again: after an
    /// exec, libc would have its probes twice.
    modules: BTreeMap<ModuleId, Arc<Module>>,
}

impl Probes {
    /// How many functions have probes.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many links hold them.
    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether no probe is set.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sets probes on those of the functions of process `pid` that have none yet. Returns how many
    /// functions were new.
    ///
    /// # Errors
    /// When the kernel refuses one. Those that were set before it stay.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        pid: u32,
        functions: &[Discovered],
    ) -> Result<usize, AttachError> {
        let plan = Plan::new(functions, &self.places);
        self.set_all(kernel, Leg::Free, pid, &plan.frees)?;
        self.set_all(kernel, Leg::AllocationReturn, pid, &plan.allocations)?;
        self.set_all(kernel, Leg::AllocationEntry, pid, &plan.allocations)?;
        self.set_all(kernel, Leg::ThrowingReturn, pid, &plan.throwing)?;
        self.set_all(kernel, Leg::ThrowingEntry, pid, &plan.throwing)?;
        self.set_all(kernel, Leg::UsdtFreed, pid, &plan.usdt_frees)?;
        self.set_all(kernel, Leg::UsdtAllocated, pid, &plan.usdt_allocations)?;
        plan.all().for_each(|found| self.keep(found));
        Ok(plan.all().count())
    }

    /// Where in its file a function's probes of one leg are to be. Functions may have ends in common; an end has
    /// one probe.
    fn new_offsets(&mut self, leg: Leg, found: &Discovered) -> Vec<u64> {
        if leg != Leg::ThrowingReturn {
            return vec![found.place().1];
        }
        let module = found.place().0;
        found.rets.iter().copied().filter(|offset| self.rets.insert((module, *offset))).collect()
    }

    fn set_all(
        &mut self,
        kernel: &mut Kernel,
        leg: Leg,
        pid: u32,
        functions: &[Discovered],
    ) -> Result<(), AttachError> {
        if kernel.multi().is_some() {
            return self.set_by_file(kernel, leg, pid, functions);
        }
        functions.iter().try_for_each(|found| {
            let mut offsets = self.new_offsets(leg, found).into_iter();
            offsets.try_for_each(|offset| self.set(kernel, leg.perf_program(), pid, found, offset))
        })
    }

    /// One link for all functions of a file.
    fn set_by_file(
        &mut self,
        kernel: &Kernel,
        leg: Leg,
        pid: u32,
        functions: &[Discovered],
    ) -> Result<(), AttachError> {
        let Some(programs) = kernel.multi() else { return Ok(()) };
        let mut by_file: BTreeMap<ModuleId, Vec<&Discovered>> = BTreeMap::new();
        for found in functions {
            by_file.entry(found.place().0).or_default().push(found);
        }
        for functions in by_file.into_values() {
            let path = c_path(&open_path(functions[0])?);
            let (mut offsets, mut cookies, mut semaphores) = (Vec::new(), Vec::new(), Vec::new());
            for found in &functions {
                offsets.extend(self.new_offsets(leg, found));
                cookies.resize(offsets.len(), found.probe.cookie());
                semaphores.resize(offsets.len(), found.semaphore());
            }
            if offsets.is_empty() {
                continue;
            }
            let refused = |source| AttachError::MultiRefused {
                count: offsets.len(),
                path: functions[0].path().to_owned(),
                source,
            };
            let places =
                Places { path: &path, offsets: &offsets, cookies: &cookies, semaphores: &semaphores };
            let link = programs.attach(leg, &places, pid).map_err(refused)?;
            self.links.extend(link.map(Link::Multi));
        }
        Ok(())
    }

    /// Sets a probe for a leg on one function, unless there is one already.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn attach_once(
        &mut self,
        kernel: &mut Kernel,
        leg: Leg,
        pid: u32,
        found: &Discovered,
    ) -> Result<(), AttachError> {
        if !self.places.contains(&found.place()) {
            self.set_all(kernel, leg, pid, std::slice::from_ref(found))?;
            self.keep(found);
        }
        Ok(())
    }

    fn keep(&mut self, found: &Discovered) {
        tracing::info!("attached to {}; {}", found.title(), found.site_text());
        self.places.insert(found.place());
        self.modules.insert(found.place().0, Arc::clone(found.region.module()));
    }

    fn set(
        &mut self,
        kernel: &mut Kernel,
        program: &'static str,
        pid: u32,
        found: &Discovered,
        offset: u64,
    ) -> Result<(), AttachError> {
        let path = open_path(found)?;
        if found.semaphore() != 0 {
            return self.set_with_semaphore(kernel, program, pid, found, &path);
        }
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: Some(found.probe.cookie()),
        };
        // Nobody has process 0; it would mean the calling process.
        let scope = UProbeScope::OneProcess(NonZeroU32::new(pid).unwrap_or(NonZeroU32::MAX));
        let refused = |source| AttachError::Refused {
            function: found.function.name.clone(),
            path: found.path().to_owned(),
            source: Box::new(source),
        };
        let program = kernel.uprobe(program)?;
        let id = program.attach(point, &path, scope).map_err(refused)?;
        self.links.push(Link::Perf(program.take_link(id).map_err(refused)?));
        Ok(())
    }

    /// As [`set`](Self::set), for a probe whose semaphore is to be raised: aya cannot do that.
    fn set_with_semaphore(
        &mut self,
        kernel: &mut Kernel,
        program: &'static str,
        pid: u32,
        found: &Discovered,
        path: &std::path::Path,
    ) -> Result<(), AttachError> {
        let (offset, cookie) = (found.place().1, found.probe.cookie());
        let probe = Uprobe { path: &c_path(path), offset, pid, cookie, semaphore: found.semaphore() };
        let link = kernel.attach_perf(program, &probe)?.map_err(|source| AttachError::MultiRefused {
            count: 1,
            path: found.path().to_owned(),
            source,
        })?;
        self.links.push(Link::WithSemaphore(link));
        Ok(())
    }

    /// Takes all probes off. Waits for it.
    pub fn detach(self) {
        links::close(self.links);
    }

    pub(super) fn into_links(self) -> Vec<Link> {
        self.links
    }
}

fn open_path(found: &Discovered) -> Result<PathBuf, AttachError> {
    found.region.module().open_path().map_err(|_| AttachError::File { path: found.path().to_owned() })
}

/// The path for a system call.
fn c_path(path: &std::path::Path) -> CString {
    // It is /proc/self/fd/N, which has no zero byte.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
