//! Statically defined probes (USDT) by which a process tells of allocations that it has sampled itself: the
//! provider `otel_memory` (OpenTelemetry's eBPF profiler; jemalloc's issue 3011).
//!
//! They stand in the section `.note.stapsdt`, in the format of SystemTap's `<sys/sdt.h>`
//! (<https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>).

use memtrace_common::{FunctionKind, Probe, UsdtPlaces};
use object::{LittleEndian, ObjectSection, elf::FileHeader64, read::elf::NoteIterator};

use super::{
    catalog::USDT,
    elf::{ElfImage, FunctionSymbol},
    inspect::Probed,
    site::{self, Handling},
    usdt_argument,
};

/// The section with a note for each probe.
const NOTES: &str = ".note.stapsdt";
/// The section by whose address it is seen how far a file's addresses were moved after it was linked (`prelink`).
const BASE: &str = ".stapsdt.base";
/// What such a note is called (`_SDT_NOTE_NAME`).
const NOTE_NAME: &[u8] = b"stapsdt";
/// Its type (`_SDT_NOTE_TYPE`).
const NOTE_TYPE: u32 = 3;
/// On x86-64 (Intel's manual, volume 2, 2.3.11).
const LONGEST_INSTRUCTION: u64 = 15;
/// No file has so many bytes of notes: they are not read then.
const MOST_BYTES: u64 = 16 << 20;

/// What is special of a statically defined probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usdt {
    /// Where its arguments are.
    pub places: UsdtPlaces,
    /// Where in the file the counter stands which says how many look at the probe, if the process asks one before it
    /// reaches the probe. The kernel raises it, and lowers it when the probe is taken off.
    pub semaphore: Option<u64>,
}

/// A note, as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
struct Described<'a> {
    location: u64,
    base: u64,
    semaphore: u64,
    provider: &'a [u8],
    name: &'a [u8],
    arguments: &'a [u8],
}

impl<'a> Described<'a> {
    /// Reads the note's contents; `None` where they are cut.
    fn read(contents: &'a [u8]) -> Option<Self> {
        let (words, rest) = contents.split_first_chunk::<24>()?;
        let word = |index: usize| Some(u64::from_le_bytes(*words[index * 8..].first_chunk()?));
        let mut strings = rest.split(|byte| *byte == 0);
        let (provider, name, arguments) = (strings.next()?, strings.next()?, strings.next()?);
        // Behind the last string's end there is something: at least what follows its zero byte.
        strings.next()?;
        Some(Self { location: word(0)?, base: word(1)?, semaphore: word(2)?, provider, name, arguments })
    }

    /// What the probe tells of, if it is one of those that memtrace knows, and how many arguments it has.
    fn kind(&self) -> Option<(FunctionKind, usize)> {
        match (self.provider, self.name) {
            (b"otel_memory", b"alloc") => Some((FunctionKind::Malloc, 3)),
            (b"otel_memory", b"free") => Some((FunctionKind::Free, 1)),
            _ => None,
        }
    }
}

/// A probe, or the name of one that cannot be used and why: a clause that can follow "because".
pub(super) type Found = Result<(FunctionSymbol, Probed), (String, String)>;

/// The probes of a file.
pub(super) fn find(image: &ElfImage<'_>) -> Vec<Found> {
    let Some(section) = image.section(NOTES) else { return Vec::new() };
    let base = image.section(BASE).map(|section| section.address());
    let notes = match section.size() {
        size if size > MOST_BYTES => return vec![unusable("the section is too large to be one of probes")],
        _ => section.data().unwrap_or_default(),
    };
    let (notes, whole) = read(notes);
    let probes = notes.iter().filter_map(|note| {
        let (kind, arguments) = note.kind()?;
        let name = [note.provider, note.name].map(String::from_utf8_lossy).join(":");
        Some(note.probe(image, base, &name, kind, arguments).map_err(|reason| (name, reason)))
    });
    let cut = (!whole).then(|| unusable("its notes are cut"));
    probes.chain(cut).collect()
}

fn unusable(reason: &str) -> Found {
    Err((NOTES.to_owned(), reason.to_owned()))
}

/// The notes of a section as far as they can be read, and whether all could.
fn read(section: &[u8]) -> (Vec<Described<'_>>, bool) {
    let mut described = Vec::new();
    let Ok(mut notes) = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, 4, section) else {
        return (described, false);
    };
    loop {
        match notes.next() {
            Ok(Some(note)) if note.name() != NOTE_NAME || note.n_type(LittleEndian) != NOTE_TYPE => {}
            Ok(Some(note)) => match Described::read(note.desc()) {
                Some(one) => described.push(one),
                None => return (described, false),
            },
            Ok(None) => return (described, true),
            Err(_) => return (described, false),
        }
    }
}

