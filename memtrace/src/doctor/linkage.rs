//! Which of several definitions of a function is the one that is called.
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

use crate::{
    allocator::catalog,
    symbolize::{Module, ModuleId},
};

/// What an ELF file says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Linkage {
    pub(super) path: PathBuf,
    pub(super) is_32_bit: bool,
    pub(super) is_go: bool,
    /// Whether it asks for a dynamic loader.
    has_interpreter: bool,
    /// Whose allocation functions these are.
    pub(super) allocator: Option<&'static str>,
    soname: Option<String>,
    needed: Vec<String>,
    /// The catalog's functions that other files can call.
    exports: HashSet<String>,
}

/// Symbols by which allocators are known; the first that is there decides.
const MARKS: [(&str, &str); 9] = [
    ("mallctl", "jemalloc"),
    ("je_mallctl", "jemalloc"),
    ("_rjem_mallctl", "jemalloc"),
    ("mi_malloc", "mimalloc"),
    ("tc_malloc", "tcmalloc"),
    ("TCMallocInternalMalloc", "tcmalloc"),
    ("__libc_memalign", "glibc"),
    ("__libc_malloc_impl", "musl"),
    ("__cxa_allocate_exception", "C++ runtime"),
];

impl Linkage {
    /// Reads the file behind a module; what cannot be read is left empty.
    pub(super) fn read(module: &Module) -> Self {
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
        let mut mark = MARKS.len();
        for symbol in elf.dynamic_symbols().chain(elf.symbols()).filter(|symbol| !symbol.is_undefined()) {
            let Ok(name) = symbol.name() else { continue };
            let bare = name.split('@').next().unwrap_or(name);
            mark = mark.min(MARKS.iter().position(|(marked, _)| *marked == bare).unwrap_or(mark));
        }
        for symbol in elf.dynamic_symbols().filter(|symbol| !symbol.is_undefined()) {
            let Ok(name) = symbol.name() else { continue };
            if catalog::find(name).is_some() {
                self.exports.insert(name.to_owned());
            }
        }
        self.allocator = MARKS.get(mark).map(|(_, name)| *name);
        if self.allocator.is_none_or(|name| name == "C++ runtime") && is_musl(&self.path) {
            self.allocator = Some("musl");
        }
    }

    /// Whether it calls nothing outside of itself, given that it is a program.
    pub(super) fn is_static_program(&self) -> bool {
        !self.has_interpreter && self.needed.is_empty()
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

/// musl's library shows no symbol of its own, but always has its name.
fn is_musl(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("ld-musl-") || name.starts_with("libc.musl-")
}

/// The files of a process in the order in which symbols are looked up. `preloaded` are the names in
/// `LD_PRELOAD`. Files that are not reached are left out.
pub(super) fn lookup_order(
    files: &HashMap<ModuleId, Linkage>,
    main: ModuleId,
    preloaded: &[String],
) -> Vec<ModuleId> {
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
    let mut next = 0;
    while let Some(file) = order.get(next).and_then(|id| files.get(id)) {
        file.needed.iter().filter_map(find).for_each(|id| add(id, &mut order));
        next += 1;
    }
    order
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
        assert_eq!(lookup_order(&files, main, &by_path), [main, preloaded, near, far]);
        assert_eq!(lookup_order(&files, main, &["libfast.so".to_owned()]), [main, preloaded, near, far]);
        assert_eq!(lookup_order(&files, main, &[]), [main, near, far]);
    }
}
