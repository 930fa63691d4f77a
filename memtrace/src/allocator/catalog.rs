//! The table of known allocator functions. Adding an allocator is adding rows, a line in
//! `docs/allocators.md` (a test compares the two), and a test with the real thing.
//!
//! A row applies wherever an ELF file defines a function of that name: `malloc` has the same shape in glibc,
//! musl, jemalloc, tcmalloc and mimalloc, and which of them a process uses is a question of where the
//! symbol is found, not of this table.

use std::{cell::Cell, path::Path};

use memtrace_common::{Arguments, FunctionKind, Probe};

use super::site::{Handling, Site};

use FunctionKind::{AlignedAlloc, Calloc, Free, Malloc, PosixMemalign, Realloc, ReallocArray};

/// What a function does, as far as its probes have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// What it does with its arguments.
    pub kind: FunctionKind,
    /// Where the arguments are, for the kinds that do not say so themselves.
    pub arguments: Arguments,
    /// See [`Probe::may_jump`].
    pub may_jump: bool,
    /// Whether it may be a wrapper, which does nothing but call another allocation function: C++'s `operator new`
    /// and Rust's interface.
    pub may_wrap: bool,
    /// Whether it reports failure by an exception. Such a function never gets a return probe, see
    /// [`Discovery`](super::Discovery).
    pub throws: bool,
}

impl Function {
    const fn of(kind: FunctionKind) -> Self {
        let arguments = Arguments { size: 0, count: None, block: None, result: None };
        Self { kind, arguments, may_jump: false, may_wrap: false, throws: false }
    }

    /// One whose arguments are where `arguments` says.
    pub const fn shaped(kind: FunctionKind, arguments: Arguments) -> Self {
        Self { arguments, ..Self::of(kind) }
    }

    /// Whether it gives a block another size.
    pub fn resizes(&self) -> bool {
        match self.kind {
            Realloc | ReallocArray => true,
            FunctionKind::Other => self.arguments.block.is_some(),
            _ => false,
        }
    }

    /// What the kernel program is told of it when its probe sits at this site.
    pub fn probe(&self, site: &Site) -> Probe {
        Probe {
            may_jump: self.may_jump,
            stepped: site.handling == Handling::SingleStepped,
            arguments: self.arguments,
            ..Probe::new(self.kind)
        }
    }
}

/// One known function.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The symbol's name without the family's prefix; mangled where it is a C++ one.
    pub symbol: &'static str,
    /// What it does.
    pub function: Function,
}

/// An interface: functions that belong together.
#[derive(Debug)]
pub struct Family {
    /// Its name, for `--allocator`.
    pub name: &'static str,
    /// What the functions' names may begin with.
    pub prefixes: &'static [&'static str],
    /// Its functions.
    pub rows: &'static [Row],
}

const fn row(symbol: &'static str, kind: FunctionKind) -> Row {
    Row { symbol, function: Function::of(kind) }
}

const fn jumps(symbol: &'static str, kind: FunctionKind) -> Row {
    Row { symbol, function: Function { may_jump: true, ..Function::of(kind) } }
}

const fn operator_new(symbol: &'static str, throws: bool) -> Row {
    Row { symbol, function: Function { may_wrap: true, throws, ..Function::of(Malloc) } }
}

const fn wraps(symbol: &'static str, function: Function) -> Row {
    Row { symbol, function: Function { may_wrap: true, ..function } }
}

const fn shaped(symbol: &'static str, arguments: Arguments) -> Row {
    Row { symbol, function: Function::shaped(FunctionKind::Other, arguments) }
}

/// mimalloc's functions of a heap, which is their first argument.
const fn of_heap(symbol: &'static str, size: u8, count: Option<u8>, block: Option<u8>) -> Row {
    shaped(symbol, Arguments { size, count, block, result: None })
}

/// `void *realloc(void *block, size_t old_size, size_t alignment, size_t size)`, or with the second and third
/// in the other order.
const RUST_REALLOC: Function =
    Function::shaped(FunctionKind::Other, Arguments { size: 3, count: None, block: Some(0), result: None });

