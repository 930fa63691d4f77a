//! Keeping the kernel program's unwind tables and mappings up to date.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use memtrace_common::unwind::MappingsOf;

use super::cache::Cache;
use super::load::Wanted;
use super::mappings;
use super::runs::Runs;
use super::stats::Stats;
use super::tables::Tables;
use crate::kernel::UnwindMaps;
use crate::symbolize::{AddressSpace, ModuleId};

/// How many bytes all tables together may take, unless something else is said.
pub const DEFAULT_LIMIT: u64 = 256 << 20;

/// Loads unwind tables for processes, each file's once, and tells the kernel program what is mapped where.
///
/// A walk that is under way while something changes sees a process's earlier mappings or the later ones, never
/// a mixture: the later ones are written to places that are free, and then the process is switched to them.
#[derive(Debug)]
pub struct Unwinder {
    maps: UnwindMaps,
    tables: Tables,
    runs: Runs,
    processes: HashMap<u32, Process>,
    /// How often a process's mappings were written.
    generation: u32,
}

/// What is loaded for a process.
#[derive(Debug, Default)]
struct Process {
    /// Its mappings' first place, if it has any mappings.
    first: Option<u32>,
    /// The contents of modules whose tables it uses, each once.
    modules: Vec<ModuleId>,
    mappings_left_out: u64,
}

/// The kernel program still has the process's earlier mappings, if it had any. Reads well after "failed to
/// load unwind tables: ".
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Other processes have too many.
    #[error("no room for {0} executable mappings of process {1}")]
    Full(usize, u32),
    /// The kernel did not take them.
    #[error("the kernel refused the mappings of process {0}")]
    Refused(u32, #[source] io::Error),
}

impl Unwinder {
    /// Nothing is loaded yet. All tables together may take `limit` bytes of the kernel's memory.
    pub fn new(maps: UnwindMaps, limit: u64, cache: Option<Cache>) -> Self {
        let tables = Tables::new(maps.max_tables(), limit, cache);
        let runs = Runs::new(maps.max_mappings());
        Self { maps, tables, runs, processes: HashMap::new(), generation: 0 }
    }

    /// Loads what process `pid`, whose address space this is, has mapped now: to be called when a process is
    /// first seen, has executed a program, or has loaded or unloaded libraries.
    ///
    /// # Errors
    /// See [`UpdateError`]. A file without table is no error; [`stats`](Self::stats) says how many there are.
    pub fn update(&mut self, pid: u32, space: &AddressSpace) -> Result<(), UpdateError> {
        let mut seen = HashSet::new();
        let mut wanted = Vec::new();
        for region in space.regions() {
            let module = region.module().content();
            if seen.insert(module) && !self.tables.knows(module) {
                wanted.push(Wanted(Arc::clone(region.module())));
            }
        }
        self.tables.load(wanted, &mut self.maps);
        let updated = self.switch(pid, space, seen);
        self.tables.trim_unused(&mut self.maps);
        updated
    }

    fn switch(&mut self, pid: u32, space: &AddressSpace, seen: HashSet<ModuleId>) -> Result<(), UpdateError> {
        let (mappings, mappings_left_out) = mappings::mappings(space, &self.tables);
        let len = mappings.len() as u32;
        // Only those that have a table now: one that another process gets later is not this one's.
        let modules = seen.into_iter().filter(|module| self.tables.get(*module).is_some()).collect();
        let mut new = Process { first: None, modules, mappings_left_out };
        if !mappings.is_empty() {
            let first = self.runs.take(len).ok_or(UpdateError::Full(mappings.len(), pid))?;
            new.first = Some(first);
            self.generation += 1;
            let of = MappingsOf::new(first, len, self.generation);
            let written = self.maps.write_mappings(first, &mappings);
            let switched = written.and_then(|()| self.maps.set_mappings_of(pid, of));
            if let Err(error) = switched {
                self.runs.give_back(first);
                return Err(UpdateError::Refused(pid, error));
            }
        } else {
            self.maps.remove_mappings_of(pid).map_err(|error| UpdateError::Refused(pid, error))?;
        }
        self.tables.use_by_one_more(&new.modules);
        if let Some(old) = self.processes.insert(pid, new) {
            self.release(&old);
        }
        Ok(())
    }

    /// The process has ended, or is no longer of interest.
    pub fn forget(&mut self, pid: u32) {
        let Some(old) = self.processes.remove(&pid) else { return };
        if let Err(error) = self.maps.remove_mappings_of(pid) {
            tracing::debug!(pid, "failed to remove a process's mappings: {error}");
        }
        self.release(&old);
        self.tables.trim_unused(&mut self.maps);
    }

    fn release(&mut self, process: &Process) {
        if let Some(first) = process.first {
            self.runs.give_back(first);
        }
        self.tables.use_by_one_less(&process.modules);
    }

    #[cfg(test)]
    pub(super) fn maps(&self) -> &UnwindMaps {
        &self.maps
    }

    /// What was loaded and what was left out.
    pub fn stats(&self) -> Stats {
        let mappings_left_out = self.processes.values().map(|process| process.mappings_left_out).sum();
        Stats { mappings_left_out, ..self.tables.stats }
    }
}
