//! Probes that are still there: in the target's memory, and in the kernel.
//!
//! A uprobe is an instruction overwritten in the target's memory (a breakpoint on x86-64,
//! kernel/events/uprobes.c), so a target without probes has, in every executable mapping of a file, exactly
//! that file's bytes. This check needs to know neither where memtrace puts its probes nor by which
//! interface, and other processes that are traced at the same time do not disturb it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long the kernel may take to restore the instructions after the last holder of a probe has gone.
const SETTLING: Duration = Duration::from_secs(60);

/// The places in the target's executable memory that differ from the file that is mapped there: one entry
/// per run of bytes, with its file and address.
pub fn patches(pid: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
    let maps = maps.unwrap_or_else(|error| panic!("process {pid} has gone: {error}"));
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read a process's memory");
    let mut patches = Vec::new();
    for line in maps.lines() {
        // "start-end perms offset dev inode path", proc_pid_maps(5)
        let fields: Vec<_> = line.split_whitespace().collect();
        let [range, permissions, offset, _, _, path, ..] = fields[..] else { continue };
        if !path.starts_with('/') || !permissions.contains('x') {
            continue;
        }
        let hex = |digits| u64::from_str_radix(digits, 16).expect("maps has hexadecimal numbers");
        let (start, end) = range.split_once('-').map(|(start, end)| (hex(start), hex(end))).expect("a range");
        // Its names have no leading zeros, other than maps (proc_pid_map_files(5)).
        let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        let file = file.unwrap_or_else(|error| panic!("cannot open what is mapped at {line}: {error}"));
        let mut expected = vec![0; (end - start) as usize];
        let length = read_up_to(&file, &mut expected, hex(offset));
        let mut actual = vec![0; length];
        memory.read_exact_at(&mut actual, start).expect("mapped memory is readable");
        let differs = |at: usize| at < length && expected[at] != actual[at];
        for at in (0..length).filter(|&at| differs(at) && (at == 0 || !differs(at - 1))) {
            patches.push(format!(
                "{path} at {:#x}: {:#04x} is {:#04x}",
                start + at as u64,
                expected[at],
                actual[at]
            ));
        }
    }
    patches
}

/// Asserts that no instruction of the target is patched any more, after a moment's grace.
#[track_caller]
pub fn assert_no_probe_left(pid: u32) {
    let left = settle(|| patches(pid));
    assert!(left.is_empty(), "probes are left in process {pid}: {left:#?}");
}

/// The BPF programs, maps and links that a process holds: what must go when it goes.
#[derive(Clone, Debug, Default)]
pub struct KernelObjects(Vec<(Kind, u32)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Program,
    Map,
    Link,
}

impl KernelObjects {
    /// Those that `pid` holds by a file descriptor now (proc_pid_fdinfo(5): `prog_id`, `map_id`, `link_id`).
    pub fn held_by(pid: u32) -> Self {
        let mut objects = Vec::new();
        for entry in
            std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process is running").flatten()
        {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for line in text.lines() {
                let Some((key, value)) = line.split_once(':') else { continue };
                let kind = match key {
                    "prog_id" => Kind::Program,
                    "map_id" => Kind::Map,
                    "link_id" => Kind::Link,
                    _ => continue,
                };
                objects.push((kind, value.trim().parse().expect("an id is a number")));
            }
        }
        Self(objects)
    }

    /// Asserts that there are programs among them, and that the kernel knows them all: the other side of
    /// [`Self::assert_gone`], which could otherwise succeed by not looking.
    #[track_caller]
    pub fn assert_present(&self) {
        self.assert_programs();
        assert!(
            self.0.iter().all(|&(kind, id)| exists(kind, id)),
            "the kernel does not know all of {self:?}"
        );
    }

    /// Asserts that there are programs among them: where links come and go, not all may still be known.
    #[track_caller]
    pub fn assert_programs(&self) {
        assert!(self.0.iter().any(|(kind, _)| *kind == Kind::Program), "no BPF program is held: {self:?}");
    }

    /// Asserts that none of them exists any more, after a moment's grace.
    #[track_caller]
    pub fn assert_gone(&self) {
        let left = settle(|| self.0.iter().copied().filter(|&(kind, id)| exists(kind, id)).collect());
        assert!(left.is_empty(), "still in the kernel: {left:?}");
    }
}

/// Whether the kernel has an object of this id: whether it is the next one after its predecessor.
fn exists(kind: Kind, id: u32) -> bool {
    // enum bpf_cmd of include/uapi/linux/bpf.h: BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID
    let command = match kind {
        Kind::Program => 11,
        Kind::Map => 12,
        Kind::Link => 31,
    };
    // The attribute: start_id, next_id, open_flags.
    let mut attribute = [id - 1, 0u32, 0u32];
    // SAFETY: the attribute is valid, writable and as long as stated for the duration of the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(&attribute)) };
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::ENOENT), "bpf({command}) failed: {error}");
    result == 0 && attribute[1] == id
}

/// Looks again until nothing is left or the grace is over.
fn settle<T>(mut look: impl FnMut() -> Vec<T>) -> Vec<T> {
    let limit = Instant::now() + SETTLING;
    loop {
        let left = look();
        if left.is_empty() || Instant::now() > limit {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads at `offset` until the buffer is full or the file ends; how much was read.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64).expect("a mapped file is readable")
        {
            0 => break,
            count => length += count,
        }
    }
    length
}