/// The family of CPython's allocator of objects, which is looked for only where somebody has asked for it.
pub(super) const PYTHON: &str = "python";

/// The family of the statically defined probes (USDT) by which a process tells of its own samples. They are no
/// functions, and have other arguments: [`usdt`](super::usdt) reads where.
pub(super) const USDT: &str = "otel_memory";

/// `cfree`, and what else frees a block that is the first argument, has the shape of `free`.
///
/// Sources: C17 7.22.3, POSIX, glibc's manual ("Allocating Storage"); the Itanium C++ ABI (mangling); jemalloc(3);
/// gperftools/tcmalloc.h; google/tcmalloc's tcmalloc/libc_override.h; mimalloc.h and mimalloc-override.h; snmalloc's
/// src/snmalloc/override; CPython's Include/pymem.h and objimpl.h; Rust's library/alloc/src/alloc.rs.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "c",
        // jemalloc with a prefix (its own usual one, and that of Rust's tikv-jemalloc-sys), snmalloc with one.
        prefixes: &["", "je_", "_rjem_", "sn_"],
        rows: &[
            row("malloc", Malloc),
            row("calloc", Calloc),
            row("realloc", Realloc),
            jumps("reallocarray", ReallocArray),
            row("free", Free),
            row("cfree", Free),
            row("free_sized", Free),
            row("free_aligned_sized", Free),
            jumps("posix_memalign", PosixMemalign),
            jumps("aligned_alloc", AlignedAlloc),
            jumps("memalign", AlignedAlloc),
            jumps("valloc", Malloc),
            jumps("pvalloc", Malloc),
        ],
    },
    Family {
        name: "c++",
        prefixes: &[""],
        rows: &[
            // operator new: plain, array; nothrow; aligned; aligned nothrow.
            operator_new("_Znwm", true),
            operator_new("_Znam", true),
            operator_new("_ZnwmRKSt9nothrow_t", false),
            operator_new("_ZnamRKSt9nothrow_t", false),
            operator_new("_ZnwmSt11align_val_t", true),
            operator_new("_ZnamSt11align_val_t", true),
            operator_new("_ZnwmSt11align_val_tRKSt9nothrow_t", false),
            operator_new("_ZnamSt11align_val_tRKSt9nothrow_t", false),
            // operator delete: plain, array; sized; nothrow; aligned, alone and with each of these.
            row("_ZdlPv", Free),
            row("_ZdaPv", Free),
            row("_ZdlPvm", Free),
            row("_ZdaPvm", Free),
            row("_ZdlPvRKSt9nothrow_t", Free),
            row("_ZdaPvRKSt9nothrow_t", Free),
            row("_ZdlPvSt11align_val_t", Free),
            row("_ZdaPvSt11align_val_t", Free),
            row("_ZdlPvmSt11align_val_t", Free),
            row("_ZdaPvmSt11align_val_t", Free),
            row("_ZdlPvSt11align_val_tRKSt9nothrow_t", Free),
            row("_ZdaPvSt11align_val_tRKSt9nothrow_t", Free),
        ],
    },
    Family {
        name: "jemalloc",
        prefixes: &["", "je_", "_rjem_"],
        rows: &[row("mallocx", Malloc), row("rallocx", Realloc), row("dallocx", Free), row("sdallocx", Free)],
    },
    Family {
        name: "gperftools",
        prefixes: &["tc_"],
        rows: &[
            row("malloc", Malloc),
            row("malloc_skip_new_handler", Malloc),
            row("calloc", Calloc),
            row("realloc", Realloc),
            row("free", Free),
            row("cfree", Free),
            row("free_sized", Free),
            jumps("memalign", AlignedAlloc),
            jumps("posix_memalign", PosixMemalign),
            jumps("valloc", Malloc),
            jumps("pvalloc", Malloc),
            operator_new("new", true),
            operator_new("newarray", true),
            operator_new("new_nothrow", false),
            operator_new("newarray_nothrow", false),
            operator_new("new_aligned", true),
            operator_new("newarray_aligned", true),
            operator_new("new_aligned_nothrow", false),
            operator_new("newarray_aligned_nothrow", false),
            row("delete", Free),
            row("deletearray", Free),
            row("delete_sized", Free),
            row("deletearray_sized", Free),
            row("delete_nothrow", Free),
            row("deletearray_nothrow", Free),
            row("delete_aligned", Free),
            row("deletearray_aligned", Free),
            row("delete_sized_aligned", Free),
            row("deletearray_sized_aligned", Free),
            row("delete_aligned_nothrow", Free),
            row("deletearray_aligned_nothrow", Free),
        ],
    },
    Family {
        name: "tcmalloc",
        prefixes: &["TCMallocInternal"],
        rows: &[
            row("Malloc", Malloc),
            row("Calloc", Calloc),
            row("Realloc", Realloc),
            row("Free", Free),
            row("Cfree", Free),
            row("FreeSized", Free),
            row("FreeAlignedSized", Free),
            row("Sdallocx", Free),
            jumps("Memalign", AlignedAlloc),
            jumps("AlignedAlloc", AlignedAlloc),
            jumps("PosixMemalign", PosixMemalign),
            jumps("Valloc", Malloc),
            jumps("Pvalloc", Malloc),
            operator_new("New", true),
            operator_new("NewArray", true),
            operator_new("NewNothrow", false),
            operator_new("NewArrayNothrow", false),
            operator_new("NewAligned", true),
            operator_new("NewArrayAligned", true),
            operator_new("NewAlignedNothrow", false),
            operator_new("NewArrayAlignedNothrow", false),
            row("Delete", Free),
            row("DeleteArray", Free),
            row("DeleteSized", Free),
            row("DeleteArraySized", Free),
            row("DeleteNothrow", Free),
            row("DeleteArrayNothrow", Free),
            row("DeleteAligned", Free),
            row("DeleteArrayAligned", Free),
            row("DeleteSizedAligned", Free),
            row("DeleteArraySizedAligned", Free),
            row("DeleteAlignedNothrow", Free),
            row("DeleteArrayAlignedNothrow", Free),
        ],
    },
    Family {
        name: "mimalloc",
        prefixes: &["mi_"],
        rows: &[
            row("malloc", Malloc),
            row("malloc_small", Malloc),
            row("zalloc", Malloc),
            row("zalloc_small", Malloc),
            row("calloc", Calloc),
            row("mallocn", Calloc),
            row("realloc", Realloc),
            row("reallocn", ReallocArray),
            row("rezalloc", Realloc),
            row("recalloc", ReallocArray),
            row("reallocarray", ReallocArray),
            row("free", Free),
            row("cfree", Free),
            row("free_size", Free),
            row("free_size_aligned", Free),
            row("free_aligned", Free),
            row("posix_memalign", PosixMemalign),
            row("memalign", AlignedAlloc),
            row("aligned_alloc", AlignedAlloc),
            row("valloc", Malloc),
            row("pvalloc", Malloc),
            row("malloc_aligned", Malloc),
            row("malloc_aligned_at", Malloc),
            row("zalloc_aligned", Malloc),
            row("zalloc_aligned_at", Malloc),
            row("calloc_aligned", Calloc),
            row("calloc_aligned_at", Calloc),
            row("realloc_aligned", Realloc),
            row("realloc_aligned_at", Realloc),
            row("rezalloc_aligned", Realloc),
            row("rezalloc_aligned_at", Realloc),
            row("recalloc_aligned", ReallocArray),
            row("recalloc_aligned_at", ReallocArray),
            operator_new("new", true),
            operator_new("new_nothrow", false),
            operator_new("new_aligned", true),
            operator_new("new_aligned_nothrow", false),
            Row {
                symbol: "new_n",
                function: Function { may_wrap: true, throws: true, ..Function::of(Calloc) },
            },
            of_heap("heap_malloc", 1, None, None),
            of_heap("heap_malloc_small", 1, None, None),
            of_heap("heap_zalloc", 1, None, None),
            of_heap("heap_calloc", 2, Some(1), None),
            of_heap("heap_mallocn", 2, Some(1), None),
            of_heap("heap_realloc", 2, None, Some(1)),
            of_heap("heap_reallocn", 3, Some(2), Some(1)),
            of_heap("heap_rezalloc", 2, None, Some(1)),
            of_heap("heap_recalloc", 3, Some(2), Some(1)),
            of_heap("heap_malloc_aligned", 1, None, None),
            of_heap("heap_malloc_aligned_at", 1, None, None),
            of_heap("heap_zalloc_aligned", 1, None, None),
            of_heap("heap_zalloc_aligned_at", 1, None, None),
            of_heap("heap_calloc_aligned", 2, Some(1), None),
            of_heap("heap_calloc_aligned_at", 2, Some(1), None),
            of_heap("heap_realloc_aligned", 2, None, Some(1)),
            of_heap("heap_realloc_aligned_at", 2, None, Some(1)),
            of_heap("heap_rezalloc_aligned", 2, None, Some(1)),
            of_heap("heap_rezalloc_aligned_at", 2, None, Some(1)),
            of_heap("heap_recalloc_aligned", 3, Some(2), Some(1)),
            of_heap("heap_recalloc_aligned_at", 3, Some(2), Some(1)),
        ],
    },
    Family {
        name: "snmalloc",
        prefixes: &["sn_rust_"],
        rows: &[
            row("alloc", AlignedAlloc),
            row("alloc_zeroed", AlignedAlloc),
            Row { symbol: "realloc", function: RUST_REALLOC },
            row("dealloc", Free),
        ],
    },
    Family {
        name: PYTHON,
        prefixes: &["PyObject_", "PyMem_"],
        // Each calls the function that a table names (Objects/obmalloc.c), mostly by a jump.
        rows: &[
            jumps("Malloc", Malloc),
            jumps("Calloc", Calloc),
            jumps("Realloc", Realloc),
            row("Free", Free),
        ],
    },
    Family {
        name: "rust",
        // What programs call, the default behind it, and `#[global_allocator]`.
        prefixes: &["__rust_", "__rdl_", "__rg_"],
        rows: &[
            wraps("alloc", Function::of(Malloc)),
            wraps("alloc_zeroed", Function::of(Malloc)),
            wraps("realloc", RUST_REALLOC),
            wraps("dealloc", Function::of(Free)),
        ],
    },
    Family { name: USDT, prefixes: &["otel_memory:"], rows: &[row("alloc", Malloc), row("free", Free)] },
];