impl Described<'_> {
    /// # Errors
    /// Why the probe cannot be used.
    fn probe(
        &self,
        image: &ElfImage<'_>,
        base: Option<u64>,
        name: &str,
        kind: FunctionKind,
        arguments: usize,
    ) -> Result<(FunctionSymbol, Probed), String> {
        let places = usdt_argument::places(self.arguments, arguments)?;
        let moved = self.moved(base);
        let address = self.location.wrapping_add(moved);
        let (file_offset, _) = image.file_position(address).ok_or("its place is not in the file")?;
        let site = site::at_nop(image.bytes(address, LONGEST_INSTRUCTION))
            .ok_or("there is no `nop` at its place, so the file is not as it was linked")?;
        let semaphore = match self.semaphore {
            0 => None,
            semaphore => Some(place_of_semaphore(image, semaphore.wrapping_add(moved))?),
        };
        let stepped = site.handling == Handling::SingleStepped;
        let probe = Probe { stepped, ..Probe::new(kind) };
        let function = FunctionSymbol { name: name.to_owned(), address, size: 0, file_offset };
        let usdt = Some(Usdt { places, semaphore });
        Ok((function, Probed { probe, site, rets: Vec::new(), family: USDT, owner: None, usdt }))
    }

    /// How far the file's addresses were moved after it was linked.
    fn moved(&self, base: Option<u64>) -> u64 {
        match base {
            Some(base) if self.base != 0 => base.wrapping_sub(self.base),
            _ => 0,
        }
    }
}

/// Where in the file a semaphore stands: two bytes (`unsigned short`, `<sys/sdt.h>`).
fn place_of_semaphore(image: &ElfImage<'_>, address: u64) -> Result<u64, String> {
    match image.file_position(address) {
        // The kernel takes an offset of 32 bits (kernel/events/core.c, PERF_UPROBE_REF_CTR_OFFSET_BITS), and
        // raises two bytes on one page.
        Some((offset, 2..)) if offset % 2 == 0 && offset <= u32::MAX.into() => Ok(offset),
        _ => Err("its semaphore is not where the kernel could raise it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: &[u8] =
        b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0otel_memory\0free\08@%rdi\0";

    fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
        let words = [name.len() as u32, contents.len() as u32, kind];
        let mut note: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for part in [name, contents] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn a_note_is_read() {
        let section = note(b"stapsdt\0", 3, CONTENTS);
        let (provider, name): (&[u8], &[u8]) = (b"otel_memory", b"free");
        let expected = Described { location: 1, base: 2, semaphore: 3, provider, name, arguments: b"8@%rdi" };
        assert_eq!(read(&section), (vec![expected], true));
        assert_eq!(read(&section).0[0].kind(), Some((FunctionKind::Free, 1)));
    }

    #[test]
    fn notes_of_others_are_passed_over() {
        let others = [note(b"GNU\0", 3, b"any"), note(b"stapsdt\0", 4, b""), note(b"", 0, b"")].concat();
        assert_eq!(read(&others), (Vec::new(), true));
        let ours = note(b"stapsdt\0", 3, CONTENTS);
        assert_eq!(read(&[others, ours].concat()).0.len(), 1);
    }

    #[test]
    fn cut_notes_are_told_of_wherever_they_are_cut() {
        let whole = note(b"stapsdt\0", 3, CONTENTS);
        let section = [whole.clone(), whole.clone()].concat();
        for len in 0..section.len() {
            let (notes, complete) = read(&section[..len]);
            assert_eq!(notes.len(), len / whole.len(), "{len}");
            assert_eq!(complete, len % whole.len() == 0, "{len}");
        }
        for len in 0..CONTENTS.len() {
            assert_eq!(Described::read(&CONTENTS[..len]), None, "{len}");
        }
        // Sizes that no section has.
        for place in [0, 4] {
            let mut hostile = whole.clone();
            hostile[place..place + 4].fill(0xff);
            assert_eq!(read(&hostile), (Vec::new(), false));
        }
    }

    #[test]
    fn addresses_move_with_the_base() {
        let described = |base| Described { base, ..Described::read(CONTENTS).unwrap() };
        assert_eq!(described(0x1000).moved(Some(0x3000)), 0x2000);
        assert_eq!(described(0x3000).moved(Some(0x1000)), 0x2000_u64.wrapping_neg());
        assert_eq!(described(0x1000).moved(None), 0);
        assert_eq!(described(0).moved(Some(0x3000)), 0);
    }
}
