//! A process's allocation functions, and which of them are called.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use memtrace_common::FunctionKind;
use procfs::process::Process;
use serde::{Serialize, Serializer};

use crate::{
    allocator::{Discovered, Discovery},
    doctor::linkage::{self, Linkage},
    symbolize::{AddressSpace, ModuleId},
};

/// How it is known which of several definitions of a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupOrder {
    /// From what the files say they need, as the dynamic loader goes by it.
    Linked,
    /// It is not known: the files are in order of address, and the first may not be the one.
    MapOrder,
}

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
    /// Whether it is the one that is called by that name.
    #[serde(flatten)]
    pub binding: Binding,
}

/// Whether a function is the one that is called by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "binding")]
pub enum Binding {
    /// It is the first in the lookup order, or the program is statically linked.
    InForce,
    /// Another file defines it, too, and comes first. The probe will hardly ever be hit.
    Interposed {
        /// That file.
        by: PathBuf,
    },
    /// It is not exported: only code of the same file calls it.
    Private,
}

fn hex<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#x}"))
}

/// A process's files.
pub(super) struct Inside {
    pub(super) order: LookupOrder,
    pub(super) files: Vec<FileReport>,
    linkages: HashMap<ModuleId, Linkage>,
    main: Option<ModuleId>,
}

impl Inside {
    pub(super) fn new(space: &AddressSpace, process: Option<&Process>, discovery: &Discovery) -> Self {
        let mut linkages = HashMap::new();
        let mut in_map_order = Vec::new();
        for region in space.regions().filter(|region| region.is_file()) {
            let module = region.module();
            linkages.entry(module.id()).or_insert_with(|| {
                in_map_order.push(module.id());
                Linkage::read(module)
            });
        }
        let main = space.main().map(|region| region.module().id());
        let preloaded = process.and_then(preloaded);
        let (order, mut sorted) = match (main, preloaded) {
            (Some(main), Some(names)) => {
                (LookupOrder::Linked, linkage::lookup_order(&linkages, main, &names))
            }
            _ => (LookupOrder::MapOrder, Vec::new()),
        };
        let rest: Vec<_> = in_map_order.into_iter().filter(|id| !sorted.contains(id)).collect();
        sorted.extend(rest);

        let files = sorted
            .iter()
            .filter_map(|id| {
                let linkage = linkages.get(id)?;
                let mut found: Vec<_> =
                    discovery.functions.iter().filter(|found| found.region.module().id() == *id).collect();
                found.sort_by_key(|found| found.address);
                let functions: Vec<_> =
                    found.into_iter().map(|found| function(found, *id, main, &sorted, &linkages)).collect();
                let report =
                    FileReport { path: linkage.path.clone(), allocator: linkage.allocator, functions };
                (!report.functions.is_empty()).then_some(report)
            })
            .collect();
        Self { order, files, linkages, main }
    }

    /// What the executable says of itself.
    pub(super) fn main(&self) -> Option<&Linkage> {
        self.linkages.get(&self.main?)
    }

    /// The file whose `malloc` is called, or the first that has any allocation function.
    pub(super) fn in_force(&self) -> Option<&FileReport> {
        let has_malloc = |file: &&FileReport| {
            let in_force = |it: &FunctionReport| it.symbol == "malloc" && it.binding == Binding::InForce;
            file.functions.iter().any(in_force)
        };
        self.files.iter().find(has_malloc).or(self.files.first())
    }
}

fn function(
    found: &Discovered,
    own: ModuleId,
    main: Option<ModuleId>,
    order: &[ModuleId],
    linkages: &HashMap<ModuleId, Linkage>,
) -> FunctionReport {
    let symbol = &found.function.name;
    let exported = |id: &&ModuleId| linkages.get(id).is_some_and(|file| file.exports(symbol));
    let binding = match order.iter().find(exported) {
        Some(first) if *first == own => Binding::InForce,
        _ if main == Some(own) && linkages.get(&own).is_some_and(Linkage::is_static_program) => {
            Binding::InForce
        }
        _ if !linkages.get(&own).is_some_and(|file| file.exports(symbol)) => Binding::Private,
        Some(first) => Binding::Interposed {
            by: linkages.get(first).map_or(Path::new(""), |file| &file.path).to_owned(),
        },
        None => Binding::Private,
    };
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

/// The libraries that were loaded before those that the executable needs, or `None` where that cannot
/// be known: the environment is not readable, or the system preloads libraries of its own.
fn preloaded(process: &Process) -> Option<Vec<String>> {
    let system = format!("/proc/{}/root/etc/ld.so.preload", process.pid);
    if std::fs::metadata(system).is_ok_and(|metadata| metadata.len() > 0) {
        return None;
    }
    let environment = process.environ().ok()?;
    let names = environment.get(std::ffi::OsStr::new("LD_PRELOAD")).map(|names| names.to_string_lossy());
    let names = names.as_deref().unwrap_or_default();
    Some(names.split([' ', ':']).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(inside.order, LookupOrder::Linked);
        let file = inside.in_force().unwrap();
        assert_eq!(file.allocator, Some("glibc"));
        let malloc = file.functions.iter().find(|function| function.symbol == "malloc").unwrap();
        assert_eq!((malloc.kind, &malloc.binding), ("malloc", &Binding::InForce));
    }
}
