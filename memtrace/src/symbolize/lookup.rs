//! From blazesym's answer to lines.

use std::path::PathBuf;

use blazesym::symbolize::source::{Elf, Source as BlazesymSource};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer};

use super::demangle::demangle;
use super::engine::Source;
use super::worker::NamedLine;

/// The place in the source at which a function's code begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The function's first address according to its DWARF.
    function: u64,
    file: String,
    line: u32,
}

/// Asks one source for the lines of each address, `None` where it knows no symbol.
///
/// # Start lines
/// blazesym does not give a function's declared line (`DW_AT_decl_line`). Instead the line of the
/// function's first instruction is taken: that of the name, or with gcc of the opening brace. The first
/// instruction is that of the symbol table, since DWARF's lowest address can be that of a part that the
/// compiler moved away (`.cold`). Of inlined functions the start line is not known.
///
/// # Names
/// They are DWARF's linkage names. gcc gives none to a lambda, which is only `operator()` then; the
/// symbol table knows better.
pub(super) fn lookup(
    symbolizer: &Symbolizer,
    source: &mut Source,
    addresses: &[u64],
) -> blazesym::Result<Vec<Option<Vec<NamedLine>>>> {
    let found = symbolizer.symbolize(&elf(&source.path, source.debug_info), Input::VirtOffset(addresses))?;
    if !source.debug_info {
        return Ok(found.iter().map(|symbol| symbol.as_sym().map(|symbol| lines(symbol, 0))).collect());
    }
    // The symbol tables of the same file. Without one, DWARF's own idea has to do.
    let tables = symbolizer.symbolize(&elf(&source.path, false), Input::VirtOffset(addresses));
    let tables = tables.unwrap_or_else(|_| vec![Symbolized::Unknown(Reason::MissingSyms); addresses.len()]);
    let entries: Vec<_> =
        found.iter().zip(&tables).map(|(found, table)| entry(found.as_sym(), table.as_sym())).collect();
    add_starts(symbolizer, source, &entries)?;
    let found = found.iter().zip(&tables).zip(entries).map(|((symbol, table), entry)| {
        let symbol = symbol.as_sym()?;
        let start = entry.and_then(|entry| source.starts.get(&entry)?.as_ref());
        let file = symbol.code_info.as_deref().map(file_of);
        let start = start.filter(|start| start.function == symbol.addr && Some(&start.file) == file.as_ref());
        let mut lines = lines(symbol, start.map_or(0, |start| start.line));
        let table = table.as_sym().filter(|table| table.addr == symbol.addr);
        if let (Some(outermost), Some(table)) = (lines.last_mut(), table)
            && demangle(&outermost.system_name).is_none()
            && let Some(name) = demangle(&table.name)
        {
            outermost.system_name = table.name.to_string();
            outermost.name = name;
        }
        Some(lines)
    });
    Ok(found.collect())
}

fn elf(path: &PathBuf, debug_info: bool) -> BlazesymSource<'static> {
    let mut elf = Elf::new(path);
    elf.debug_syms = debug_info;
    elf.into()
}

/// The first instruction of the function that DWARF and the symbol table found.
fn entry(found: Option<&Sym<'_>>, table: Option<&Sym<'_>>) -> Option<u64> {
    match table {
        Some(table) if table.name.contains(".cold") => None,
        Some(table) => Some(table.addr),
        None => found.map(|symbol| symbol.addr).filter(|&address| address != 0),
    }
}

/// Looks up the starts at those of `entries` that were not looked up before.
fn add_starts(symbolizer: &Symbolizer, source: &mut Source, entries: &[Option<u64>]) -> blazesym::Result<()> {
    let mut new: Vec<u64> = entries.iter().flatten().copied().collect();
    new.sort_unstable();
    new.dedup();
    new.retain(|entry| !source.starts.contains_key(entry));
    let found = symbolizer.symbolize(&elf(&source.path, true), Input::VirtOffset(&new))?;
    for (entry, symbol) in new.into_iter().zip(&found) {
        let start = symbol.as_sym().and_then(|symbol| {
            let info = symbol.code_info.as_deref()?;
            Some(Start { function: symbol.addr, file: file_of(info), line: info.line? })
        });
        source.starts.insert(entry, start);
    }
    Ok(())
}

/// The lines at one address, innermost inlined function first.
///
/// blazesym lists inlined functions from the outside to the inside and has already moved the places up
/// by one: with each function goes the place that is executing in it, which is that of the next inner
/// call, or for the innermost the place of the address itself (`fill_code_info` in its
/// src/dwarf/resolver.rs).
fn lines(symbol: &Sym<'_>, start_line: u32) -> Vec<NamedLine> {
    let inlined = symbol.inlined.iter().rev();
    let mut lines: Vec<_> =
        inlined.map(|function| line(&function.name, function.code_info.as_ref(), 0)).collect();
    lines.push(line(&symbol.name, symbol.code_info.as_deref(), start_line));
    lines
}

fn line(name: &str, place: Option<&CodeInfo<'_>>, start_line: u32) -> NamedLine {
    // DWARF has functions without a name, and so have sources that were compressed with dwz.
    let name = if name.is_empty() { "[unnamed]" } else { name };
    NamedLine {
        name: demangle(name).unwrap_or_else(|| name.to_owned()),
        system_name: name.to_owned(),
        file: place.map(file_of).unwrap_or_default(),
        line: place.and_then(|place| place.line).unwrap_or(0),
        start_line,
    }
}

fn file_of(place: &CodeInfo<'_>) -> String {
    place.to_path().to_string_lossy().into_owned()
}
