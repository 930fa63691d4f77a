//! The programs for uprobe links that carry many probes. aya cannot load them, so they are taken from the
//! same object, bound to the maps that aya has made, and loaded here.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use anyhow::anyhow;
use aya::{Ebpf, maps::Map};
use aya_obj::{Object, btf::BtfFeatures};

use super::{
    AttachMode, LoadError, object,
    sys::{self, AttachType, Code, MultiLink},
};

/// Which part of a function's run a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Entry of a free function.
    Free,
    /// Entry of an allocation function; in session mode also its return.
    AllocationEntry,
    /// Return of an allocation function; not in session mode.
    AllocationReturn,
    /// Entry of the dynamic loader's function for debuggers.
    Loader,
    /// Entry of an allocation function that may throw.
    ThrowingEntry,
    /// The `ret` instructions of such a function.
    ThrowingReturn,
    /// A statically defined probe: the process has allocated one of its own samples.
    UsdtAllocated,
    /// The same: it has freed one.
    UsdtFreed,
}

impl Leg {
    /// Those whose programs are loaded when they are needed.
    const LATE: [Self; 4] = [Self::ThrowingEntry, Self::ThrowingReturn, Self::UsdtAllocated, Self::UsdtFreed];

    fn at_return(self) -> bool {
        self == Self::AllocationReturn
    }

    /// The program for a perf event.
    pub fn perf_program(self) -> &'static str {
        match self {
            Self::Free => "free_entry",
            Self::AllocationEntry | Self::ThrowingEntry => "allocate_entry",
            Self::ThrowingReturn => "allocate_ret",
            Self::AllocationReturn => "allocate_return",
            Self::Loader => "loader_changed",
            Self::UsdtAllocated => "usdt_allocated",
            Self::UsdtFreed => "usdt_freed",
        }
    }

    /// The program and what it is loaded as; `None` where the mode has none, or has it only [late](Self::LATE).
    fn program(self, mode: AttachMode) -> Option<(&'static str, AttachType)> {
        match (self, mode) {
            (_, AttachMode::Perf)
            | (Self::AllocationReturn, AttachMode::Session)
            | (Self::ThrowingEntry | Self::ThrowingReturn | Self::UsdtAllocated | Self::UsdtFreed, _) => None,
            (Self::Loader, _) => Some(("loader_changed", AttachType::Multi)),
            (Self::Free, _) => Some(("free_entry", AttachType::Multi)),
            (Self::AllocationEntry, AttachMode::Session) => Some(("allocate_session", AttachType::Session)),
            (Self::AllocationEntry, AttachMode::Multi) => Some(("allocate_entry", AttachType::Multi)),
            (Self::AllocationReturn, AttachMode::Multi) => Some(("allocate_return", AttachType::Multi)),
        }
    }
}

/// Where probes are to be set in one file.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The file.
    pub path: &'a CStr,
    /// Offsets in the file, each that of an instruction.
    pub offsets: &'a [u64],
    /// What the kernel program is told at each.
    pub cookies: &'a [u64],
    /// Where in the file the counter stands that the kernel raises for each, 0 for none; empty for none at all.
    pub semaphores: &'a [u64],
}

/// The loaded programs.
pub struct MultiPrograms {
    programs: HashMap<Leg, (OwnedFd, AttachType)>,
    late: HashMap<Leg, OnceLock<OwnedFd>>,
    object: Object,
    btf: Option<OwnedFd>,
}

impl MultiPrograms {
    /// Loads the programs of a mode, which use the maps of `ebpf`.
    pub(super) fn load(ebpf: &Ebpf, mode: AttachMode) -> Result<Self, LoadError> {
        let (object, btf) = relocated(ebpf).map_err(LoadError::Relocation)?;
        let mut programs = HashMap::new();
        for leg in [Leg::Free, Leg::AllocationEntry, Leg::AllocationReturn, Leg::Loader] {
            let Some((name, attach_type)) = leg.program(mode) else { continue };
            let code = code(&object, name).ok_or(LoadError::Missing(name))?;
            let fd = sys::load(name, &code, btf.as_ref(), attach_type)
                .map_err(|source| LoadError::MultiProgram { name, source })?;
            programs.insert(leg, (fd, attach_type));
        }
        let late = Leg::LATE.into_iter().map(|leg| (leg, OnceLock::new())).collect();
        Ok(Self { programs, late, object, btf })
    }

    /// The program of a leg; one that few targets need is loaded when it is first asked for, because the verifier
    /// takes its time.
    fn program(&self, leg: Leg) -> io::Result<Option<(&OwnedFd, AttachType)>> {
        let Some(late) = self.late.get(&leg) else {
            return Ok(self.programs.get(&leg).map(|(fd, attach_type)| (fd, *attach_type)));
        };
        if let Some(fd) = late.get() {
            return Ok(Some((fd, AttachType::Multi)));
        }
        let name = leg.perf_program();
        let code = code(&self.object, name).ok_or_else(|| io::Error::other(LoadError::Missing(name)))?;
        let fd = sys::load(name, &code, self.btf.as_ref(), AttachType::Multi)?;
        Ok(Some((late.get_or_init(|| fd), AttachType::Multi)))
    }

    /// Sets probes for one leg in process `pid`. They are there until the descriptor is closed. `None` where the mode has no probes for this leg.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn attach(&self, leg: Leg, places: &Places<'_>, pid: u32) -> io::Result<Option<OwnedFd>> {
        let Some((program, attach_type)) = self.program(leg)? else { return Ok(None) };
        let Places { path, offsets, cookies, semaphores } = *places;
        let at_return = leg.at_return();
        let link = MultiLink { program, attach_type, at_return, path, offsets, cookies, semaphores, pid };
        link.create().map(Some)
    }
}

fn code<'a>(object: &'a Object, name: &str) -> Option<Code<'a>> {
    let program = object.programs.get(name)?;
    let function = object.functions.get(&program.function_key())?;
    Some(Code {
        instructions: &function.instructions,
        license: &program.license,
        functions: &function.func_info.func_info,
    })
}

/// The object with its references to maps and functions resolved, and its types as the kernel has them.
fn relocated(ebpf: &Ebpf) -> anyhow::Result<(Object, Option<OwnedFd>)> {
    let mut object = Object::parse(object::bytes())?;
    let btf = match object.fixup_and_sanitize_btf(aya::features().btf().unwrap_or(&BtfFeatures::default()))? {
        Some(btf) => Some(sys::load_btf(&btf.to_bytes())?),
        None => None,
    };
    let mut maps = Vec::new();
    for (name, map) in &object.maps {
        let loaded = ebpf.map(name).ok_or_else(|| anyhow!("no map {name} is loaded"))?;
        let fd = descriptor(loaded).ok_or_else(|| anyhow!("map {name} is of an unexpected type"))?;
        maps.push((name.clone(), fd.as_raw_fd(), map.clone()));
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)?;
    object.relocate_calls(&text)?;
    Ok((object, btf))
}

/// The descriptor of a map of one of the types that the kernel program uses.
pub(super) fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ArrayOfMaps(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}
