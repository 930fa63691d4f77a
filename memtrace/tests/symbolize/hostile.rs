//! Files that are made to break a symbolizer, or are just broken.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use memtrace::symbolize::{AddressSpace, Failure, Frame, Modules, Options, Symbolizer};

use crate::fixture::{MARK, Program, WAIT, brief, compile, resolve, resolve_mark};

fn build(directory: &Path, flags: &[&str]) -> std::path::PathBuf {
    let source = format!(
        "{MARK}\n__attribute__((noinline)) void target(void) {{ MARK(\"here\"); }}\n\
         int main(void) {{ target(); {WAIT} }}\n"
    );
    compile(directory, "hostile.c", &source, "gcc", flags)
}

/// Sets the size of every symbol to the largest number, on which blazesym's arithmetic overflows.
fn oversize_symbols(path: &Path) {
    let output = Command::new("readelf").args(["-SW".as_ref(), path.as_os_str()]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.contains(" .symtab ")).unwrap();
    let numbers: Vec<_> = line
        .split("SYMTAB")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .map(|hex| usize::from_str_radix(hex, 16))
        .collect();
    let (offset, size) = (numbers[1].clone().unwrap(), numbers[2].clone().unwrap());
    let mut bytes = std::fs::read(path).unwrap();
    for symbol in bytes[offset..offset + size].chunks_exact_mut(24).skip(1) {
        symbol[16..].fill(0xff);
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_panic_is_caught_counted_and_does_not_spread() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), &["-O1", "-g0"]);
    oversize_symbols(&path);
    let bad = Program::start(&mut Command::new(&path));
    let good_directory = tempfile::tempdir().unwrap();
    let good = Program::start(&mut Command::new(build(good_directory.path(), &["-O1", "-g"])));

    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    let bad_frame = bad.space().normalize(&[bad.address("here")]).remove(0);
    let good_frame = good.space().normalize(&[good.address("here")]).remove(0);
    let expected = [("target", "hostile.c", good.marks["here"].1)];
    assert_eq!(brief(&resolve(&symbolizer, &good_frame).unwrap()), expected);
    let outcome = resolve(&symbolizer, &bad_frame);
    // Only a build with overflow checks panics on such a file.
    if cfg!(debug_assertions) {
        assert_eq!(outcome, Err(Failure::Panicked));
        assert_eq!(symbolizer.counts().restarts, 1);
    }
    assert_eq!(brief(&resolve(&symbolizer, &good_frame).unwrap()), expected);
    // The bad source is not tried again.
    assert!(resolve(&symbolizer, &bad_frame).is_err() || !cfg!(debug_assertions));
    assert!(symbolizer.counts().restarts <= 1);
}

#[test]
fn bad_debug_information_costs_the_lines_and_not_the_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), &["-O1", "-g"]);
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, vec![0xa5; 4096]).unwrap();
    for section in ["info", "abbrev", "aranges"] {
        let update = format!("--update-section=.debug_{section}={}", garbage.display());
        crate::fixture::run(Command::new("objcopy").arg(update).arg(&path));
    }
    let program = Program::start(&mut Command::new(&path));
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    let frame = program.space().normalize(&[program.address("here")]).remove(0);
    assert_eq!(brief(&resolve(&symbolizer, &frame).unwrap()), [("target", "", 0)]);
    assert_eq!(symbolizer.counts().bad_sources + symbolizer.counts().restarts, 1);
}

#[test]
fn a_compressed_section_that_claims_all_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = build(directory.path(), &["-O1", "-g", "-gz=zlib"]);
    let output = Command::new("readelf").args(["-SW".as_ref(), path.as_os_str()]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.contains(" .debug_info ")).unwrap();
    let offset = line.split_whitespace().skip_while(|word| *word != "PROGBITS").nth(2).unwrap();
    let offset = usize::from_str_radix(offset, 16).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // ch_size of Elf64_Chdr: 1 TiB.
    bytes[offset + 8..offset + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let program = Program::start(&mut Command::new(&path));
    assert_eq!(resolve_mark(&program, "here", Options::default()), Err(Failure::Malformed));
}

/// A small generator, so that a failure can be repeated (Steele, Lea & Flood 2014, SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).unwrap()
    }
}

#[test]
fn damaged_files_do_not_end_the_symbolizer() {
    let directory = tempfile::tempdir().unwrap();
    let original = std::fs::read(build(directory.path(), &["-O2", "-g"])).unwrap();
    let symbolizer = Symbolizer::start(Options { max_cached_modules: 4, ..Options::default() }).unwrap();
    let loader = directory.path().join("mapped");
    let mut random = Random(1);
    for round in 0..300 {
        let mut bytes = original.clone();
        // The first two pages are headers, where a byte does the most harm; the rest is DWARF.
        for _ in 0..1 + random.below(16) {
            let at = if random.below(2) == 0 { random.below(1024) } else { random.below(bytes.len()) };
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        std::fs::remove_file(&loader).ok();
        std::fs::write(&loader, &bytes).unwrap();
        let frames = map_and_normalize(&loader, bytes.len());
        let offsets: Vec<u64> = (0..bytes.len() as u64).step_by(97).collect();
        if let Some((module, _)) = frames.first().and_then(Frame::place) {
            let answers = symbolizer.resolve_blocking(vec![(Arc::clone(module), offsets)]);
            assert!(!answers[0].contains(&Err(Failure::Stopped)), "round {round}");
        }
    }
}

/// Maps the file into this very process and gives its frame.
fn map_and_normalize(path: &Path, length: usize) -> Vec<Frame> {
    if length == 0 {
        return Vec::new();
    }
    let file = std::fs::File::open(path).unwrap();
    // SAFETY: a new mapping of a file that nobody changes; it is never read here.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED);
    let mut space = AddressSpace::open(std::process::id(), &Modules::with_max_open(64)).unwrap();
    let frame = space.locate(address as u64);
    // SAFETY: the mapping made above, to which nothing refers.
    unsafe { libc::munmap(address, length) };
    vec![frame]
}
