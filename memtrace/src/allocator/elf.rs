//! The functions that an ELF file defines, and where their code stands in the file.

use std::{cell::OnceCell, collections::HashMap, fs::File, io, ops::Range};

use gimli::{EhFrame, LittleEndian, UnwindSection};
use object::{
    Object, ObjectSegment, ObjectSymbol, ObjectSymbolTable, ReadCache, ReadRef, RelocationFlags,
    RelocationTarget, SegmentFlags, SymbolKind,
    elf::{PF_X, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT},
};
use thiserror::Error;

use crate::unwind::sections::Cfi;

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

/// How many bytes of a function are looked at, at the most: allocator functions that are longer have their slow
/// paths at the end.
const CODE: u64 = 4096;

/// How many bytes are looked at of a function whose size the symbol table does not say.
const CODE_OF_UNKNOWN_SIZE: u64 = 64;

/// An ELF file. Only what is asked for is read.
pub struct ElfImage<'c> {
    cache: &'c ReadCache<File>,
    elf: object::File<'c, &'c ReadCache<File>>,
    slots: OnceCell<HashMap<u64, String>>,
    definitions: OnceCell<HashMap<String, u64>>,
    ranges: OnceCell<Vec<Range<u64>>>,
}

impl<'c> ElfImage<'c> {
    /// The file behind `cache`.
    ///
    /// # Errors
    /// When the file cannot be read or is not 64-bit ELF.
    pub fn parse(cache: &'c ReadCache<File>) -> Result<Self, ElfError> {
        let elf = object::File::parse(cache)?;
        if !elf.is_64() {
            return Err(ElfError::ThirtyTwoBit);
        }
        let (slots, definitions, ranges) = Default::default();
        Ok(Self { cache, elf, slots, definitions, ranges })
    }

    /// The functions for which `wanted` says so, from the dynamic and the full symbol table.
    pub fn functions(&self, wanted: impl Fn(&str) -> bool) -> Vec<FunctionSymbol> {
        let mut found: Vec<FunctionSymbol> = Vec::new();
        for symbol in self.elf.dynamic_symbols().chain(self.elf.symbols()) {
            // An undefined symbol can have an address (that of its PLT entry), but is no definition.
            if symbol.is_undefined() || symbol.kind() != SymbolKind::Text {
                continue;
            }
            let Ok(name) = symbol.name() else { continue };
            let name = unversioned(name);
            if !wanted(name) {
                continue;
            }
            let address = symbol.address();
            let Some((file_offset, _)) = self.file_position(address) else { continue };
            if found.iter().any(|known| known.name == name && known.address == address) {
                continue;
            }
            found.push(FunctionSymbol { name: name.to_owned(), address, size: symbol.size(), file_offset });
        }
        found
    }

    /// The code of a function; of a long one the beginning.
    pub fn code(&self, function: &FunctionSymbol) -> &'c [u8] {
        let size = if function.size == 0 { CODE_OF_UNKNOWN_SIZE } else { function.size.min(CODE) };
        self.bytes(function.address, size)
    }

    /// At most `size` bytes at a virtual address; fewer, or none, where the file has no more.
    pub fn bytes(&self, address: u64, size: u64) -> &'c [u8] {
        let Some((offset, available)) = self.file_position(address) else { return &[] };
        self.cache.read_bytes_at(offset, available.min(size)).unwrap_or_default()
    }

    /// The file's code: the virtual address and the bytes of each segment that is mapped executable.
    pub fn executable_segments(&self) -> impl Iterator<Item = (u64, &'c [u8])> {
        let is_code = |flags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
        let segments = self.elf.segments().filter(move |segment| is_code(segment.flags()));
        segments.map(|segment| (segment.address(), self.bytes(segment.address(), segment.size())))
    }

    /// The section of this name, if there is one.
    pub fn section(&self, name: &str) -> Option<object::Section<'c, '_, &'c ReadCache<File>>> {
        self.elf.section_by_name(name)
    }

    /// Where a virtual address stands in the file, and how many bytes of its segment follow.
    pub fn file_position(&self, address: u64) -> Option<(u64, u64)> {
        self.elf.segments().find_map(|segment| {
            let within = address.checked_sub(segment.address())?;
            let (offset, size) = segment.file_range();
            (within < size).then(|| (offset + within, size - within))
        })
    }

    /// The symbol whose address the dynamic loader writes to this virtual address, for calls through it.
    pub fn slot(&self, address: u64) -> Option<&str> {
        self.slots.get_or_init(|| self.read_slots()).get(&address).map(String::as_str)
    }

    fn read_slots(&self) -> HashMap<u64, String> {
        let (Some(relocations), Some(symbols)) =
            (self.elf.dynamic_relocations(), self.elf.dynamic_symbol_table())
        else {
            return HashMap::new();
        };
        let calls = relocations.filter(|(_, relocation)| {
            let flags = relocation.flags();
            matches!(flags, RelocationFlags::Elf { r_type: R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT })
        });
        let named = calls.filter_map(|(address, relocation)| {
            let RelocationTarget::Symbol(index) = relocation.target() else { return None };
            let symbol = symbols.symbol_by_index(index).ok()?;
            Some((address, unversioned(symbol.name().ok()?).to_owned()))
        });
        named.collect()
    }

    /// Where the file defines a dynamic symbol.
    pub fn definition(&self, name: &str) -> Option<u64> {
        let definitions = self.definitions.get_or_init(|| {
            let defined = self.elf.dynamic_symbols().filter(|symbol| !symbol.is_undefined());
            defined
                .filter_map(|symbol| Some((unversioned(symbol.name().ok()?).to_owned(), symbol.address())))
                .collect()
        });
        definitions.get(name).copied()
    }

    /// From where to where the function, or the part of one, goes to which an address belongs, as the unwind
    /// tables say.
    pub fn function_range(&self, address: u64) -> Option<Range<u64>> {
        let ranges = self.ranges.get_or_init(|| self.read_ranges().unwrap_or_default());
        let next = ranges.partition_point(|range| range.start <= address);
        ranges.get(next.checked_sub(1)?).filter(|range| range.contains(&address)).cloned()
    }

    fn read_ranges(&self) -> Option<Vec<Range<u64>>> {
        let cfi = Cfi::read(self.cache).ok()?;
        let section = cfi.eh_frame?;
        let eh_frame = EhFrame::new(&section.data, LittleEndian);
        let mut entries = eh_frame.entries(&cfi.bases);
        let mut ranges = Vec::new();
        while let Ok(Some(entry)) = entries.next() {
            if let gimli::CieOrFde::Fde(partial) = entry
                && let Ok(fde) = partial.parse(EhFrame::cie_from_offset)
            {
                let start = fde.initial_address();
                ranges.push(start..start.saturating_add(fde.len()));
            }
        }
        ranges.sort_by_key(|range| range.start);
        Some(ranges)
    }
}

/// The full table of some linkers carries versions: `malloc@@GLIBC_2.2.5`.
fn unversioned(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}
