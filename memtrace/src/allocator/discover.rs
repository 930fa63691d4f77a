//! Finding a process's allocator functions.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use memtrace_common::{CallerRange, FunctionKind, MAX_WRAPPERS, Probe, Wrappers};

use super::{
    catalog,
    elf::FunctionSymbol,
    files::Files,
    site::{self, Site},
    straight_line::Jump,
    wrapper,
};
use crate::symbolize::{AddressSpace, Module, ModuleId, Region};

/// An allocator function of a process, where a probe is to be set.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The mapping of its code.
    pub region: Arc<Region>,
    /// The function.
    pub function: FunctionSymbol,
    /// Its first address in the process.
    pub address: u64,
    /// What the kernel program is told of it.
    pub probe: Probe,
    /// Where in the function the probe is to sit.
    pub site: Site,
}

impl Discovered {
    /// The path of the ELF, as the process sees it.
    pub fn path(&self) -> &std::path::Path {
        self.region.module().path()
    }

    /// The file, and the offset in it at which the probe is to sit.
    pub fn place(&self) -> (ModuleId, u64) {
        (self.region.module().id(), self.function.file_offset + self.site.offset)
    }

    /// The range of addresses in the process in which the function's code stands.
    pub fn address_range(&self) -> (u64, u64) {
        // Without a size, the first instruction alone.
        (self.address, self.address + self.function.size.max(1))
    }
}

/// Something that was looked at and left out.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The ELF's path in the process.
    pub path: PathBuf,
    /// The function, or `None` where the whole ELF was left out.
    pub function: Option<String>,
    /// Why: a clause that can follow "because".
    pub reason: String,
}

/// The function that dynamic loaders call before and after they change the list of loaded objects, so
/// that debuggers can follow (`r_brk` in `<link.h>`; glibc and musl name it so).
pub(super) const LOADER_HOOK: &str = "_dl_debug_state";

/// What was found in a process.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Where probes are to be set.
    pub functions: Vec<Discovered>,
    /// Where the dynamic loader tells of its work, if the process has one.
    pub loader_hook: Option<Discovered>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    wrappers: Vec<CallerRange>,
    seen: HashSet<ModuleId>,
    files: Arc<Files>,
}

impl Discovery {
    /// Nothing was looked at yet in the process; what is known of `files` need not be read again.
    pub fn sharing(files: &Arc<Files>) -> Self {
        Self { files: Arc::clone(files), ..Self::default() }
    }

    /// Finds the allocator functions in those ELF files of the process that were not looked at before.
    ///
    /// Every ELF that defines one is taken: of those that another one interposes on, none is ever called.
    pub fn update(&mut self, space: &AddressSpace) {
        for region in space.regions() {
            // One file can have several executable mappings; its functions are looked up once.
            if region.is_file() && self.seen.insert(region.module().id()) {
                self.add_module(space, region);
            }
        }
    }

    fn add_module(&mut self, space: &AddressSpace, region: &Arc<Region>) {
        let module = region.module();
        let symbols = self.files.symbols(region);
        let elf = match &*symbols {
            Ok(elf) => elf,
            Err(reason) => {
                let reason = reason.clone();
                self.skipped.push(Skipped { path: module.path().to_owned(), function: None, reason });
                return;
            }
        };
        // What wrappers in this file may call directly: every allocation function that it defines.
        let allocations: HashSet<u64> = elf
            .functions
            .iter()
            .filter(|function| {
                catalog::find(&function.name).is_some_and(|row| row.kind != FunctionKind::Free)
            })
            .map(|function| function.address)
            .collect();
        let known: HashSet<u64> = elf
            .functions
            .iter()
            .filter(|function| catalog::find(&function.name).is_some())
            .map(|function| function.address)
            .collect();
        let has_malloc = elf.functions.iter().any(|function| function.name == "malloc");
        for ((function, code), jump) in elf.functions.iter().zip(&elf.code).zip(&elf.jumps) {
            let place = space
                .regions()
                .filter(|region| region.module().id() == module.id())
                .find_map(|region| region.address_of(function.file_offset).map(|address| (region, address)));
            let Some((region, address)) = place else {
                self.skip(module, function, "its code is not mapped executable");
                continue;
            };
            let found = |probe, site| Discovered {
                region: Arc::clone(region),
                function: function.clone(),
                address,
                probe,
                site,
            };
            let Some(row) = catalog::find(&function.name) else {
                let probe = Probe { kind: FunctionKind::Free, may_jump: false, stepped: true };
                self.loader_hook = Some(found(probe, site::choose(&[], FunctionKind::Free)));
                continue;
            };
            if let Some(known) = self.functions.iter().find(|known| known.address == address) {
                let reason = format!("it is the same code as {}", known.function.name);
                self.skip(module, function, &reason);
            } else if jump.is_some_and(|jump| leads_to_one_of(jump, &known)) {
                self.skip(module, function, "it only jumps to another function, which is probed");
            } else if row.operator_new && (!has_malloc || wrapper::calls_one_of(function, code, &allocations))
            {
                self.wrappers.push(CallerRange { start: address, end: address + function.size.max(1) });
                self.skip(
                    module,
                    function,
                    "it calls another function, which is probed, and is left out of stacks",
                );
            } else if row.throws {
                self.skip(module, function, "it may throw, and a return probe would break the exception");
            } else {
                let site = site::choose(code, row.kind);
                self.functions.push(found(row.probe(&site), site));
            }
        }
    }

    fn skip(&mut self, module: &Module, function: &FunctionSymbol, reason: &str) {
        self.skipped.push(Skipped {
            path: module.path().to_owned(),
            function: Some(function.name.clone()),
            reason: reason.to_owned(),
        });
    }

    /// Where wrappers stand, whose frames are left out of stacks. The second value is how many did not fit.
    pub fn wrappers(&self) -> (Wrappers, usize) {
        let mut wrappers = Wrappers::default();
        for (place, range) in wrappers.ranges.iter_mut().zip(&self.wrappers) {
            *place = *range;
        }
        wrappers.len = self.wrappers.len().min(MAX_WRAPPERS) as u64;
        (wrappers, self.wrappers.len().saturating_sub(MAX_WRAPPERS))
    }

    /// Whether the process has a function that allocates; without one there is nothing to record.
    pub fn can_allocate(&self) -> bool {
        self.functions.iter().any(|found| found.probe.kind != FunctionKind::Free)
    }
}

/// Whether there is no point in a probe on a function that only jumps there: the other one sees the same call, with
/// the same caller. That one of another file does is taken for granted; one of the same file has to be known (musl's
/// `malloc` jumps to a function without a name).
fn leads_to_one_of(jump: Jump, known: &HashSet<u64>) -> bool {
    match jump {
        Jump::To(target) => known.contains(&target),
        Jump::ByPointer => true,
    }
}
