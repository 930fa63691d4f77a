//! Finding a process's allocator functions.

use std::collections::{HashMap, HashSet};
use std::{fs::File, path::PathBuf, sync::Arc};

use memtrace_common::{CallerRange, FunctionKind, MAX_WRAPPERS, Probe, Wrappers};
use object::ReadCache;

use super::{
    catalog::{self, Function, Owner, PYTHON},
    custom::Custom,
    elf::{ElfError, ElfImage, FunctionSymbol},
    flow::Ends,
    python_copies,
    selection::{CUSTOM, Selection},
    site::{self, Site},
    straight_line,
    wrapper::Known,
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

/// The function that dynamic loaders call before and after they change the list of loaded objects, so
/// that debuggers can follow (`r_brk` in `<link.h>`; glibc and musl name it so).
const LOADER_HOOK: &str = "_dl_debug_state";

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
    seen: HashSet<ModuleId>,
    selection: Arc<Selection>,
    /// The names of the user's functions that were found.
    found: HashSet<String>,
}

/// One file while its functions are looked at.
struct Inspected<'a, 'c> {
    space: &'a AddressSpace,
    module: &'a Module,
    image: &'a ElfImage<'c>,
    known: &'a Known,
    owner: Option<&'static str>,
}

impl Discovery {
    /// One that looks for these functions.
    pub fn new(selection: Arc<Selection>) -> Self {
        Self { selection, ..Self::default() }
    }

    /// An empty one that looks for the same functions.
    pub fn anew(&self) -> Self {
        Self::new(Arc::clone(&self.selection))
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
    }

    fn add_module(&mut self, space: &AddressSpace, region: &Arc<Region>) -> Result<(), String> {
        let module = region.module();
        let path = module.open_path().map_err(|failure| failure.loss().1.to_owned())?;
        let file = File::open(path).map_err(|error| ElfError::from(error).to_string())?;
        let cache = ReadCache::new(file);
        let image = ElfImage::parse(&cache).map_err(|error| error.to_string())?;
        let selection = Arc::clone(&self.selection);
        let is_main = space.main().is_some_and(|main| main.module().id() == module.id());
        let find = |name: &str| selection.find(module.path(), is_main, name);
        let owner = Owner::default();
        let mut functions = image.functions(|name| {
            owner.see(name);
            name == LOADER_HOOK || find(name).is_some()
        });
        // Of names of the same code, the one that people know stands for it.
        functions.sort_by_key(|function| find(&function.name).map(|(family, _)| catalog::rank(family)));
        let known: HashMap<u64, Function> = functions
            .iter()
            .filter_map(|function| Some((function.address, find(&function.name)?.1)))
            .collect();
        if functions.iter().any(|function| find(&function.name).is_some_and(|(family, _)| family == PYTHON)) {
            self.python_copies += python_copies::count(&image, &functions);
        }
        let has_malloc = functions.iter().any(|function| function.name == "malloc");
        let known = Known::new(known, has_malloc, Arc::clone(&selection));
        let owner = owner.name(module.path());
        let file = Inspected { space, module, image: &image, known: &known, owner };
        for function in &functions {
            if find(&function.name).is_some_and(|(family, _)| family == CUSTOM) {
                self.found.insert(function.name.clone());
            }
            let result = match find(&function.name) {
                Some((family, known)) => self.add_function(&file, function, family, known),
                None => self.add_loader_hook(&file, function),
            };
            if let Err(reason) = result {
                self.skip(module, function, &reason);
            }
        }
        Ok(())
    }

    fn add_loader_hook(&mut self, file: &Inspected<'_, '_>, function: &FunctionSymbol) -> Result<(), String> {
        let (region, address) = file.place(function)?;
        let probe = Probe { stepped: true, ..Probe::new(FunctionKind::Free) };
        let site = site::choose(&[], FunctionKind::Free);
        let (region, function) = (Arc::clone(region), function.clone());
        let (rets, family, owner) = (Vec::new(), "loader", None);
        self.loader_hook = Some(Discovered { region, function, address, probe, site, rets, family, owner });
        Ok(())
    }

    /// # Errors
    /// Why the function gets no probe.
    fn add_function(
        &mut self,
        file: &Inspected<'_, '_>,
        function: &FunctionSymbol,
        family: &'static str,
        mut row: Function,
    ) -> Result<(), String> {
        let (region, address) = file.place(function)?;
        if let Some(known) = self.functions.iter().find(|known| known.address == address) {
            return Err(format!("it is the same code as {}", known.function.name));
        }
        let code = file.image.code(function);
        if straight_line::only_jumps(code) && file.known.is_elsewhere(file.image, function, row) {
            return Err("it only jumps to another function, which is probed".to_owned());
        }
        let is_operator = row.may_wrap && family != "rust";
        if row.may_wrap && file.known.is_wrapper(file.image, function, row, is_operator) {
            if is_operator {
                self.wrappers.push(CallerRange { start: address, end: address + function.size.max(1) });
                return Err(
                    "it calls another function, which is probed, and is left out of stacks".to_owned()
                );
            }
            return Err("it calls another function, which is probed".to_owned());
        }
        // Between Rust's interface and what it calls there may be any code.
        let ends = Ends::of(file.image, function.address);
        let hands_on = ends.as_ref().is_ok_and(|ends| file.known.take_over(ends, function, row));
        row.may_jump |= hands_on || (family == "rust" && !row.kind.frees());
        // Those that throw have no return probe that would end what is begun here.
        row.may_jump |=
            !row.kind.frees() && !row.throws && file.known.calls_one_that_jumps(file.image, function);
        let site = site::choose(code, row.kind);
        let mut probe = row.probe(&site);
        let mut rets = Vec::new();
        if row.throws {
            let because = "it may throw, so a return probe would break the exception, and";
            let ends =
                ends.map_err(|reason| format!("{because} its `ret` instructions are not known: {reason}"))?;
            if row.may_jump {
                return Err(format!("{because} it hands calls on to another function by a jump"));
            }
            let offset = |address: &u64| file.image.file_position(*address).map(|(offset, _)| offset);
            rets = ends.rets.iter().filter_map(offset).collect();
            if rets.is_empty() {
                return Err(format!("{because} it has no `ret` instruction"));
            }
            probe.at_ret = true;
        }
        let (region, function) = (Arc::clone(region), function.clone());
        let owner = file.owner;
        self.functions.push(Discovered { region, function, address, probe, site, rets, family, owner });
        Ok(())
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

    /// Those functions of the user's that no file has so far.
    pub fn missing(&self) -> impl Iterator<Item = &Custom> {
        self.selection.custom.iter().filter(|custom| !self.found.contains(&custom.symbol))
    }

    /// Whether Python objects were asked for, and the process has no function that allocates such.
    pub fn misses_python(&self) -> bool {
        self.selection.python_objects && !self.functions.iter().any(|found| found.family == PYTHON)
    }

    /// Whether the process has a function that allocates; without one there is nothing to record.
    pub fn can_allocate(&self) -> bool {
        self.functions.iter().any(|found| !found.probe.kind.frees())
    }
}

impl<'a> Inspected<'a, '_> {
    /// The mapping in which a function's code is, and its address in the process.
    fn place(&self, function: &FunctionSymbol) -> Result<(&'a Arc<Region>, u64), String> {
        self.space
            .regions()
            .filter(|region| region.module().id() == self.module.id())
            .find_map(|region| region.address_of(function.file_offset).map(|address| (region, address)))
            .ok_or_else(|| "its code is not mapped executable".to_owned())
    }
}
