//! Reads the executable mappings of a process from `/proc/PID/maps` (proc(5)).
//!
//! The parser is procfs's. It is given only what it can parse: executable lines, as UTF-8. A file name
//! is chosen by the target and may be any bytes, and one bad line must not hide all the others.

use std::io::Read;

use procfs::process::{MMapPath, MemoryMaps, Process};
use procfs::{FromBufRead, ProcError};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapLine {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) file_offset: u64,
    /// Device and inode as the kernel prints them. On btrfs and overlayfs they may differ from
    /// those of stat(2), so they only tell whether a line is still the same.
    pub(super) device: (i32, i32),
    pub(super) inode: u64,
    /// The path without ` (deleted)`, or a name in brackets.
    pub(super) path: String,
    pub(super) deleted: bool,
}

impl MapLine {
    /// Whether a file stands behind the mapping.
    pub(super) fn is_file(&self) -> bool {
        self.inode != 0 && self.path.starts_with('/')
    }

    /// Whether the mapping is memory in which a process may have put code: anonymous memory, also where
    /// the kernel shows it as a file (the kernel's tools/perf/util/map.c, `is_anon_memory`).
    pub(super) fn is_memory(&self) -> bool {
        const FILES: [&str; 4] = ["/memfd:", "/dev/zero", "/anon_hugepage", "/SYSV"];
        const KERNEL: [&str; 4] = ["[vdso]", "[vvar]", "[vsyscall]", "[uprobes]"];
        FILES.iter().any(|file| self.path.starts_with(file))
            || (!self.path.starts_with('/') && !KERNEL.contains(&self.path.as_str()))
    }
}

/// The executable mappings in order of address, and whether there was any mapping at all: a process
/// that has exited and a kernel thread have none.
pub(super) fn executable(process: &Process) -> Result<(Vec<MapLine>, bool), ProcError> {
    let mut bytes = Vec::new();
    process.open_relative("maps")?.read_to_end(&mut bytes)?;
    let any = !bytes.is_empty();
    Ok((parse(&String::from_utf8_lossy(&bytes))?, any))
}

fn parse(text: &str) -> Result<Vec<MapLine>, ProcError> {
    let mut input = String::new();
    for line in text.lines().filter(|line| is_executable(line)) {
        // procfs slices such a path without looking whether it is one of System V shared memory.
        match line.split_once("/SYSV") {
            Some((fields, key)) if !is_key(key) => input.extend([fields, "/./SYSV", key]),
            _ => input.push_str(line),
        }
        input.push('\n');
    }
    let maps = MemoryMaps::from_buf_read(input.as_bytes())?;
    Ok(maps.0.into_iter().map(line).collect())
}

/// Whether the second field, e.g. `r-xp`, has the `x`.
fn is_executable(line: &str) -> bool {
    line.split(' ').nth(1).is_some_and(|permissions| permissions.as_bytes().get(2) == Some(&b'x'))
}

fn is_key(key: &str) -> bool {
    key.len() >= 8 && key.bytes().take(8).all(|byte| byte.is_ascii_hexdigit())
}

fn line(map: procfs::process::MemoryMap) -> MapLine {
    let mut path = match map.pathname {
        MMapPath::Path(path) => path.to_string_lossy().into_owned(),
        MMapPath::Heap => "[heap]".to_owned(),
        MMapPath::Stack | MMapPath::TStack(_) => "[stack]".to_owned(),
        MMapPath::Vdso => "[vdso]".to_owned(),
        MMapPath::Vvar => "[vvar]".to_owned(),
        MMapPath::Vsyscall => "[vsyscall]".to_owned(),
        MMapPath::Rollup => "[rollup]".to_owned(),
        MMapPath::Anonymous => "[anon]".to_owned(),
        MMapPath::Vsys(key) => format!("/SYSV{key:08x}"),
        MMapPath::Other(name) => format!("[{name}]"),
    };
    let deleted = path.ends_with(" (deleted)");
    if deleted {
        path.truncate(path.len() - " (deleted)".len());
    }
    MapLine {
        start: map.address.0,
        end: map.address.1,
        file_offset: map.offset,
        device: map.dev,
        inode: map.inode,
        path,
        deleted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_executable_lines_in_order() {
        let text = "\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 77 /usr/bin/x
55d0c0001000-55d0c0002000 r-xp 00001000 fe:01 77 /usr/bin/x (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7ffd2d5f2000-7ffd2d5f4000 r-xp 00000000 00:00 0                          [vdso]
";
        let lines = parse(text).unwrap();
        let seen: Vec<_> = lines.iter().map(|line| (line.path.as_str(), line.deleted)).collect();
        assert_eq!(seen, [("/usr/bin/x", true), ("[anon]", false), ("[vdso]", false)]);
        assert_eq!((lines[0].start, lines[0].end), (0x55d0_c000_1000, 0x55d0_c000_2000));
        assert_eq!((lines[0].file_offset, lines[0].inode, lines[0].device), (0x1000, 77, (0xfe, 1)));
        assert!(lines[0].is_file() && !lines[1].is_file() && !lines[2].is_file());
        assert!(!lines[0].is_memory() && lines[1].is_memory() && !lines[2].is_memory());
    }

    #[test]
    fn names_that_look_like_shared_memory_do_no_harm() {
        let text = "1000-2000 r-xp 0 00:01 5 /SYSV\n2000-3000 r-xp 0 00:01 6 /SYSVhello\u{e4}\u{e4}world\n\
                    3000-4000 r-xp 0 00:01 7 /SYSV0000beef (deleted)\n";
        let paths: Vec<_> = parse(text).unwrap().into_iter().map(|line| line.path).collect();
        assert_eq!(paths, ["/./SYSV", "/./SYSVhello\u{e4}\u{e4}world", "/SYSV0000beef"]);
    }

    #[test]
    fn own_process_has_code() {
        let (lines, any) = executable(&Process::myself().unwrap()).unwrap();
        let here = own_process_has_code as *const () as u64;
        assert!(any);
        assert!(lines.iter().any(|line| line.is_file() && (line.start..line.end).contains(&here)));
    }
}
