//! What must be known of an ELF file before its symbols are read: build-id, segments, debug sections.
//!
//! Everything is read with pread-like calls, never through a mapping, and only headers are read: the
//! file belongs to the target, which may have written anything into it.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;

use object::elf::{ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD};
use object::read::elf::{CompressionHeader, FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::read::{FileKind, ReadCache};
use object::{Endian, Endianness};

/// Notes hold a build-id of 20 bytes and a few properties; a larger segment is not worth reading.
const MAX_NOTES: u64 = 1 << 20;

/// A decompressed debug section may not be larger; 4 GiB is what 32-bit DWARF can address.
const MAX_SECTION: u64 = 4 << 30;

/// The headers of an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// The GNU build-id, or empty.
    pub(super) build_id: Vec<u8>,
    /// `.gnu_debuglink`: the name of the debug file and the CRC-32 of its content.
    pub(super) debug_link: Option<(OsString, u32)>,
    /// Whether the file has a `.debug_info` of its own.
    pub(super) has_debug_info: bool,
    segments: Vec<Segment>,
}

/// A `PT_LOAD` program header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    file_size: u64,
    address: u64,
    executable: bool,
}

/// Why a file is of no use. Reads well after "failed to read an ELF file: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    /// Not ELF, or headers that lead nowhere.
    #[error("{0}")]
    Malformed(#[from] object::read::Error),
    /// The file is ELF, but not one that can stand behind code.
    #[error("not an ELF file")]
    NotElf,
    /// A compressed section claims a size that would take all memory.
    #[error("a compressed section claims to be {0} bytes long")]
    Oversized(u64),
}

impl Elf {
    /// Reads the headers of `file`.
    pub(super) fn read(file: &File) -> Result<Self, ElfError> {
        let data = ReadCache::new(file);
        match FileKind::parse(&data)? {
            FileKind::Elf64 => read::<FileHeader64<Endianness>>(&data),
            FileKind::Elf32 => read::<FileHeader32<Endianness>>(&data),
            _ => Err(ElfError::NotElf),
        }
    }

    /// Whether all sections that the headers promise are in the file: false for one that was cut off.
    pub(super) fn is_whole(file: &File) -> bool {
        let Ok(size) = file.metadata().map(|metadata| metadata.len()) else { return false };
        let data = ReadCache::new(file);
        let whole = match FileKind::parse(&data) {
            Ok(FileKind::Elf64) => sections_end::<FileHeader64<Endianness>>(&data),
            Ok(FileKind::Elf32) => sections_end::<FileHeader32<Endianness>>(&data),
            _ => None,
        };
        whole.is_some_and(|end| end <= size)
    }

    /// The address that the file's own symbols use for the code at `file_offset`.
    ///
    /// A page of the file can be mapped by two segments (lld lays files out so); the executable one is
    /// meant.
    pub(super) fn address_of(&self, file_offset: u64) -> Option<u64> {
        let find = |executable: bool| {
            self.segments.iter().filter(|segment| segment.executable == executable).find_map(|segment| {
                let distance = file_offset.checked_sub(segment.file_offset)?;
                (distance < segment.file_size).then(|| segment.address.checked_add(distance))?
            })
        };
        find(true).or_else(|| find(false))
    }

    /// The address that the file's own symbols use for the first byte of a mapping of `size` bytes of the file
    /// from `file_offset` on, by the executable segment that is in it. That may begin behind the mapping's
    /// first byte, as mappings begin at a page.
    pub(super) fn address_of_mapping(&self, file_offset: u64, size: u64) -> Option<u64> {
        let end = file_offset.checked_add(size)?;
        let segment = self.segments.iter().find(|segment| {
            segment.executable
                && segment.file_offset < end
                && segment.file_offset.saturating_add(segment.file_size) > file_offset
        })?;
        Some(segment.address.wrapping_sub(segment.file_offset).wrapping_add(file_offset))
    }
}

