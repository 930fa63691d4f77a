//! The allocator functions of one ELF file, whichever processes map it.

use std::collections::HashMap;
use std::{fs::File, sync::Arc};

use memtrace_common::{FunctionKind, Probe};
use object::ReadCache;

use super::{
    catalog::{self, Function, Owner, PYTHON},
    elf::{ElfError, ElfImage, FunctionSymbol},
    flow::Ends,
    python_copies,
    selection::{CUSTOM, Selection},
    site::{self, Site},
    straight_line,
    usdt::{self, Usdt},
    wrapper::Known,
};
use crate::symbolize::Module;

/// The function that dynamic loaders call before and after they change the list of loaded objects, so
/// that debuggers can follow (`r_brk` in `<link.h>`; glibc and musl name it so).
const LOADER_HOOK: &str = "_dl_debug_state";

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) entries: Vec<(FunctionSymbol, Entry)>,
    /// Functions that were left out, and why.
    pub(super) skipped: Vec<(String, String)>,
    /// In how many places a Python interpreter allocates objects by copies of the functions that have probes.
    pub(super) python_copies: u64,
    /// The names of the user's functions that were found.
    pub(super) custom: Vec<String>,
}

/// What a function is.
#[derive(Debug)]
pub(super) enum Entry {
    /// One that gets a probe.
    Probed(Probed),
    /// The one by which the dynamic loader tells of its work.
    LoaderHook(Probed),
    /// One that does nothing but call another, and is left out of stacks.
    Wrapper,
    /// No function, but a statically defined probe, which is used only in some processes.
    Usdt(Probed),
}

/// A function that gets a probe: see [`Discovered`](super::Discovered).
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) probe: Probe,
    pub(super) site: Site,
    pub(super) rets: Vec<u64>,
    pub(super) family: &'static str,
    pub(super) owner: Option<&'static str>,
    pub(super) usdt: Option<Usdt>,
}

/// Looks at a file; `is_main` where it is the executable of a process.
///
/// # Errors
/// Why that is not possible: a clause that can follow "because".
pub(super) fn inspect(
    module: &Module,
    is_main: bool,
    selection: &Arc<Selection>,
) -> Result<Inspection, String> {
    let path = module.open_path().map_err(|failure| failure.loss().1.to_owned())?;
    let file = File::open(path).map_err(|error| ElfError::from(error).to_string())?;
    let cache = ReadCache::new(file);
    let image = ElfImage::parse(&cache).map_err(|error| error.to_string())?;
    let find = |name: &str| selection.find(module.path(), is_main, name);
    let owner = Owner::default();
    let mut functions = image.functions(|name| {
        owner.see(name);
        name == LOADER_HOOK || find(name).is_some()
    });
    // Of names of the same code, the one that people know stands for it.
    functions.sort_by_key(|function| find(&function.name).map(|(family, _)| catalog::rank(family)));
    let known: HashMap<u64, Function> =
        functions.iter().filter_map(|function| Some((function.address, find(&function.name)?.1))).collect();
    let mut found = Inspection::default();
    if functions.iter().any(|function| find(&function.name).is_some_and(|(family, _)| family == PYTHON)) {
        found.python_copies = python_copies::count(&image, &functions);
    }
    let has_malloc = functions.iter().any(|function| function.name == "malloc");
    let known = Known::new(known, has_malloc, Arc::clone(selection));
    let inspected = Inspected { image: &image, known: &known, owner: owner.name(module.path()) };
    for function in functions {
        let Some((family, row)) = find(&function.name) else {
            found.entries.push((function, loader_hook()));
            continue;
        };
        if family == CUSTOM {
            found.custom.push(function.name.clone());
        }
        let same = found.entries.iter().find(|(other, entry)| {
            matches!(entry, Entry::Probed(_)) && other.file_offset == function.file_offset
        });
        let entry = match same {
            Some((other, _)) => Err(format!("it is the same code as {}", other.name)),
            None => inspected.entry(&function, family, row),
        };
        match entry {
            Ok(Entry::Wrapper) => {
                let reason = "it calls another function, which is probed, and is left out of stacks";
                found.skipped.push((function.name.clone(), reason.to_owned()));
                found.entries.push((function, Entry::Wrapper));
            }
            Ok(entry) => found.entries.push((function, entry)),
            Err(reason) => found.skipped.push((function.name, reason)),
        }
    }
    if selection.wants_usdt() {
        for probe in usdt::find(&image) {
            match probe {
                Ok((place, probed)) => found.entries.push((place, Entry::Usdt(probed))),
                Err(skipped) => found.skipped.push(skipped),
            }
        }
    }
    Ok(found)
}

fn loader_hook() -> Entry {
    let probe = Probe { stepped: true, ..Probe::new(FunctionKind::Free) };
    let site = site::choose(&[], FunctionKind::Free);
    Entry::LoaderHook(Probed { probe, site, rets: Vec::new(), family: "loader", owner: None, usdt: None })
}

/// One file while its functions are looked at.
struct Inspected<'a, 'c> {
    image: &'a ElfImage<'c>,
    known: &'a Known,
    owner: Option<&'static str>,
}

impl Inspected<'_, '_> {
    /// # Errors
    /// Why the function gets no probe.
    fn entry(
        &self,
        function: &FunctionSymbol,
        family: &'static str,
        mut row: Function,
    ) -> Result<Entry, String> {
        let code = self.image.code(function);
        if straight_line::only_jumps(code) && self.known.is_elsewhere(self.image, function, row) {
            return Err("it only jumps to another function, which is probed".to_owned());
        }
        let is_operator = row.may_wrap && family != "rust";
        if row.may_wrap && self.known.is_wrapper(self.image, function, row, is_operator) {
            if is_operator {
                return Ok(Entry::Wrapper);
            }
            return Err("it calls another function, which is probed".to_owned());
        }
        // Between Rust's interface and what it calls there may be any code.
        let ends = Ends::of(self.image, function.address);
        let hands_on = ends.as_ref().is_ok_and(|ends| self.known.take_over(ends, function, row));
        row.may_jump |= hands_on || (family == "rust" && !row.kind.frees());
        // Those that throw have no return probe that would end what is begun here.
        row.may_jump |=
            !row.kind.frees() && !row.throws && self.known.calls_one_that_jumps(self.image, function);
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
            let offset = |address: &u64| self.image.file_position(*address).map(|(offset, _)| offset);
            rets = ends.rets.iter().filter_map(offset).collect();
            if rets.is_empty() {
                return Err(format!("{because} it has no `ret` instruction"));
            }
            probe.at_ret = true;
        }
        Ok(Entry::Probed(Probed { probe, site, rets, family, owner: self.owner, usdt: None }))
    }
}
