//! What symbolization costs: `cargo test --release --test symbolize -- --ignored --nocapture measure`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use memtrace::symbolize::{AddressSpace, Modules, Options, Symbolizer};

/// Resident memory now and at most, in KiB: all of it, and the part that is no file.
fn resident() -> (u64, u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"), field("RssAnon:"))
}

#[test]
#[ignore = "a measurement: run alone and in release mode"]
fn measure() {
    let program = std::env::var("MEASURE").unwrap_or_else(|_| "/usr/bin/python3".to_owned());
    let debug_info = std::env::var_os("MEASURE_NAMES_ONLY").is_none();
    let sleep = ["-c", "import time; time.sleep(60)"];
    let mut child = Command::new(&program).args(sleep).stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));

    let started = Instant::now();
    let mut space = AddressSpace::open(child.id(), &Modules::new()).unwrap();
    println!("address space: {} regions in {:?}", space.regions().count(), started.elapsed());
    let started = Instant::now();
    space.refresh().unwrap();
    println!("read again: {:?}", started.elapsed());

    let before = resident();
    let symbolizer = Symbolizer::start(Options { debug_info, ..Options::default() }).unwrap();
    for name in ["python3", "/libc.so"] {
        let region = space.regions().find(|region| region.to_mapping().path.contains(name)).unwrap();
        let step = (region.end() - region.start()) / 2500;
        let addresses: Vec<u64> = (0..2500).map(|index| region.start() + index * step).collect();
        let (module, offsets) = (Arc::clone(region.module()), addresses.iter());
        let offsets: Vec<u64> = offsets.map(|&address| region.file_offset_of(address)).collect();
        for attempt in ["first", "again"] {
            let started = Instant::now();
            let answers = symbolizer.resolve_blocking(vec![(Arc::clone(&module), offsets.clone())]).remove(0);
            let elapsed = started.elapsed();
            let named = answers.iter().flatten().count();
            let lines: usize = answers.iter().flatten().map(|lines| lines.len()).sum();
            let placed = answers.iter().flatten().filter(|lines| lines[0].line != 0).count();
            println!("{name} {attempt}: {elapsed:?}; {named} named, {placed} with a line, {lines} lines");
        }
    }
    let after = resident();
    std::thread::sleep(Options::default().idle + std::time::Duration::from_secs(1));
    println!(
        "resident before {before:?}, after {after:?}, idle {:?} KiB (all, peak, not of files)",
        resident()
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