fn read<H>(data: &ReadCache<&File>) -> Result<Elf, ElfError>
where
    H: FileHeader<Endian = Endianness>,
{
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut elf = Elf::default();
    for segment in header.program_headers(endian, data)? {
        if segment.p_type(endian) == PT_LOAD {
            elf.segments.push(Segment {
                file_offset: segment.p_offset(endian).into(),
                file_size: segment.p_filesz(endian).into(),
                address: segment.p_vaddr(endian).into(),
                executable: segment.p_flags(endian) & PF_X != 0,
            });
        } else if elf.build_id.is_empty() && segment.p_filesz(endian).into() <= MAX_NOTES {
            elf.build_id = build_id(segment.notes(endian, data), endian);
        }
    }
    // A file without section headers (some packers make them) still has segments and a build-id.
    let Ok(sections) = header.sections(endian, data) else { return Ok(elf) };
    for section in sections.iter() {
        let name = sections.section_name(endian, section).unwrap_or_default();
        if name == b".gnu_debuglink" {
            elf.debug_link = debug_link(section.data(endian, data)?, endian);
        } else if name.starts_with(b".debug_") {
            elf.has_debug_info |= name == b".debug_info";
            if let Some((header, _, _)) = section.compression(endian, data)? {
                let size = header.ch_size(endian).into();
                if size > MAX_SECTION {
                    return Err(ElfError::Oversized(size));
                }
            }
        } else if elf.build_id.is_empty() && section.sh_size(endian).into() <= MAX_NOTES {
            // In a debug file made by objcopy the segments lead nowhere, but the sections do not.
            elf.build_id = build_id(section.notes(endian, data), endian);
        }
    }
    Ok(elf)
}

/// The offset at which the last section ends; `None` where the section headers themselves are missing.
fn sections_end<H>(data: &ReadCache<&File>) -> Option<u64>
where
    H: FileHeader<Endian = Endianness>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.section_headers(endian, data).ok()?;
    let ends = sections.iter().filter_map(|section| section.file_range(endian));
    ends.map(|(offset, size)| offset.saturating_add(size)).max()
}

/// The build-id among the notes, or empty. Notes that cannot be read are no reason to give up a file.
fn build_id<'data, H>(
    notes: object::read::Result<Option<NoteIterator<'data, H>>>,
    endian: Endianness,
) -> Vec<u8>
where
    H: FileHeader<Endian = Endianness>,
{
    let Ok(Some(mut notes)) = notes else { return Vec::new() };
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
            return note.desc().to_vec();
        }
    }
    Vec::new()
}

/// A name, a zero byte, padding to a multiple of four, and the CRC (GDB manual, "Separate Debug Files").
fn debug_link(section: &[u8], endian: Endianness) -> Option<(OsString, u32)> {
    let end = section.iter().position(|&byte| byte == 0)?;
    let at = (end + 1).next_multiple_of(4);
    let crc = section.get(at..at + 4)?.try_into().ok()?;
    let crc = if endian.is_big_endian() { u32::from_be_bytes(crc) } else { u32::from_le_bytes(crc) };
    // Only a name: a path would lead out of the directories that are searched.
    let name = &section[..end];
    (!name.is_empty() && !name.contains(&b'/')).then(|| (OsString::from_vec(name.to_vec()), crc))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn own_executable() {
        let elf = Elf::read(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(elf.has_debug_info);
        let code = elf.segments.iter().find(|segment| segment.executable).unwrap();
        assert_eq!(elf.address_of(code.file_offset + 8), Some(code.address + 8));
        assert_eq!(elf.address_of(u64::MAX), None);
    }

    #[test]
    fn a_file_that_was_cut_off_is_not_whole() {
        let copy = tempfile::NamedTempFile::new().unwrap();
        let size = std::fs::copy("/proc/self/exe", copy.path()).unwrap();
        assert!(Elf::is_whole(copy.as_file()));
        for end in [size - 1, size / 2, 100, 0] {
            copy.as_file().set_len(end).unwrap();
            assert!(!Elf::is_whole(copy.as_file()), "{end} of {size} bytes");
        }
    }

    #[test]
    fn an_executable_segment_wins_where_two_share_a_page() {
        let segment = |file_offset, file_size, address, executable| Segment {
            file_offset,
            file_size,
            address,
            executable,
        };
        let segments = vec![segment(0, 0x1600, 0, false), segment(0x1500, 0x800, 0x2500, true)];
        let elf = Elf { segments, ..Elf::default() };
        assert_eq!(elf.address_of(0x1510), Some(0x2510));
        assert_eq!(elf.address_of(0x1400), Some(0x1400));
        // The mapping begins at the page's first byte, which only the other segment has.
        assert_eq!(elf.address_of_mapping(0x1000, 0x1000), Some(0x2000));
        assert_eq!(elf.address_of_mapping(0x2000, 0x1000), None);
    }

    #[test]
    fn debug_link_is_a_name_and_a_crc() {
        let section = b"a.debug\0\x01\x02\x03\x04";
        let link = debug_link(section, Endianness::Little);
        assert_eq!(link, Some((OsString::from("a.debug"), 0x0403_0201)));
        assert_eq!(debug_link(b"../a\0\0\0\0\x01\x02\x03\x04", Endianness::Little), None);
        assert_eq!(debug_link(b"a\0", Endianness::Little), None);
    }

    #[test]
    fn other_files_are_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"#!/bin/sh\nexit 0, and a little more so that there is a header to look at\n")
            .unwrap();
        Elf::read(&file).unwrap_err();
    }
}
