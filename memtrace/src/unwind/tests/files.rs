//! Real files of the machine, compared row by row with what gimli reads.

use std::fs::File;
use std::path::{Path, PathBuf};

use gimli::{BaseAddresses, CieOrFde, EhFrame, Encoding, Format, LittleEndian, UnwindContext, UnwindSection};
use memtrace_common::unwind::{CfaRule, PackedRule, Rule};
use object::{CompressionFormat, Object, ObjectSection, ReadCache};

use super::super::rule::Reading;
use super::super::sections::Cfi;
use super::super::{Image, compile};

/// The files that this process has mapped, and a program without relation to it.
fn files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter(|line| line.contains("r-xp"))
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .collect();
    let more = ["/usr/bin/bash", "/usr/bin/python3", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"];
    files.extend(more.into_iter().map(PathBuf::from).filter(|path| path.exists()));
    assert!(files.len() >= 4, "{files:?}");
    files
}

fn compare(path: &Path) {
    let cache = ReadCache::new(File::open(path).unwrap());
    let cfi = Cfi::read(&cache).unwrap();
    let rows = compile(&cfi).unwrap();
    let image = Image::new(&rows).unwrap();
    assert_eq!(rows.counts.malformed, 0, "{}", path.display());

    let section = cfi.eh_frame.as_ref().unwrap();
    let frames = EhFrame::new(&section.data, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address);
    let mut context = UnwindContext::new();
    let (mut functions, mut compared) = (0, 0);
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        functions += 1;
        if !cfi.executable.iter().any(|range| range.contains(&fde.initial_address())) {
            continue;
        }
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
        let reading = Reading { arch: cfi.arch, section: &frames, encoding };
        let mut table = fde.rows(&frames, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let (start, end) = (row.start_address(), row.end_address());
            if start == end {
                continue;
            }
            let signal = fde.cie().is_signal_trampoline();
            let rule =
                if signal { Rule { cfa: CfaRule::Signal, ..Rule::default() } } else { reading.rule(row) };
            let expected = Some(PackedRule(rule.packed().unwrap()));
            for address in [start, start + (end - start) / 2, end - 1] {
                let found = image.lookup(address - image.base);
                assert_eq!(found, expected, "{} at {address:#x}: {row:?}", path.display());
                compared += 1;
            }
        }
    }
    assert!(compared > 3 * 10, "{}", path.display());
    assert_eq!(rows.counts.functions + rows.counts.outside, functions);
}

#[test]
fn every_row_is_found() {
    for path in files() {
        compare(&path);
    }
}

#[test]
fn code_without_information_has_no_rule() {
    let cache = ReadCache::new(File::open("/proc/self/exe").unwrap());
    let rows = compile(&Cfi::read(&cache).unwrap()).unwrap();
    let image = Image::new(&rows).unwrap();
    let end = rows.rows.last().unwrap().0;
    let none = Some(PackedRule(Rule::default().packed().unwrap()));
    assert_eq!(image.lookup(end - image.base), none);
    assert_eq!(image.lookup(image.span() - 1), none);
    assert_eq!(image.lookup(image.span()), None);
}

#[test]
fn a_file_without_section_headers_has_the_same_rows() {
    let path = files().into_iter().find(|path| path.to_string_lossy().contains("libc.so")).unwrap();
    let mut data = std::fs::read(path).unwrap();
    let with = compile(&Cfi::read(data.as_slice()).unwrap()).unwrap();
    // e_shoff, e_shnum and e_shstrndx (elf(5)).
    data[0x28..0x30].fill(0);
    data[0x3c..0x40].fill(0);
    let cfi = Cfi::read(data.as_slice()).unwrap();
    assert!(cfi.eh_frame.as_ref().unwrap().ends_at_terminator);
    assert_eq!(compile(&cfi).unwrap(), with);
}

#[test]
fn compressed_debug_frame_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (directory.path().join("a.c"), directory.path().join("a.so"));
    // So many that compressing their section makes it smaller.
    let functions = (0..50).map(|number| format!("int f{number}(int (*g)(void)) {{ return g() + 1; }}\n"));
    std::fs::write(&source, functions.collect::<String>()).unwrap();
    let flags =
        ["-shared", "-nostdlib", "-fPIC", "-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-exceptions"];
    for (compression, format) in
        [("-gz=none", CompressionFormat::None), ("-gz=zlib", CompressionFormat::Zlib)]
    {
        let mut cc = std::process::Command::new("cc");
        cc.args(flags).arg(compression).arg("-o").arg(&library).arg(&source);
        assert!(cc.status().unwrap().success());
        let cache = ReadCache::new(File::open(&library).unwrap());
        let cfi = Cfi::read(&cache).unwrap();
        assert!(cfi.debug_frame.is_some());
        let file = object::File::parse(&cache).unwrap();
        let section = file.section_by_name(".debug_frame").unwrap();
        assert_eq!(section.compressed_file_range().unwrap().format, format);
        let image = Image::new(&compile(&cfi).unwrap()).unwrap();
        assert_eq!(image.counts.functions, 50, "{compression}");
        // `sub $8,%rsp` comes first, and is four bytes long.
        let start = compile(&cfi).unwrap().rows[0].0 - image.base;
        let offset = |at: u64| image.lookup(start + at).unwrap().cfa_offset();
        assert_eq!((offset(0), offset(4)), (8, 16));
    }
}
