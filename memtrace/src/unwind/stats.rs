//! Numbers about unwind tables, for the summary and for losses.

use std::time::Duration;

use super::compile::CompileError;
use super::load::LeftOut;

/// What became of unwind tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tables in the kernel now.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// How often a table was taken from the cache on disk.
    pub cache_hits: u64,
    /// How often a file's table was compiled.
    pub compiled: u64,
    /// How long it took to get all tables, in total.
    pub time: Duration,
    /// Functions in the tables' files whose call frame information is malformed.
    pub functions_malformed: u64,
    /// Rows that need more than the kernel program understands.
    pub rows_unsupported: u64,
    /// Modules without table, by reason.
    pub left_out: LeftOutCounts,
    /// Executable mappings that do not fit into the kernel program's list: stacks end in them.
    pub mappings_left_out: u64,
}

/// Modules without table: distinct ones, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOutCounts {
    /// The memory for tables was used up, or the kernel took no more: `unwind_tables_left_out`.
    pub no_room: u64,
    /// The table would be larger than the format allows.
    pub too_large: u64,
    /// The file could not be read.
    pub unreadable: u64,
    /// The file is not valid ELF, or not of an architecture that can be unwound.
    pub malformed: u64,
    /// The file has no call frame information.
    pub no_cfi: u64,
}

impl LeftOutCounts {
    /// Counts a module. Code without a file cannot have a table, so that is nothing that was left out.
    pub(super) fn add(&mut self, reason: &LeftOut) {
        let count = match reason {
            LeftOut::NoFile => return,
            LeftOut::NoRoom | LeftOut::Refused => &mut self.no_room,
            LeftOut::TooLarge(_) => &mut self.too_large,
            LeftOut::Unreadable => &mut self.unreadable,
            LeftOut::Compile(CompileError::NoCfi) => &mut self.no_cfi,
            LeftOut::Compile(_) => &mut self.malformed,
        };
        *count += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { no_room, too_large, unreadable, malformed, no_cfi } = *self;
        no_room + too_large + unreadable + malformed + no_cfi
    }
}
