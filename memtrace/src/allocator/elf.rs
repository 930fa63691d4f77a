//! The functions that an ELF file defines, and where their code stands in the file.

use std::{fs::File, io};

use object::{Object, ObjectSegment, ObjectSymbol, ReadCache, ReadRef, SymbolKind};
use thiserror::Error;

use super::straight_line::{self, Jump};

/// An ELF file could not be read.
#[derive(Debug, Error)]
pub enum ElfError {
    /// Not readable.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// Not an ELF file, or a broken one.
    #[error("it is not a valid ELF file")]
    Parse(#[from] object::Error),
    /// Code of another kind than memtrace reads the arguments of.
    #[error(
        "it is a 32-bit ELF file, whose functions take their arguments in a way that memtrace does not read"
    )]
    ThirtyTwoBit,
}

/// A function that an ELF file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSymbol {
    /// The name in the symbol table.
    pub name: String,
    /// Its virtual address in the file.
    pub address: u64,
    /// Its size in bytes; 0 where the symbol table does not say.
    pub size: u64,
    /// Where its first instruction stands in the file.
    pub file_offset: u64,
}

/// The functions of one ELF file.
#[derive(Debug)]
pub struct ElfSymbols {
    /// Those that were asked for.
    pub functions: Vec<FunctionSymbol>,
    /// The code of each, in the same order; of a long one the beginning.
    pub code: Vec<Vec<u8>>,
    /// Where each jumps to, in the same order, if it does nothing else.
    pub jumps: Vec<Option<Jump>>,
}

/// How many bytes of a function are kept at the most: allocator functions that are longer have their slow
/// paths at the end.
const CODE: u64 = 4096;

/// How many bytes are kept of a function whose size the symbol table does not say.
const CODE_OF_UNKNOWN_SIZE: u64 = 64;

/// The size in bytes of a stub of the procedure linkage table, which jumps to another file's function.
const STUB: u64 = 16;

impl ElfSymbols {
    /// Reads the global functions for which `wanted` says so, from the dynamic and the full symbol table.
    ///
    /// # Errors
    /// When the file cannot be read or is not ELF.
    pub fn read(file: File, wanted: impl Fn(&str) -> bool) -> Result<Self, ElfError> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache)?;
        if !elf.is_64() {
            return Err(ElfError::ThirtyTwoBit);
        }
        let mut found = Self { functions: Vec::new(), code: Vec::new(), jumps: Vec::new() };
        for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
            // An undefined symbol can have an address (that of its PLT entry), but is no definition.
            if symbol.is_undefined() || symbol.kind() != SymbolKind::Text || !symbol.is_global() {
                continue;
            }
            let Ok(name) = symbol.name() else { continue };
            // The full table of some linkers carries versions: `malloc@@GLIBC_2.2.5`.
            let name = name.split('@').next().unwrap_or(name);
            if !wanted(name) {
                continue;
            }
            let address = symbol.address();
            let Some((file_offset, available)) = file_position(&elf, address) else { continue };
            if found.functions.iter().any(|known| known.name == name && known.address == address) {
                continue;
            }
            let size = if symbol.size() == 0 { CODE_OF_UNKNOWN_SIZE } else { symbol.size().min(CODE) };
            let code = (&cache).read_bytes_at(file_offset, available.min(size)).unwrap_or_default();
            let through_stub = |target| {
                let Some((file_offset, available)) = file_position(&elf, target) else {
                    return Jump::ByPointer;
                };
                let code = (&cache).read_bytes_at(file_offset, available.min(STUB)).unwrap_or_default();
                match straight_line::only_jumps(code, target) {
                    Some(Jump::ByPointer) => Jump::ByPointer,
                    _ => Jump::To(target),
                }
            };
            found.jumps.push(straight_line::only_jumps(code, address).map(|jump| match jump {
                Jump::To(target) => through_stub(target),
                Jump::ByPointer => Jump::ByPointer,
            }));
            found.code.push(code.to_vec());
            found.functions.push(FunctionSymbol {
                name: name.to_owned(),
                address,
                size: symbol.size(),
                file_offset,
            });
        }
        Ok(found)
    }
}

/// Where a virtual address stands in the file, and how many bytes of its segment follow.
fn file_position<'data>(elf: &impl Object<'data>, address: u64) -> Option<(u64, u64)> {
    elf.segments().find_map(|segment| {
        let within = address.checked_sub(segment.address())?;
        let (offset, size) = segment.file_range();
        (within < size).then(|| (offset + within, size - within))
    })
}
