//! A process's allocation functions, and which of them are called.

use std::path::PathBuf;

use memtrace_common::FunctionKind;
use procfs::process::Process;
use serde::{Serialize, Serializer};

use crate::{
    allocator::{Binding, Bindings, Discovered, Discovery},
    symbolize::AddressSpace,
};

/// A file that has allocation functions.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its path, as the process sees it.
    pub path: PathBuf,
    /// Whose functions they are, where that is known: `glibc`, `jemalloc`, ...
    pub allocator: Option<&'static str>,
    /// The functions, in order of address.
    pub functions: Vec<FunctionReport>,
}

/// A function that gets a probe.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionReport {
    /// The name in the symbol table.
    pub symbol: String,
    /// The same for people: `operator new(unsigned long)`.
    pub name: String,
    /// What it does with its arguments: the C function that it is like.
    pub kind: &'static str,
    /// Where it is in the process.
    #[serde(serialize_with = "hex")]
    pub address: u64,
    /// Where it is in the file.
    #[serde(serialize_with = "hex")]
    pub file_offset: u64,
    /// How far into the function its probe sits, in bytes.
    pub site_offset: u64,
    /// The instruction there.
    pub site_instruction: String,
    /// How the kernel goes on after the probe was hit, which decides what it costs.
    pub site_handling: &'static str,
    /// Why the probe sits there.
    pub site_reason: &'static str,
    /// How many probes sit on `ret` instructions, for a function that may throw; each call passes one of them.
    pub ret_probes: usize,
    /// The family to which it belongs, see `docs/allocators.md`.
    pub family: &'static str,
    /// How often it was called while that was counted; `None` where it was not.
    pub calls: Option<u64>,
    /// Whether it is the one that is called by that name.
    #[serde(flatten)]
    pub binding: Binding,
}

fn hex<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#x}"))
}

/// A process's files.
pub(super) struct Inside {
    pub(super) bindings: Bindings,
    pub(super) files: Vec<FileReport>,
}

impl Inside {
    pub(super) fn new(space: &AddressSpace, process: Option<&Process>, discovery: &Discovery) -> Self {
        let bindings = Bindings::new(space, process);
        let files = bindings.files().filter_map(|(id, path)| {
            let of_file = |found: &&Discovered| found.region.module().id() == id;
            let mut found: Vec<_> = discovery.functions.iter().filter(of_file).collect();
            found.sort_by_key(|found| found.address);
            let allocator = found.first()?.owner;
            let functions = found.into_iter().map(|found| function(found, bindings.of(found))).collect();
            Some(FileReport { path: path.to_owned(), allocator, functions })
        });
        let files = files.collect();
        Self { bindings, files }
    }

    /// The file whose `malloc` is called, or the first that has any allocation function.
    pub(super) fn in_force(&self) -> Option<&FileReport> {
        let has_malloc = |file: &&FileReport| {
            let in_force =
                |it: &FunctionReport| it.symbol == "malloc" && matches!(it.binding, Binding::InForce { .. });
            file.functions.iter().any(in_force)
        };
        self.files.iter().find(has_malloc).or(self.files.first())
    }
}

fn function(found: &Discovered, binding: Binding) -> FunctionReport {
    let symbol = &found.function.name;
    FunctionReport {
        symbol: symbol.clone(),
        name: demangled(symbol),
        kind: kind(found.probe.kind),
        address: found.address,
        file_offset: found.function.file_offset,
        site_offset: found.site.offset,
        site_instruction: found.site.instruction.clone(),
        site_handling: found.site.handling.name(),
        site_reason: found.site.reason,
        ret_probes: found.rets.len(),
        family: found.family,
        calls: None,
        binding,
    }
}

/// For symbols of the catalog only: of others, this would have to be bounded.
pub(in crate::doctor) fn demangled(symbol: &str) -> String {
    let parsed = symbol.starts_with("_Z").then(|| cpp_demangle::BorrowedSymbol::new(symbol.as_bytes()).ok());
    match parsed.flatten().map(|parsed| parsed.demangle()) {
        Some(Ok(name)) => name,
        _ => symbol.to_owned(),
    }
}

fn kind(kind: FunctionKind) -> &'static str {
    match kind {
        FunctionKind::Malloc => "malloc",
        FunctionKind::Calloc => "calloc",
        FunctionKind::Realloc => "realloc",
        FunctionKind::ReallocArray => "reallocarray",
        FunctionKind::AlignedAlloc => "aligned_alloc",
        FunctionKind::PosixMemalign => "posix_memalign",
        FunctionKind::Free => "free",
        FunctionKind::Other => "malloc, with its arguments in another order",
        FunctionKind::OtherFree => "free, with its arguments in another order",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::{LookupOrder, Precedence};
    use crate::symbolize::Modules;

    #[test]
    fn names_of_operators_are_readable() {
        assert_eq!(demangled("_Znwm"), "operator new(unsigned long)");
        assert_eq!(demangled("malloc"), "malloc");
    }

    #[test]
    fn our_own_malloc_is_in_force() {
        let space = AddressSpace::open(std::process::id(), &Modules::new()).unwrap();
        let mut discovery = Discovery::default();
        discovery.update(&space);
        let inside = Inside::new(&space, Process::myself().ok().as_ref(), &discovery);
        assert_eq!(inside.bindings.order(), LookupOrder::Linked);
        let file = inside.in_force().unwrap();
        assert_eq!(file.allocator, Some("glibc"));
        let malloc = file.functions.iter().find(|function| function.symbol == "malloc").unwrap();
        assert_eq!(malloc.kind, "malloc");
        let because = Precedence::Only;
        assert!(matches!(&malloc.binding, Binding::InForce { because: it, .. } if *it == because));
    }
}
