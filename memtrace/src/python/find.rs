//! Finding the Python interpreter of a process.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::Range,
    os::linux::fs::MetadataExt,
    path::{Path, PathBuf},
};

use memtrace_common::python::{PythonFrame, PythonRuntime};
use object::{Object, ObjectSection, ObjectSymbol, ReadCache};

use super::{
    PythonPlace,
    code::Code,
    layout::{self, Layout, TABLE_WORDS, Version},
    memory::Memory,
};
use crate::symbolize::{AddressSpace, ModuleId, Region};

/// An interpreter whose frames cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the frames of {what} in {} cannot be read: memtrace knows CPython {} to {}",
    path.display(),
    Version::OLDEST,
    Version::NEWEST
)]
pub struct NotSupported {
    /// Its version, as far as it is known.
    pub what: String,
    /// Its file.
    pub path: PathBuf,
}

/// The Python interpreter of a process.
#[derive(Debug)]
pub struct Interpreter {
    /// Its version.
    pub version: Version,
    /// The file that holds it.
    pub path: PathBuf,
    /// What the kernel program is told.
    pub runtime: PythonRuntime,
    memory: Memory,
    layout: Layout,
    code_type: Option<u64>,
    loops: Vec<Range<u64>>,
    /// By address and fingerprint; `None` where the code object was gone when it was to be read.
    codes: HashMap<(u64, u32), Option<Code>>,
}

/// What is looked up in the symbol tables.
#[derive(Debug, Default)]
struct Symbols {
    runtime: Option<u64>,
    version: Option<u64>,
    code_type: Option<u64>,
    loops: Vec<Range<u64>>,
}

/// The state of the whole interpreter; in a section of its own since 3.11, for tools that find no symbol.
const RUNTIME: &str = "_PyRuntime";
const RUNTIME_SECTION: &str = ".PyRuntime";

/// The C function that runs Python functions. Compilers put parts of it elsewhere (`.cold`), and it can be made of
/// a function for each instruction (`_TAIL_CALL_`, since 3.14).
const LOOP: &str = "_PyEval_EvalFrameDefault";
const LOOP_PARTS: [&str; 2] = ["_PyEval_EvalFrameDefault.", "_TAIL_CALL_"];

impl Symbols {
    fn read(file: File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).ok()?;
        let mut found = Self::default();
        for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
            if symbol.is_undefined() {
                continue;
            }
            let (address, size) = (symbol.address(), symbol.size());
            match symbol.name() {
                Ok(RUNTIME) => found.runtime = Some(address),
                Ok("Py_Version") => found.version = Some(address),
                Ok("PyCode_Type") => found.code_type = Some(address),
                Ok(name) if name == LOOP || LOOP_PARTS.iter().any(|part| name.starts_with(part)) => {
                    found.loops.push(address..address.saturating_add(size));
                }
                _ => {}
            }
        }
        if found.runtime.is_none() {
            found.runtime = elf.section_by_name(RUNTIME_SECTION).map(|section| section.address());
        }
        Some(found)
    }
}

