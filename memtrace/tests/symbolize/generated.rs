//! Code that no file holds: that of the kernel in every process, and what a process generates itself.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use memtrace::profile::Profile;
use memtrace::symbolize::{AddressSpace, Frame, Modules, Names, Options, Symbolizer};
use object::{Object, ObjectSymbol};

use crate::fixture::Program;

/// First and last address of this process's vDSO.
fn vdso() -> std::ops::Range<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
    u64::from_str_radix(start, 16).unwrap()..u64::from_str_radix(end, 16).unwrap()
}

fn space() -> AddressSpace {
    AddressSpace::open(std::process::id(), &Modules::new()).unwrap()
}

/// The profile of one stack.
fn profile(frames: &[Frame], mut names: Names) -> Profile {
    let mut profile = Profile::heap(1, SystemTime::now(), Duration::ZERO);
    names.resolve_blocking(frames);
    names.interner(&mut profile).add_sample(frames, vec![1, 1, 1, 1], vec![]);
    names.add_losses(&mut profile.losses);
    profile
}

fn names() -> Names {
    Names::new(Symbolizer::start(Options::default()).unwrap())
}

fn functions(profile: &Profile) -> Vec<&str> {
    profile.functions.iter().map(|function| function.name.as_str()).collect()
}

fn losses(profile: &Profile) -> Vec<(&str, u64)> {
    profile.losses.iter().map(|loss| (loss.name, loss.count)).collect()
}

#[test]
fn functions_of_the_vdso_have_names() {
    let vdso = vdso();
    let mut image = vec![0; (vdso.end - vdso.start) as usize];
    std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, vdso.start).unwrap();
    let elf = object::File::parse(image.as_slice()).unwrap();
    let symbols: Vec<_> = elf.dynamic_symbols().filter(|symbol| symbol.size() > 8).collect();
    let clock = symbols.iter().find(|symbol| symbol.name().unwrap().ends_with("clock_gettime")).unwrap();
    // Some functions have two names, one of them with a prefix.
    let same = symbols.iter().filter(|symbol| symbol.address() == clock.address());
    let expected: Vec<_> = same.map(|symbol| symbol.name().unwrap()).collect();

    // Its first bytes are headers, which belong to no function.
    let frames = space().normalize(&[vdso.start + clock.address() + 5, vdso.start + 100]);
    let profile = profile(&frames, names());
    let functions = functions(&profile);
    assert!(expected.contains(&functions[0]), "{functions:?} {expected:?}");
    assert_eq!(functions[1], "[vdso]");
    let paths: Vec<_> = profile.mappings.iter().map(|mapping| mapping.path.as_str()).collect();
    assert_eq!((paths, losses(&profile)), (vec!["[vdso]"], vec![]));
    assert_eq!(profile.mappings[0].build_id.len(), 40);
}

#[test]
fn the_vdso_is_one_module_for_all_processes() {
    let modules = Modules::new();
    let own = AddressSpace::open(std::process::id(), &modules).unwrap();
    let child = Program::start(Command::new("sh").args(["-c", "echo ready; read line"]));
    let other = AddressSpace::open(child.pid(), &modules).unwrap();
    let id = |space: &AddressSpace| {
        let mut regions = space.regions();
        regions.find(|region| region.to_mapping().path == "[vdso]").unwrap().module().id()
    };
    assert_eq!(id(&own), id(&other));
}

/// A page of anonymous executable memory: its first address.
fn generate() -> u64 {
    // SAFETY: a new anonymous mapping, which nothing else refers to.
    let page = unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    page as u64
}

/// `/tmp/perf-PID.map` of this process; gone when dropped. Only one test may write it.
struct PerfMap(PathBuf);

impl PerfMap {
    fn write(text: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn generated_code_has_the_names_of_its_map_or_a_reason() {
    let code = generate();
    let frames = space().normalize(&[code + 0x11]);
    let without = profile(&frames, names());
    assert_eq!(without.mappings[0].path, "[anon]");
    assert_eq!((functions(&without), losses(&without)), (vec![], vec![("frames_without_file", 1)]));

    // A line about code that has a file must not rename it.
    let own = generated_code_has_the_names_of_its_map_or_a_reason as *const () as u64;
    let text =
        format!("{code:x} 20 compiled one\n{:x} 20 compiled two\nrubbish\n{own:x} 1000 lie\n", code + 32);
    let _map = PerfMap::write(&text);
    let frames = space().normalize(&[code + 0x11, code + 0x31, code + 0x51, own + 2]);
    let profile = profile(&frames, names());
    let found = functions(&profile);
    assert_eq!(found[..2], ["compiled one", "compiled two"]);
    assert!(found[2..].iter().all(|name| !name.contains("lie")), "{found:?}");
    assert_eq!(losses(&profile), [("frames_without_file", 1), ("perf_map_lines_invalid", 1)]);

    // Nobody could find these names later, so they are given also where no others are.
    let unnamed = self::profile(&frames, Names::off());
    assert_eq!(functions(&unnamed), ["compiled one", "compiled two"]);
}