/// Symbols by which allocators are known, and whose functions a file's then are; the first that is there decides.
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

/// Finds out whose functions a file's are.
#[derive(Debug, Default)]
pub(super) struct Owner {
    mark: Cell<Option<usize>>,
}

impl Owner {
    /// Takes notice of a symbol of the file.
    pub(super) fn see(&self, symbol: &str) {
        let found = MARKS.iter().position(|(mark, _)| *mark == symbol);
        let first = [self.mark.get(), found].into_iter().flatten().min();
        self.mark.set(first);
    }

    /// Whose they are, if that is known: `glibc`, `jemalloc`, ...
    pub(super) fn name(&self, path: &Path) -> Option<&'static str> {
        match self.mark.get().map(|mark| MARKS[mark].1) {
            // musl's library shows no symbol of its own, but has its name, or stands in a directory of its own.
            None | Some("C++ runtime") if is_musl(path) => Some("musl"),
            name => name,
        }
    }
}

fn is_musl(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory =
        path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("ld-musl-")
        || name.starts_with("libc.musl-")
        || (name == "libc.so" && directory.ends_with("-musl"))
}

/// What comes before the name of Rust's interface since it is mangled (v0: crate `__rustc`).
const RUSTC_CRATE: &str = "_7___rustc";

/// The name of a symbol of Rust's interface without the mangling: `__rust_alloc` of
/// `_RNvCsfLfy6EI15iL_7___rustc12___rust_alloc`.
fn unmangled(symbol: &str) -> Option<&str> {
    let (crate_name, name) = symbol.strip_prefix("_RNv")?.split_once(RUSTC_CRATE)?;
    let name = name.trim_start_matches(|c: char| c.is_ascii_digit());
    crate_name.starts_with('C').then(|| name.strip_prefix('_').unwrap_or(name))
}

