//! A process's executable mappings as the kernel program reads them.

use memtrace_common::unwind::{MAPPING_STEPS, Mapping, NO_TABLE};

use super::tables::{Table, Tables};
use crate::symbolize::{AddressSpace, Region};

/// How many mappings of a process the kernel program can search.
pub(super) const MAX_MAPPINGS: usize = (1 << MAPPING_STEPS) - 1;

/// The mappings in order of address, and how many had to be left out.
pub(super) fn mappings(space: &AddressSpace, tables: &Tables) -> (Vec<Mapping>, u64) {
    let mut mappings = Vec::new();
    // The kernel program compares addresses as signed numbers. What is in their upper half, the vsyscall page of
    // x86_64 alone, is no function's caller.
    for region in space.regions().filter(|region| region.end() < 1 << 63) {
        let table = tables.get(region.module().content());
        let address = table.and_then(|table| Some((table, address(region)?)));
        for mapping in split(region.start(), region.end(), address) {
            push(&mut mappings, mapping);
        }
    }
    let left_out = mappings.len().saturating_sub(MAX_MAPPINGS);
    if left_out > 0 {
        // Programs with so many have a JIT compiler; its code is left out first.
        let mut surplus = left_out;
        mappings.retain(|mapping| {
            let goes = surplus > 0 && mapping.table == NO_TABLE;
            surplus -= usize::from(goes);
            !goes
        });
        mappings.truncate(MAX_MAPPINGS);
    }
    (mappings, left_out as u64)
}

/// The address by which the module's file knows the region's first byte.
fn address(region: &Region) -> Option<u64> {
    let file_offset = region.file_offset_of(region.start());
    region.module().address_of_mapping(file_offset, region.end() - region.start())
}

/// The mapping from `start` to `end`, where there may be a table that knows the first byte by an address. What
/// is beyond the table's end has none: the kernel program does not know that end.
fn split(start: u64, end: u64, table: Option<(&Table, u64)>) -> impl Iterator<Item = Mapping> {
    let with = table.map(|(table, address)| {
        let bias = start.wrapping_sub(address).wrapping_add(table.base);
        // Below `base`, the offset is so large that the kernel program finds nothing.
        let covered = table.base.saturating_add(table.span).saturating_sub(address);
        let end = start.saturating_add(covered).min(end);
        Mapping { start, end, bias, table: table.place, rules: table.rule_page }
    });
    let covered = with.as_ref().map_or(start, |mapping| mapping.end);
    let without = Mapping { start: covered, end, bias: 0, table: NO_TABLE, rules: 0 };
    with.into_iter().chain([without]).filter(|mapping| mapping.start < mapping.end)
}

/// Adds a mapping; neighbours without table become one.
fn push(mappings: &mut Vec<Mapping>, mapping: Mapping) {
    if mapping.table == NO_TABLE
        && let Some(last) =
            mappings.last_mut().filter(|last| last.table == NO_TABLE && last.end == mapping.start)
    {
        last.end = mapping.end;
    } else {
        mappings.push(mapping);
    }
}
