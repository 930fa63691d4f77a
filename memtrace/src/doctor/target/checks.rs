//! The checks of one process.

use std::{
    collections::HashSet, ffi::CString, fs, os::linux::fs::MetadataExt, os::unix::ffi::OsStringExt,
    path::Path,
};

use memtrace_common::FunctionKind;
use procfs::{KernelVersion, process::Process};

use super::functions::Inside;
use crate::{
    allocator::{Discovered, Discovery, Linkage, LookupOrder},
    doctor::{
        check::{Check, Need},
        kernel, privileges,
        trial::{self, TrialError},
    },
    report::units,
    symbolize::{AddressSpace, Error, Failure},
};

/// Whether the process is in a container. Nothing depends on it: its files are opened through `/proc`.
pub(super) fn namespaces(process: Option<&Process>) -> Check {
    let check = Check::useful("target_namespaces", "namespaces", "saying where the process lives", "");
    let Some(process) = process else { return check.unknown("cannot be read") };
    let differs = |kind: &str| {
        let inode = |path: String| fs::metadata(path).ok().map(|metadata| metadata.st_ino());
        let theirs = inode(format!("/proc/{}/ns/{kind}", process.pid))?;
        Some(theirs != inode(format!("/proc/self/ns/{kind}"))?)
    };
    let inner = process.status().ok().and_then(|status| status.nspid?.last().copied());
    match (differs("pid"), differs("mnt")) {
        (Some(true), _) => {
            let inner = inner.map(|pid| format!(" (its number there is {pid})")).unwrap_or_default();
            check.ok(format!("a container: it has a PID namespace of its own{inner}; it is traced all the same"))
        }
        (Some(false), Some(true)) => check.ok(
            "a mount namespace of its own (a service with private directories, or a container); it is traced all \
             the same",
        ),
        (Some(false), Some(false)) => check.ok("memtrace's own: not in a container"),
        _ => check.unknown("cannot be read without CAP_SYS_PTRACE"),
    }
}

/// The first kernels with a system call for return probes, and the first that lets it pass all filters.
const UNSAFE_RETURNS: std::ops::Range<KernelVersion> =
    KernelVersion { major: 6, minor: 11, patch: 0 }..KernelVersion { major: 6, minor: 14, patch: 0 };

/// On x86-64, return probes enter the kernel through the system call `uretprobe` since Linux 6.11
/// (arch/x86/kernel/uprobes.c). Until 6.14 (kernel/seccomp.c, `__seccomp_filter`) a filter that does not
/// know it ends the process; some stable updates of the older ones have the correction, too.
pub(super) fn seccomp(process: Option<&Process>, release: &str) -> Check {
    let check = Check::useful("target_seccomp", "seccomp", "return probes that do the target no harm", "");
    let mode = process.and_then(|process| process.status().ok()?.seccomp);
    let risky = kernel::version(release).is_some_and(|version| UNSAFE_RETURNS.contains(&version));
    match mode {
        None => check.unknown("cannot be read"),
        Some(0) => check.ok("no filter"),
        Some(_) if risky && cfg!(target_arch = "x86_64") => check.missing(
            "a filter, on a kernel of which some versions end such a process at the first return probe",
            "do not trace this process before the kernel is at least 6.14 or an update that lets `uretprobe` pass \
             seccomp filters, unless its filter allows that system call",
        ),
        Some(_) => check.ok("a filter; this kernel lets probes pass it"),
    }
}

fn mappings_check() -> Check {
    Check::required("target_mappings", "mappings", "finding the target's code")
}

/// The mappings cannot be read.
pub(super) fn unreadable(error: &Error) -> Check {
    let remedy = match error {
        Error::Permission(_) => privileges::remedy(),
        _ => "look whether the process is still there: ps -e".to_owned(),
    };
    mappings_check().failed(error, |_| remedy)
}

/// The mappings could be read, and possibly the files.
pub(super) fn mappings(space: &AddressSpace) -> Check {
    let check = mappings_check();
    let failed = |failure| {
        let modules = space.regions().filter(|region| region.is_file()).map(|region| region.module());
        let failed: HashSet<_> =
            modules.filter(|it| it.open_path() == Err(failure)).map(|it| it.id()).collect();
        failed.len()
    };
    let files = files(space);
    let (unreadable, too_many) = (failed(Failure::Unreadable), failed(Failure::TooManyFiles));
    if unreadable + too_many == 0 {
        return check.ok(format!("{} with code", counted(files, "file")));
    }
    let without = "allocation functions in these files are not traced";
    let check = Check { need: Need::Useful, without, ..check };
    let remedy = if unreadable > 0 {
        privileges::remedy()
    } else {
        "raise the limit of open files: ulimit -n 65536".to_owned()
    };
    check.missing(format!("{} of {files} files with code cannot be opened", unreadable + too_many), remedy)
}

fn counted(number: usize, thing: &str) -> String {
    units::counted(number as i128, thing)
}

fn files(space: &AddressSpace) -> usize {
    let ids: HashSet<_> =
        space.regions().filter(|region| region.is_file()).map(|region| region.module().id()).collect();
    ids.len()
}