/// What is known of a symbol, and the family to which it belongs.
pub fn find(symbol: &str) -> Option<(&'static Family, Function)> {
    let symbol = unmangled(symbol).unwrap_or(symbol);
    FAMILIES.iter().find_map(|family| {
        let names = family.prefixes.iter().filter_map(|prefix| symbol.strip_prefix(prefix));
        let row = names.into_iter().find_map(|name| family.rows.iter().find(|row| row.symbol == name))?;
        Some((family, row.function))
    })
}

/// The place of a family in the table; that of what is not in it is before all.
pub(super) fn rank(family: &str) -> Option<usize> {
    FAMILIES.iter().position(|known| known.name == family)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every symbol that the table knows, with its family.
    fn symbols() -> impl Iterator<Item = (&'static str, String)> {
        FAMILIES.iter().flat_map(|family| {
            family.prefixes.iter().flat_map(move |prefix| {
                family.rows.iter().map(move |row| (family.name, format!("{prefix}{}", row.symbol)))
            })
        })
    }

    #[test]
    fn every_symbol_stands_once() {
        let all: Vec<_> = symbols().collect();
        for (index, (family, symbol)) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|(_, other)| other != symbol), "{symbol}");
            assert_eq!(find(symbol).map(|(found, _)| found.name), Some(*family));
        }
    }

    #[test]
    fn the_first_mark_says_whose_functions_these_are() {
        let owner = Owner::default();
        assert_eq!(owner.name(Path::new("/lib/ld-musl-x86_64.so.1")), Some("musl"));
        assert_eq!(owner.name(Path::new("/usr/lib/x86_64-linux-musl/libc.so")), Some("musl"));
        assert_eq!(owner.name(Path::new("/bin/program")), None);
        for symbol in ["__libc_memalign", "malloc", "mallctl", "tc_malloc"] {
            owner.see(symbol);
        }
        assert_eq!(owner.name(Path::new("/bin/program")), Some("jemalloc"));
    }

    #[test]
    fn mangled_names_of_rust_are_known() {
        let (family, function) = find("_RNvCsfLfy6EI15iL_7___rustc14___rust_dealloc").unwrap();
        assert_eq!((family.name, function.kind), ("rust", Free));
        assert_eq!(
            find("_RNvCsfLfy6EI15iL_7___rustc13___rdl_realloc").unwrap().1,
            find("__rust_realloc").unwrap().1
        );
        assert!(find("_RNvCsfLfy6EI15iL_7___rustc26___rust_alloc_error_handler").is_none());
        assert!(find("_RNvNtCs1_7___rustc5alloc4free").is_none());
    }

    /// `docs/allocators.md` has a line for each family: `| name | prefixes | functions |`.
    #[test]
    fn the_documentation_has_the_table() {
        let text = include_str!("../../../docs/allocators.md");
        let code =
            |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
        let expected: Vec<_> = FAMILIES
            .iter()
            .map(|family| {
                let prefixes = family.prefixes.iter().copied().filter(|prefix| !prefix.is_empty()).collect();
                let plain = if family.prefixes.contains(&"") { "none " } else { "" };
                let functions = family.rows.iter().map(|row| row.symbol).collect();
                let prefixes = format!("{plain}{}", code(prefixes));
                format!("| `{}` | {} | {} |", family.name, prefixes.trim(), code(functions))
            })
            .collect();
        let documented: Vec<_> = text
            .lines()
            .skip_while(|line| !line.starts_with("| family "))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert_eq!(documented, expected, "docs/allocators.md should have\n{}", expected.join("\n"));
    }
}
