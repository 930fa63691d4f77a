//! Finding a process's allocator functions.

use std::collections::HashSet;
use std::{path::PathBuf, sync::Arc};

use memtrace_common::{CallerRange, MAX_WRAPPERS, Probe, Wrappers};

use super::{
    catalog::PYTHON,
    custom::Custom,
    elf::FunctionSymbol,
    files::Files,
    inspect::{Entry, Probed},
    selection::CUSTOM,
    site::Site,
    usdt::Usdt,
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
    /// For a function that may throw, which gets no return probe: where in the file the `ret` instructions are by
    /// which it returns. Empty for all others.
    pub rets: Vec<u64>,
    /// The interface to which the function belongs: see [`Family`](super::catalog::Family).
    pub family: &'static str,
    /// Whose function it is, where that is known: `glibc`, `jemalloc`, ...
    pub owner: Option<&'static str>,
    /// Where it is no function but a statically defined probe in the middle of one.
    pub usdt: Option<Usdt>,
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

    /// Where in the file the counter stands that the kernel is to raise while the probe is set; 0 where there is none.
    pub fn semaphore(&self) -> u64 {
        self.usdt.as_ref().and_then(|usdt| usdt.semaphore).unwrap_or_default()
    }

    /// Whose function it is, or else of which interface: the label `allocator` of stacks.
    pub fn allocator(&self) -> &'static str {
        match self.family {
            family @ (CUSTOM | "rust") => family,
            PYTHON => "pymalloc",
            family => self.owner.unwrap_or(family),
        }
    }

    /// Its name, its file, and why it has a probe: for people.
    pub fn title(&self) -> String {
        let path = self.path().display();
        format!("{} in {path} because it is of the family {}", self.function.name, self.family)
    }

    /// Where its probes sit, and why there: for people.
    pub fn site_text(&self) -> String {
        let Site { offset, instruction, reason, .. } = &self.site;
        let rets = match self.rets.len() {
            0 => String::new(),
            rets => format!(" and at {rets} `ret` instructions, as it may throw"),
        };
        if let Some(usdt) = &self.usdt {
            let handling = self.site.handling.name();
            let semaphore = usdt.semaphore.map_or("", |_| ", whose semaphore the kernel raises");
            return format!("probe site ({instruction}, {handling}: {reason}{semaphore})");
        }
        format!("probe site +{offset:#x} ({instruction}, {}: {reason}){rets}", self.site.handling.name())
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

/// What was found in a process.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Where probes are to be set.
    pub functions: Vec<Discovered>,
    /// Where the dynamic loader tells of its work, if the process has one.
    pub loader_hook: Option<Discovered>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// In how many places a Python interpreter allocates objects by copies of the functions that have probes.
    pub python_copies: u64,
    wrappers: Vec<CallerRange>,
    /// Probes of the process's own of which it is not decided whether they are used.
    usdt: Vec<Discovered>,
    seen: HashSet<ModuleId>,
    files: Arc<Files>,
    /// The names of the user's functions that were found.
    found: HashSet<String>,
}

impl Discovery {
    /// One that looks for the functions that `files` is asked for.
    pub fn new(files: &Arc<Files>) -> Self {
        Self { files: Arc::clone(files), ..Self::default() }
    }

    /// An empty one that looks for the same functions.
    pub fn anew(&self) -> Self {
        Self::new(&self.files)
    }

    /// Finds the allocator functions in those ELF files of the process that were not looked at before.
    ///
    /// Every ELF that defines one is taken: of those that another one interposes on, none is ever called.
    pub fn update(&mut self, space: &AddressSpace) {
        for region in space.regions() {
            // One file can have several executable mappings; its functions are looked up once.
            if region.is_file() && self.seen.insert(region.module().id()) {
                let module = region.module();
                if let Err(reason) = self.add_module(space, region) {
                    self.skipped.push(Skipped { path: module.path().to_owned(), function: None, reason });
                }
            }
        }
        self.decide_on_usdt();
    }

    /// Uses the probes by which the process tells of its own samples, unless functions are probed, or may come to be,
    /// by which it allocates the same blocks.
    fn decide_on_usdt(&mut self) {
        let probes = std::mem::take(&mut self.usdt);
        let allocates = |found: &Discovered| found.usdt.is_none() && !found.probe.kind.frees();
        // A program with a dynamic loader is about to have a C library.
        let has_others = self.functions.iter().any(allocates) || self.loader_hook.is_some();
        if self.files.selection().wants_only_usdt() || !has_others {
            self.functions.extend(probes);
            return;
        }
        for found in probes {
            let reason = "the process has allocator functions, which would count the same blocks again: \
                          `--allocator otel_memory` uses these probes instead";
            self.skip(found.region.module(), &found.function.name, reason);
        }
    }

    fn add_module(&mut self, space: &AddressSpace, region: &Arc<Region>) -> Result<(), String> {
        let module = region.module();
        let is_main = space.main().is_some_and(|main| main.module().id() == module.id());
        let inspection = self.files.inspection(module, is_main);
        let inspection = inspection.as_ref().as_ref().map_err(String::clone)?;
        self.python_copies += inspection.python_copies;
        self.found.extend(inspection.custom.iter().cloned());
        for (function, reason) in &inspection.skipped {
            self.skip(module, function, reason);
        }
        for (function, entry) in &inspection.entries {
            match place(space, module, function) {
                Some((region, address)) => self.add(region, address, function, entry),
                None => self.skip(module, &function.name, "its code is not mapped executable"),
            }
        }
        Ok(())
    }

    fn add(&mut self, region: &Arc<Region>, address: u64, function: &FunctionSymbol, entry: &Entry) {
        let found = |entry: &Probed| Discovered {
            region: Arc::clone(region),
            function: function.clone(),
            address,
            probe: entry.probe,
            site: entry.site.clone(),
            rets: entry.rets.clone(),
            family: entry.family,
            owner: entry.owner,
            usdt: entry.usdt.clone(),
        };
        match entry {
            Entry::Probed(entry) => self.functions.push(found(entry)),
            Entry::Usdt(entry) => self.usdt.push(found(entry)),
            Entry::LoaderHook(entry) => self.loader_hook = Some(found(entry)),
            Entry::Wrapper => {
                self.wrappers.push(CallerRange { start: address, end: address + function.size.max(1) });
            }
        }
    }

    fn skip(&mut self, module: &Module, function: &str, reason: &str) {
        self.skipped.push(Skipped {
            path: module.path().to_owned(),
            function: Some(function.to_owned()),
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

    /// Those functions of the user's that no file has so far.
    pub fn missing(&self) -> impl Iterator<Item = &Custom> {
        self.files.selection().custom.iter().filter(|custom| !self.found.contains(&custom.symbol))
    }

    /// Whether Python objects were asked for, and the process has no function that allocates such.
    pub fn misses_python(&self) -> bool {
        self.files.selection().python_objects && !self.functions.iter().any(|found| found.family == PYTHON)
    }

    /// Whether the process has a function that allocates; without one there is nothing to record.
    pub fn can_allocate(&self) -> bool {
        self.functions.iter().any(|found| !found.probe.kind.frees())
    }
}

/// The mapping in which a function's code is, and its address in the process.
fn place<'a>(
    space: &'a AddressSpace,
    module: &Module,
    function: &FunctionSymbol,
) -> Option<(&'a Arc<Region>, u64)> {
    space
        .regions()
        .filter(|region| region.module().id() == module.id())
        .find_map(|region| region.address_of(function.file_offset).map(|address| (region, address)))
}
