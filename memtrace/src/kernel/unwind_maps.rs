//! The maps that the kernel program walks stacks by.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{Map, MapError};
use memtrace_common::unwind::{Mapping, MappingsOf, Page};

use super::{Kernel, LoadError, sys_maps};

/// The maps `UNWIND_TABLES`, `MAPPINGS` and `MAPPINGS_OF`; what is in them is described at
/// [`memtrace_common::unwind`].
#[derive(Debug)]
pub struct UnwindMaps {
    tables: OwnedFd,
    max_tables: u32,
    mappings: OwnedFd,
    max_mappings: u32,
    mappings_of: OwnedFd,
}

impl Kernel {
    /// The maps that stacks are walked by. They stay usable when the kernel program is gone.
    ///
    /// # Errors
    /// When the object has no such maps, which is a bug, or no descriptor can be made.
    pub fn unwind_maps(&self) -> Result<UnwindMaps, LoadError> {
        let map = |name| {
            let (Map::Array(data) | Map::ArrayOfMaps(data) | Map::HashMap(data)) = self.any_map(name)? else {
                return Err(LoadError::Missing(name));
            };
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
            Ok((fd, data.info()?.max_entries()))
        };
        let (tables, max_tables) = map("UNWIND_TABLES")?;
        let (mappings, max_mappings) = map("MAPPINGS")?;
        let (mappings_of, _) = map("MAPPINGS_OF")?;
        Ok(UnwindMaps { tables, max_tables, mappings, max_mappings, mappings_of })
    }
}

impl UnwindMaps {
    /// How many tables there can be.
    pub fn max_tables(&self) -> u32 {
        self.max_tables
    }

    /// How many mappings there can be, of all processes together.
    pub fn max_mappings(&self) -> u32 {
        self.max_mappings
    }

    /// Puts a table in at a place, which is free or is overwritten.
    ///
    /// # Errors
    /// When the kernel refuses it, mostly for lack of memory.
    pub fn put_table(&mut self, place: u32, pages: &[Page]) -> io::Result<()> {
        let entries = u32::try_from(pages.len()).map_err(io::Error::other)?;
        let table = sys_maps::create_inner_array(size_of::<Page>() as u32, entries)?;
        sys_maps::set_all(table.as_fd(), 0, pages)?;
        sys_maps::set(self.tables.as_fd(), &place, &table.as_raw_fd())
    }

    /// Takes a table out. The kernel frees its memory when no program reads it any more.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn remove_table(&mut self, place: u32) -> io::Result<()> {
        sys_maps::delete(self.tables.as_fd(), &place)
    }

    /// Writes mappings to consecutive places.
    ///
    /// # Errors
    /// When the kernel refuses it, mostly because there are not so many places.
    pub fn write_mappings(&mut self, first: u32, mappings: &[Mapping]) -> io::Result<()> {
        sys_maps::set_all(self.mappings.as_fd(), first, mappings)
    }

    /// Says where the mappings of process `pid` are.
    ///
    /// # Errors
    /// When the kernel refuses it, mostly because there are too many processes.
    pub fn set_mappings_of(&mut self, pid: u32, mappings: MappingsOf) -> io::Result<()> {
        sys_maps::set(self.mappings_of.as_fd(), &pid, &mappings)
    }

    /// Says that nothing is known of process `pid`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn remove_mappings_of(&mut self, pid: u32) -> io::Result<()> {
        sys_maps::delete(self.mappings_of.as_fd(), &pid)
    }
}

/// Functions for tests: the same maps without a kernel program, and what is in them.
#[cfg(test)]
impl UnwindMaps {
    /// Maps of these sizes.
    pub(crate) fn create(max_tables: u32, max_mappings: u32) -> io::Result<Self> {
        use super::sys::create_map;
        use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH};
        Ok(Self {
            tables: sys_maps::tests::create_outer_array(size_of::<Page>() as u32, max_tables)?,
            max_tables,
            mappings: create_map(BPF_MAP_TYPE_ARRAY, 4, size_of::<Mapping>() as u32, max_mappings)?,
            max_mappings,
            mappings_of: create_map(BPF_MAP_TYPE_HASH, 4, size_of::<MappingsOf>() as u32, 16)?,
        })
    }

    /// A page of a table.
    pub(crate) fn page(&self, place: u32, page: u32) -> Option<Page> {
        let id: u32 = sys_maps::tests::get(self.tables.as_fd(), &place)?;
        sys_maps::tests::get(sys_maps::tests::by_id(id).ok()?.as_fd(), &page)
    }

    /// Where a process's mappings are.
    pub(crate) fn mappings_of(&self, pid: u32) -> Option<MappingsOf> {
        sys_maps::tests::get(self.mappings_of.as_fd(), &pid)
    }

    /// The mapping at a place.
    pub(crate) fn mapping(&self, place: u32) -> Option<Mapping> {
        sys_maps::tests::get(self.mappings.as_fd(), &place)
    }
}
