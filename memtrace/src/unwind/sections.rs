//! Where an ELF file has its call frame information.

use std::borrow::Cow;
use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian};
use object::elf::{
    self, DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_INTERP, PT_LOAD,
    ProgramHeader64,
};
use object::read::elf::{CompressionHeader, Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::read::{CompressedData, CompressionFormat, FileKind, ReadRef};
use object::{Architecture, LittleEndian as Little};

use super::arch::Arch;
use super::compile::CompileError;
use super::decompress::{MAX_SECTION, decompress};

/// A section's content.
#[derive(Clone, Debug)]
pub struct Section<'data> {
    /// Its address in the file's own counting.
    pub address: u64,
    /// Its bytes.
    pub data: Cow<'data, [u8]>,
    /// Whether its end is not known, but is where an entry has the length 0.
    pub ends_at_terminator: bool,
}

/// What an ELF file says about the frames of its code.
#[derive(Debug)]
pub struct Cfi<'data> {
    /// For which architecture.
    pub arch: &'static Arch,
    /// `.eh_frame`.
    pub eh_frame: Option<Section<'data>>,
    /// `.debug_frame`, decompressed.
    pub debug_frame: Option<Section<'data>>,
    /// Where the file has code, in order: addresses in its own counting.
    pub executable: Vec<Range<u64>>,
    /// Where a process's first instruction is, if this is a program or a dynamic loader: an address in the file's own
    /// counting.
    pub entry: Option<u64>,
    /// What addresses in the sections may be counted from.
    pub bases: BaseAddresses,
}

impl<'data> Cfi<'data> {
    /// Finds the sections of an ELF file. Of a file behind a `ReadCache` only they and the headers are read.
    ///
    /// # Errors
    /// When the file is not ELF, or not of an architecture that memtrace can unwind.
    pub fn read<R: ReadRef<'data>>(data: R) -> Result<Self, CompileError> {
        match FileKind::parse(data)? {
            FileKind::Elf64 => {}
            FileKind::Elf32 => return Err(CompileError::Architecture),
            _ => return Err(CompileError::NotElf),
        }
        let header = FileHeader64::<Little>::parse(data)?;
        let endian = header.endian().map_err(|_| CompileError::Architecture)?;
        let architecture = match header.e_machine(endian) {
            EM_X86_64 => Architecture::X86_64,
            EM_AARCH64 => Architecture::Aarch64,
            _ => return Err(CompileError::Architecture),
        };
        let arch = Arch::of(architecture).ok_or(CompileError::Architecture)?;
        let segments = header.program_headers(endian, data)?;
        let mut cfi = Self {
            arch,
            eh_frame: None,
            debug_frame: None,
            executable: executable(segments),
            entry: starts_processes(segments, data).then(|| header.e_entry(endian)),
            bases: BaseAddresses::default(),
        };
        // A file without section headers (some packers make them) can still be found its way about in.
        if let Ok(sections) = header.sections(endian, data) {
            for section in sections.iter() {
                let address = section.sh_addr(endian);
                let found =
                    || Some(Section { address, data: content(section, data)?, ends_at_terminator: false });
                match sections.section_name(endian, section).unwrap_or_default() {
                    b".eh_frame" if cfi.eh_frame.is_none() => cfi.eh_frame = found(),
                    b".debug_frame" if cfi.debug_frame.is_none() => cfi.debug_frame = found(),
                    b".text" => cfi.bases = cfi.bases.set_text(address),
                    b".got" => cfi.bases = cfi.bases.set_got(address),
                    _ => {}
                }
            }
        }
        if cfi.eh_frame.is_none() {
            cfi.eh_frame = by_segments(segments, data);
        }
        if let Some(section) = &cfi.eh_frame {
            cfi.bases = cfi.bases.set_eh_frame(section.address);
        }
        Ok(cfi)
    }
}

/// Whether a process may begin in the file. Shared libraries, too, may have an address to begin at, but nobody begins
/// there. Programs name a loader, and loaders and static programs need no library.
fn starts_processes<'data, R: ReadRef<'data>>(segments: &[ProgramHeader64<Little>], data: R) -> bool {
    let needs_library = |segment: &ProgramHeader64<Little>| {
        let entries = segment.dynamic(Little, data).ok().flatten().unwrap_or_default();
        entries.iter().any(|entry| entry.d_tag(Little) == DT_NEEDED)
    };
    segments.iter().any(|segment| segment.p_type(Little) == PT_INTERP) || !segments.iter().any(needs_library)
}

/// No process has code above this address, so no file can.
const MAX_ADDRESS: u64 = 1 << 57;

fn executable(segments: &[ProgramHeader64<Little>]) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = segments
        .iter()
        .filter(|segment| segment.p_type(Little) == PT_LOAD && segment.p_flags(Little) & PF_X != 0)
        .map(|segment| {
            let start = segment.p_vaddr(Little);
            start..start.saturating_add(segment.p_memsz(Little)).min(MAX_ADDRESS)
        })
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// The bytes of a section; `None` if it has none in this file.
fn content<'data, R: ReadRef<'data>>(
    section: &elf::SectionHeader64<Little>,
    data: R,
) -> Option<Cow<'data, [u8]>> {
    if section.sh_size(Little) > MAX_SECTION {
        return None;
    }
    let content = match section.compression(Little, data).ok()? {
        None => section.data(Little, data).ok()?.into(),
        Some((header, offset, size)) => {
            let format = match header.ch_type(Little) {
                elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                _ => return None,
            };
            let data = data.read_bytes_at(offset, size).ok()?;
            let uncompressed_size = header.ch_size(Little);
            decompress(&CompressedData { format, data, uncompressed_size })?.into()
        }
    };
    Some(content).filter(|content: &Cow<'_, [u8]>| !content.is_empty())
}

/// `.eh_frame` as a running program finds it: by the header to which a segment points (Linux Standard Base,
/// 10.6.2). It ends somewhere in the segment.
fn by_segments<'data, R: ReadRef<'data>>(
    segments: &[ProgramHeader64<Little>],
    data: R,
) -> Option<Section<'data>> {
    let segment = segments.iter().find(|segment| segment.p_type(Little) == PT_GNU_EH_FRAME)?;
    let header = segment.data(Little, data).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(segment.p_vaddr(Little));
    let header = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
    let address = header.eh_frame_ptr().direct().ok()?;
    segments.iter().filter(|segment| segment.p_type(Little) == PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(Little))?;
        let size = segment.p_filesz(Little).checked_sub(within)?.min(MAX_SECTION);
        let offset = segment.p_offset(Little).checked_add(within)?;
        let data = data.read_bytes_at(offset, size).ok().filter(|data| !data.is_empty())?;
        Some(Section { address, data: data.into(), ends_at_terminator: true })
    })
}