impl Interpreter {
    /// Looks for an interpreter in those files of the process that were not looked at before (`seen`): the
    /// executable, and files that are called after Python.
    ///
    /// # Errors
    /// When there is one whose frames cannot be read.
    pub fn find(space: &AddressSpace, seen: &mut HashSet<ModuleId>) -> Result<Option<Self>, NotSupported> {
        for region in space.regions() {
            let likely = region.is_main() || is_named_after_python(region.module().path());
            if !region.is_file() || !likely || !seen.insert(region.module().id()) {
                continue;
            }
            if let Some(found) = Self::in_region(space, region)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn in_region(space: &AddressSpace, region: &Region) -> Result<Option<Self>, NotSupported> {
        let path = region.module().path();
        let open = |path: PathBuf| File::open(path).ok();
        let symbols = region.module().open_path().ok().and_then(open).and_then(Symbols::read);
        let Some((symbols, address)) = symbols.and_then(|symbols| symbols.runtime.map(|it| (symbols, it)))
        else {
            return Ok(None);
        };
        let not_supported = |what: &str| NotSupported { what: what.to_owned(), path: path.to_owned() };
        let unreadable = || not_supported("the Python interpreter");
        // The file's own address of the region's beginning tells where the file's data stands.
        let begins = region.file_offset_of(region.start());
        let begins = region.module().address_of(begins).ok_or_else(unreadable)?;
        let bias = region.start().wrapping_sub(begins);
        let runtime_address = bias.wrapping_add(address);
        let memory = Memory::new(space.memory().map_err(|_| unreadable())?);

        let table: [u64; TABLE_WORDS] = memory.words(runtime_address).map_err(|_| unreadable())?;
        let told = symbols.version.and_then(|address| memory.u64(bias.wrapping_add(address)).ok());
        let told = told.or_else(|| (table[0].to_ne_bytes() == *layout::COOKIE).then_some(table[1]));
        let version = told.map(Version::from_hex).or_else(|| version_in_name(path)).ok_or_else(unreadable)?;
        let layout = if !version.is_supported() {
            None
        } else if version.has_debug_offsets() {
            layout::from_table(version, &table)
        } else if version == Version::OLDEST {
            Some(layout::PYTHON_3_11)
        } else {
            Some(layout::PYTHON_3_12)
        };
        let layout = layout.ok_or_else(|| not_supported(&format!("CPython {version}")))?;
        let namespace = space.pid_namespace().map_err(|_| unreadable())?;
        let runtime = PythonRuntime {
            pid_namespace_dev: namespace.st_dev(),
            pid_namespace_ino: namespace.st_ino(),
            current_thread: match layout.runtime.current_thread {
                0 => 0,
                offset => runtime_address.wrapping_add(offset),
            },
            interpreters: runtime_address.wrapping_add(layout.runtime.interpreters),
            ..layout.runtime
        };
        let moved = |range: Range<u64>| bias.wrapping_add(range.start)..bias.wrapping_add(range.end);
        Ok(Some(Self {
            version,
            path: path.to_owned(),
            runtime,
            memory,
            layout,
            code_type: symbols.code_type.map(|address| bias.wrapping_add(address)),
            loops: symbols.loops.into_iter().map(moved).collect(),
            codes: HashMap::new(),
        }))
    }

    /// Whether this code is the C function that runs Python functions.
    pub(super) fn runs_python(&self, address: u64) -> bool {
        self.loops.iter().any(|range| range.contains(&address))
    }

    /// Reads the code objects of these frames, unless that has been done.
    pub fn read_code(&mut self, frames: &[PythonFrame]) {
        for frame in frames.iter().filter(|frame| frame.code != 0) {
            self.code(frame);
        }
    }

    /// The function and line of a frame; `None` where its code object was gone.
    pub(super) fn place(&mut self, frame: &PythonFrame) -> Option<PythonPlace> {
        Some(self.code(frame)?.place(frame))
    }

    fn code(&mut self, frame: &PythonFrame) -> Option<&Code> {
        let Self { memory, layout, code_type, codes, .. } = self;
        let read = || Code::read(memory, &layout.objects, *code_type, frame).ok();
        codes.entry((frame.code, frame.fingerprint)).or_insert_with(read).as_ref()
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_named_after_python(path: &Path) -> bool {
    let name = file_name(path);
    name.starts_with("python") || name.starts_with("libpython")
}

/// The version in `python3.11` and `libpython3.11.so.1.0`.
fn version_in_name(path: &Path) -> Option<Version> {
    let (_, version) = file_name(path).split_once("python")?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions() {
        let version = |path: &str| version_in_name(Path::new(path)).map(|version| version.to_string());
        assert_eq!(version("/usr/bin/python3.11").as_deref(), Some("3.11"));
        assert_eq!(version("/usr/lib/libpython3.12.so.1.0").as_deref(), Some("3.12"));
        assert_eq!(version("/usr/lib/libpython3.13t.so.1.0").as_deref(), Some("3.13"));
        assert_eq!(version("/usr/bin/python3"), None);
        assert_eq!(version("/usr/bin/redis-server"), None);
    }
}
