//! A process's code, as `/proc` and the ELF files that it maps have it: for framehop, and for names.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use framehop::ExplicitModuleSectionInfo;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use crate::reference::{Framehop, Module};

/// The executable mappings that were seen.
#[derive(Default)]
pub(crate) struct Code {
    /// By first address.
    mappings: BTreeMap<u64, Mapping>,
}

/// An executable mapping of a file.
struct Mapping {
    end: u64,
    inode: u64,
    /// The name of the file.
    name: String,
    /// What to take off an address to get the file's own.
    bias: u64,
    /// Functions by address in the file.
    functions: BTreeMap<u64, (u64, String)>,
}

impl Code {
    /// Whether an address that a call returns to is in known code.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.mapping(address).is_some()
    }

    fn mapping(&self, address: u64) -> Option<&Mapping> {
        let (_, mapping) = self.mappings.range(..address).next_back()?;
        (address <= mapping.end).then_some(mapping)
    }

    /// Reads the mappings of process `pid` anew, and tells framehop of those that were not known. What a
    /// process that has ended had mapped stays known.
    ///
    /// # Errors
    /// When the mappings cannot be read. Files that are no ELF files are left out.
    pub(crate) fn update(&mut self, pid: u32, framehop: &mut Framehop) -> Result<()> {
        let maps = Process::new(pid.cast_signed()).and_then(|process| process.maps());
        let maps = maps.with_context(|| format!("cannot read the mappings of process {pid}"))?;
        for map in maps.iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE)) {
            let MMapPath::Path(path) = &map.pathname else { continue };
            let (start, end) = map.address;
            let known = self.mappings.get(&start);
            if known.is_some_and(|known| (known.end, known.inode) == (end, map.inode)) {
                continue;
            }
            let gone: Vec<_> = self.mappings.range(..end).filter(|(_, known)| known.end > start).collect();
            let gone: Vec<u64> = gone.into_iter().map(|(start, _)| *start).collect();
            for start in gone {
                self.mappings.remove(&start);
                framehop.remove(start);
            }
            if let Some((mapping, module)) = read(pid, map, path) {
                framehop.add(module);
                self.mappings.insert(start, mapping);
            }
        }
        Ok(())
    }

    /// The file and the function from which a call returns to this address, as far as they have names.
    pub(crate) fn place(&self, address: u64) -> String {
        match self.mapping(address) {
            Some(mapping) => {
                let function = mapping.function(address).unwrap_or("a function without name");
                format!("`{}` `{function}`", mapping.name)
            }
            None => "unknown code".to_owned(),
        }
    }

    /// The address as the file counts it that holds it, for whoever looks there.
    pub(crate) fn in_file(&self, address: u64) -> String {
        match self.mapping(address) {
            Some(mapping) => format!("{}+{:#x}", mapping.name, address.wrapping_sub(mapping.bias)),
            None => format!("{address:#x}"),
        }
    }

    /// Whether a call from C++'s `operator new` returns to this address.
    pub(crate) fn is_operator_new(&self, address: u64) -> bool {
        let function = self.mapping(address).and_then(|mapping| mapping.function(address));
        function.is_some_and(|name| name.starts_with("_Znw") || name.starts_with("_Zna"))
    }
}

impl Mapping {
    fn function(&self, address: u64) -> Option<&str> {
        let call = address.wrapping_sub(self.bias).wrapping_sub(1);
        let (start, (size, name)) = self.functions.range(..=call).next_back()?;
        (call - start < *size).then_some(name)
    }
}

/// Reads the file that is mapped.
fn read(pid: u32, map: &MemoryMap, path: &Path) -> Option<(Mapping, Module)> {
    let (start, end) = map.address;
    let data = fs::read(format!("/proc/{pid}/map_files/{start:x}-{end:x}")).ok()?;
    let file = object::File::parse(&*data).ok()?;
    let holds = |(offset, size): (u64, u64)| (offset..offset + size).contains(&map.offset);
    // A mapping begins at a page, and the segment perhaps behind that.
    let segment = file.segments().find(|segment| {
        let (offset, size) = segment.file_range();
        holds((offset & !0xfff, size + (offset & 0xfff)))
    })?;
    let address = segment.address().wrapping_add(map.offset).wrapping_sub(segment.file_range().0);
    let bias = start.wrapping_sub(address);
    let name = path.file_name()?.to_string_lossy().into_owned();
    let mapping = Mapping { end, inode: map.inode, name: name.clone(), bias, functions: functions(&file) };
    Some((mapping, Module::new(name, start..end, bias, sections(&file))))
}

fn functions(file: &object::File<'_>) -> BTreeMap<u64, (u64, String)> {
    let symbols = file.symbols().chain(file.dynamic_symbols());
    symbols
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.size() > 0)
        .filter_map(|symbol| Some((symbol.address(), (symbol.size(), symbol.name().ok()?.to_owned()))))
        .collect()
}

fn sections(file: &object::File<'_>) -> ExplicitModuleSectionInfo<Vec<u8>> {
    let section = |name| file.section_by_name(name);
    let range = |name| section(name).map(|section| range(section.address(), section.size()));
    let data = |name| {
        section(name).and_then(|section| section.uncompressed_data().ok()).map(|data| data.into_owned())
    };
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        text: data(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        debug_frame: data(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    }
}

fn range(start: u64, size: u64) -> Range<u64> {
    start..start.saturating_add(size)
}
