//! What files say of how they are linked with each other.
//!
//! The dynamic loader looks a symbol up in the executable, then in the libraries of `LD_PRELOAD`, then in
//! the libraries that these need, breadth first (System V ABI, "Shared Object Dependencies"; ld.so(8)).
//! Libraries that were loaded later, by dlopen(3), come behind. Not followed: `DT_SYMBOLIC`, dlmopen(3),
//! and `RTLD_DEEPBIND`.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
};

use object::{
    File as ObjectFile, Object, ObjectSymbol, ReadCache, ReadRef,
    elf::{DT_NEEDED, DT_SONAME, PT_INTERP},
    read::elf::{ElfFile64, ProgramHeader},
};

use super::catalog;
use crate::symbolize::{Module, ModuleId};

/// What an ELF file says of itself.
#[derive(Clone, Debug, Default)]
pub struct Linkage {
    /// Its path, as the process sees it.
    pub path: PathBuf,
    /// Whether it is a 32-bit file.
    pub is_32_bit: bool,
    /// Whether Go's compiler has made it.
    pub is_go: bool,
    /// Whether it has the full symbol table, of which `strip` takes nothing or all.
    has_symbols: bool,
    /// Whether it asks for a dynamic loader.
    has_interpreter: bool,
    soname: Option<String>,
    needed: Vec<String>,
    /// The catalog's functions that other files can call.
    exports: HashSet<String>,
}

impl Linkage {
    /// Reads the file behind a module; what cannot be read is left empty.
    pub fn read(module: &Module) -> Self {
        let mut linkage = Self { path: module.path().to_owned(), ..Self::default() };
        let Some(file) = module.open_path().ok().and_then(|path| File::open(path).ok()) else {
            return linkage;
        };
        let cache = ReadCache::new(file);
        match ObjectFile::parse(&cache) {
            Ok(ObjectFile::Elf64(elf)) => linkage.fill(&elf),
            Ok(ObjectFile::Elf32(_)) => linkage.is_32_bit = true,
            _ => {}
        }
        linkage
    }

    fn fill<'data, R: ReadRef<'data>>(&mut self, elf: &ElfFile64<'data, object::Endianness, R>) {
        let has_section = |name| elf.section_by_name(name).is_some();
        self.is_go = has_section(".go.buildinfo") || has_section(".note.go.buildid");
        self.has_symbols = elf.symbols().next().is_some();
        let endian = elf.endian();
        self.has_interpreter =
            elf.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP);
        if let Ok(table) = elf.elf_dynamic_table() {
            for entry in &table {
                let text = || table.string(entry).ok().map(|text| String::from_utf8_lossy(text).into_owned());
                match entry.tag {
                    DT_NEEDED => self.needed.extend(text()),
                    DT_SONAME => self.soname = text(),
                    _ => {}
                }
            }
        }
        for symbol in elf.dynamic_symbols().filter(|symbol| !symbol.is_undefined()) {
            let Ok(name) = symbol.name() else { continue };
            if catalog::find(name).is_some() {
                self.exports.insert(name.to_owned());
            }
        }
    }

    /// Whether it calls nothing outside of itself, given that it is a program.
    pub fn is_static_program(&self) -> bool {
        !self.has_interpreter && self.needed.is_empty()
    }

    /// Whether nothing says where in it a function is, given that it is a program: it is statically linked, and
    /// stripped.
    pub fn is_stripped_static_program(&self) -> bool {
        self.is_static_program() && !self.has_symbols && !self.is_32_bit
    }

    /// Whether other files can call this file's `symbol`.
    pub(super) fn exports(&self, symbol: &str) -> bool {
        self.exports.contains(symbol)
    }

    fn is_called(&self, name: &str) -> bool {
        // A path may be that of a link to the file: its last part is then the file's own name for itself.
        let name = match name.rsplit_once('/') {
            Some(_) if self.path == Path::new(name) => return true,
            Some((_, last)) => last,
            None => name,
        };
        self.soname.as_deref() == Some(name) || self.path.file_name().is_some_and(|own| own == name)
    }
}

/// The files of a process in the order in which symbols are looked up. `preloaded` are the names in
/// `LD_PRELOAD`. Files that are not reached are left out. The second value is how many, behind the first, come from
/// `LD_PRELOAD`.
pub(super) fn lookup_order(
    files: &HashMap<ModuleId, Linkage>,
    main: ModuleId,
    preloaded: &[String],
) -> (Vec<ModuleId>, usize) {
    let find = |name: &String| {
        // The table has no order of its own; the first by number makes the answer always the same.
        files.iter().filter(|(_, file)| file.is_called(name)).map(|(id, _)| *id).min()
    };
    let mut order = vec![main];
    let add = |id: ModuleId, order: &mut Vec<ModuleId>| {
        if !order.contains(&id) {
            order.push(id);
        }
    };
    preloaded.iter().filter_map(find).for_each(|id| add(id, &mut order));
    let (mut next, preloaded) = (0, order.len() - 1);
    while let Some(file) = order.get(next).and_then(|id| files.get(id)) {
        file.needed.iter().filter_map(find).for_each(|id| add(id, &mut order));
        next += 1;
    }
    (order, preloaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::{AddressSpace, Modules};

    fn file(path: &str, soname: &str, needed: &[&str]) -> Linkage {
        Linkage {
            path: path.into(),
            soname: (!soname.is_empty()).then(|| soname.to_owned()),
            needed: needed.iter().map(|name| (*name).to_owned()).collect(),
            ..Linkage::default()
        }
    }

    #[test]
    fn breadth_first_behind_what_is_preloaded() {
        // Ids are given out by `Modules` alone; the names in brackets of any process will do.
        let modules = Modules::new();
        let space = AddressSpace::open(std::process::id(), &modules).unwrap();
        let mut ids: Vec<_> = space.regions().map(|region| region.module().id()).collect();
        ids.sort_unstable();
        ids.dedup();
        let [main, preloaded, near, far, dlopened] = ids[..5] else { panic!("fewer than five modules") };
        let files = HashMap::from([
            (main, file("/bin/main", "", &["near.so.1", "libc.so.6"])),
            (preloaded, file("/opt/libfast.so", "", &[])),
            (near, file("/lib/near.so.1.2", "near.so.1", &["libc.so.6", "missing.so"])),
            (far, file("/lib/libc.so.6", "libc.so.6", &[])),
            (dlopened, file("/lib/plugin.so", "plugin.so", &["libc.so.6"])),
        ]);
        let by_path = ["/opt/libfast.so".to_owned(), "/not/there.so".to_owned()];
        let with_preloaded = (vec![main, preloaded, near, far], 1);
        assert_eq!(lookup_order(&files, main, &by_path), with_preloaded);
        assert_eq!(lookup_order(&files, main, &["libfast.so".to_owned()]), with_preloaded);
        assert_eq!(lookup_order(&files, main, &[]), (vec![main, near, far], 0));
    }
}
