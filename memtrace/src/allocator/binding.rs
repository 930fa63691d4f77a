//! Which of a process's functions of one name is called, and why that one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use procfs::process::Process;
use serde::Serialize;

use super::{
    Discovered,
    linkage::{self, Linkage},
};
use crate::symbolize::{AddressSpace, ModuleId};

/// How it is known which of several definitions of a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupOrder {
    /// From what the files say they need, as the dynamic loader goes by it.
    Linked,
    /// It is not known: the files are in order of address, and the first may not be the one.
    MapOrder,
}

/// Whether a function is the one that is called by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "binding")]
pub enum Binding {
    /// It is.
    InForce {
        /// Why.
        because: Precedence,
        /// The next file that defines it, too, and whose definition is therefore not called.
        over: Option<PathBuf>,
    },
    /// Another file defines it, too, and comes first. The probe will hardly ever be hit.
    Interposed {
        /// That file.
        by: PathBuf,
    },
    /// It is not exported: only code of the same file calls it.
    Private,
}

/// Why a definition is the one that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precedence {
    /// The program is statically linked.
    Static,
    /// No other file defines it.
    Only,
    /// It is the program's own, and the dynamic loader looks there before it looks into libraries.
    Program,
    /// `LD_PRELOAD` puts its file before the libraries that the program needs.
    Preloaded,
    /// Its file comes before the others that define it, in the order in which files need each other.
    Earlier,
    /// It is in the first file by address that defines it; the true order is not known.
    FirstInMap,
}

impl Binding {
    /// The same in words.
    pub fn text(&self) -> String {
        let over = |over: &Option<PathBuf>| over.as_deref().map_or("others".to_owned(), file_name);
        match self {
            Self::InForce { because, over: other } => match because {
                Precedence::Static => "in force: the program is statically linked".to_owned(),
                Precedence::Only => "in force: no other file defines it".to_owned(),
                Precedence::Program => format!("in force: the program's own comes before {}", over(other)),
                Precedence::Preloaded => format!("in force: LD_PRELOAD puts it before {}", over(other)),
                Precedence::Earlier => format!("in force: comes before {} in lookup order", over(other)),
                Precedence::FirstInMap => "in force, if libraries are in order of address".to_owned(),
            },
            Self::Interposed { by } => format!("interposed by {}", file_name(by)),
            Self::Private => "not exported: by its own file only".to_owned(),
        }
    }
}

fn file_name(path: &Path) -> String {
    Path::new(path.file_name().unwrap_or(path.as_os_str())).display().to_string()
}

/// A process's files in the order in which symbols are looked up.
#[derive(Clone, Debug)]
pub struct Bindings {
    order: LookupOrder,
    /// Those that are not in the order of lookup come last.
    sorted: Vec<ModuleId>,
    /// How many of them, behind the first, come from `LD_PRELOAD`.
    preloaded: usize,
    linkages: HashMap<ModuleId, Linkage>,
    main: Option<ModuleId>,
}

impl Bindings {
    /// Those of a process, as its files and its environment say.
    pub fn new(space: &AddressSpace, process: Option<&Process>) -> Self {
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
        let names = process.and_then(preloaded);
        let (order, (mut sorted, preloaded)) = match (main, names) {
            (Some(main), Some(names)) => {
                (LookupOrder::Linked, linkage::lookup_order(&linkages, main, &names))
            }
            _ => (LookupOrder::MapOrder, (Vec::new(), 0)),
        };
        let rest: Vec<_> = in_map_order.into_iter().filter(|id| !sorted.contains(id)).collect();
        sorted.extend(rest);
        Self { order, sorted, preloaded, linkages, main }
    }

    /// How the order is known.
    pub fn order(&self) -> LookupOrder {
        self.order
    }

    /// The files in order.
    pub fn files(&self) -> impl Iterator<Item = (ModuleId, &Path)> {
        self.sorted.iter().filter_map(|id| Some((*id, &*self.linkages.get(id)?.path)))
    }

    /// What the executable says of itself.
    pub fn main(&self) -> Option<&Linkage> {
        self.linkages.get(&self.main?)
    }

    /// Whether a function is the one that is called by its name.
    pub fn of(&self, found: &Discovered) -> Binding {
        let own = found.region.module().id();
        let symbol = &found.function.name;
        let path = |id| self.linkages.get(id).map_or(Path::new(""), |file: &Linkage| &*file.path).to_owned();
        let exported = |id: &&ModuleId| self.linkages.get(id).is_some_and(|file| file.exports(symbol));
        let mut definitions = self.sorted.iter().filter(exported);
        match definitions.next() {
            Some(first) if *first == own => {
                let over = definitions.next().map(path);
                Binding::InForce { because: self.precedence(own, over.is_some()), over }
            }
            _ if self.main == Some(own) && self.main().is_some_and(Linkage::is_static_program) => {
                Binding::InForce { because: Precedence::Static, over: None }
            }
            Some(first) if exported(&&own) => Binding::Interposed { by: path(first) },
            _ => Binding::Private,
        }
    }

    /// Why a file that comes first does so.
    fn precedence(&self, own: ModuleId, has_others: bool) -> Precedence {
        let place = self.sorted.iter().position(|id| *id == own);
        match place {
            _ if !has_others && self.main().is_some_and(Linkage::is_static_program) => Precedence::Static,
            _ if !has_others => Precedence::Only,
            _ if self.order == LookupOrder::MapOrder => Precedence::FirstInMap,
            Some(0) => Precedence::Program,
            Some(place) if place <= self.preloaded => Precedence::Preloaded,
            _ => Precedence::Earlier,
        }
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

    #[test]
    fn a_reason_names_the_file_that_is_not_called() {
        let over = Some(PathBuf::from("/lib/libc.so.6"));
        let text = |because| Binding::InForce { because, over: over.clone() }.text();
        assert_eq!(text(Precedence::Preloaded), "in force: LD_PRELOAD puts it before libc.so.6");
        assert_eq!(text(Precedence::Program), "in force: the program's own comes before libc.so.6");
        assert_eq!(text(Precedence::Earlier), "in force: comes before libc.so.6 in lookup order");
        let interposed = Binding::Interposed { by: "/usr/lib/libjemalloc.so.2".into() };
        assert_eq!(interposed.text(), "interposed by libjemalloc.so.2");
    }
}