/// What kind of program it is.
pub(super) fn program(main: Option<&Linkage>) -> Vec<Check> {
    let class = Check::required("target_class", "program", "reading the arguments of functions");
    let Some(main) = main else {
        return vec![class.unknown("its file cannot be read")];
    };
    if main.is_32_bit {
        let detail = "32-bit: its functions take their arguments in a way that memtrace does not read";
        return vec![class.missing(detail, "use a 64-bit build of the program")];
    }
    let linked = if main.is_static_program() { "statically linked" } else { "dynamically linked" };
    let mut checks = vec![class.ok(format!("64-bit, {linked}"))];
    if main.is_go {
        let check = Check::useful(
            "target_go",
            "Go",
            "tracing all of the program's heap",
            "only what its C code allocates (cgo) is seen",
        );
        checks.push(check.missing(
            "a Go program: the native Go heap is not traced yet",
            "for the Go heap use Go's own profile (net/http/pprof)",
        ));
    }
    checks
}

/// Whether there is anything to trace.
pub(super) fn allocator(discovery: &Discovery, inside: &Inside, space: &AddressSpace) -> Check {
    let check =
        Check::required("target_allocator", "allocator", "knowing where memory is allocated and freed");
    if !discovery.can_allocate() && inside.bindings.main().is_some_and(|main| main.is_go) {
        return check.blocked("a Go program without C code: it has nothing that memtrace traces yet");
    }
    let main = inside.bindings.main();
    if !discovery.can_allocate() && main.is_some_and(Linkage::is_stripped_static_program) {
        return check.missing(
            "the program is statically linked and stripped: its allocator is inside, and no symbol says where",
            "keep the program's symbol table (`strip --strip-debug` leaves it) or link it dynamically; of the process as \
             it is only its size can be watched (VmRSS in /proc/PID/status)",
        );
    }
    if !discovery.can_allocate() {
        return check.missing(
            format!(
                "none of its files ({} with code) defines malloc or another function that memtrace knows",
                files(space)
            ),
            "if the program is statically linked, keep its symbol table (do not strip it) or link it dynamically; name an \
             allocator of its own by --alloc and --free",
        );
    }
    let functions = discovery.functions.len();
    let count = inside.files.len();
    let in_force = inside.in_force().map_or_else(String::new, |file| {
        let name = file.allocator.map(|name| format!("{name}, ")).unwrap_or_default();
        let how = match inside.bindings.order() {
            LookupOrder::Linked => "first in lookup order",
            LookupOrder::MapOrder => "first in map order; the lookup order is not known",
        };
        let how = if count > 1 { format!(" ({how})") } else { String::new() };
        format!("; in force: {name}{}{how}", file.path.display())
    });
    check.ok(format!("{} in {}{in_force}", counted(functions, "function"), counted(count, "file")))
}

/// Sets one probe in each file, and takes it off again.
pub(super) fn probes(discovery: &Discovery, pmu: Option<u32>, pid: u32) -> Check {
    let check = Check::required("target_probes", "probes", "seeing its calls");
    let Some(pmu) = pmu else {
        return check.unknown("cannot be tried where no probe works");
    };
    let mut places: Vec<&Discovered> = Vec::new();
    for found in &discovery.functions {
        let same_file = |place: &&mut &Discovered| place.region.module().id() == found.region.module().id();
        match places.iter_mut().find(same_file) {
            Some(place) if rarity(found) > rarity(place) => *place = found,
            Some(_) => {}
            None => places.push(found),
        }
    }
    for found in &places {
        if let Err(error) = probe(found, pmu, pid) {
            let path = found.path().display();
            return check.failed(&error, |errno| match errno {
                Some(libc::EPERM | libc::EACCES) => privileges::remedy(),
                Some(libc::ESRCH) => "the process has ended meanwhile; name another one".to_owned(),
                _ => format!(
                    "move {path} to a file system of the disk or memory: some (network, FUSE) take no probes"
                ),
            });
        }
    }
    check.ok(match places.len() {
        1 => "one was set in this file and taken off again".to_owned(),
        files => format!("one was set in each of the {files} files and taken off again"),
    })
}

fn probe(found: &Discovered, pmu: u32, pid: u32) -> Result<(), TrialError> {
    let gone = |_| TrialError::Attach(std::io::Error::from_raw_os_error(libc::ENOENT));
    let path = found.region.module().open_path().map_err(gone)?;
    let path = CString::new(path.into_os_string().into_vec())
        .map_err(|error| TrialError::Attach(std::io::Error::from(error)))?;
    trial::on_file(pmu, &path, found.function.file_offset, found.semaphore(), pid)
}

/// The higher, the more rarely programs call it.
fn rarity(found: &Discovered) -> u8 {
    match found.probe.kind {
        FunctionKind::AlignedAlloc | FunctionKind::PosixMemalign | FunctionKind::Other => 5,
        FunctionKind::ReallocArray => 4,
        FunctionKind::Realloc => 3,
        FunctionKind::Calloc => 2,
        FunctionKind::Malloc => 1,
        FunctionKind::Free | FunctionKind::OtherFree => 0,
    }
}

/// Whether libraries that are loaded later will be noticed.
pub(super) fn loader(discovery: &Discovery, main: Option<&Linkage>) -> Check {
    let check = Check::useful(
        "target_loader",
        "dynamic loader",
        "noticing libraries that are loaded later",
        "allocation functions in libraries that are loaded later are not traced",
    );
    let name = |path: &Path| path.display().to_string();
    match (&discovery.loader_hook, main) {
        (Some(hook), _) => check.ok(format!("{} in {}", hook.function.name, name(hook.path()))),
        (None, Some(main)) if main.is_static_program() => check.ok("none, as the program is statically linked"),
        (None, _) => check.missing(
            "its function _dl_debug_state was not found",
            "attach after the program has loaded its libraries, or use `memtrace record -- CMD` with a loader that \
             keeps the symbol",
        ),
    }
}
