//! The names of code that a process has generated, from the map that its JIT compiler writes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use procfs::process::Process;

use super::pace::Pace;
use super::perf_map::PerfMap;
use super::root::Root;

/// So much is read of a process's maps in all, however often they are begun anew: a target must not be
/// able to keep memtrace busy, or to fill its memory. Node.js writes about a megabyte.
const MAX_BYTES: u64 = 64 << 20;

/// A line that is longer than this is no line, and does not wait for its end.
const MAX_LINE: usize = 64 << 10;

/// The generated code of one program of one process.
///
/// The map is `/tmp/perf-N.map` in the process's own root, where N is its id in its own PID namespace: the
/// name that the process itself makes. It is read when the first address in generated code is seen, and
/// again whenever an address is not in it and it has grown. A name that was found stays, because the
/// compiler may put other code there later.
///
/// The map is only believed if it is a regular file (no link) that belongs to the process's user or to
/// root: `/tmp` is everybody's. What it says is used for anonymous executable memory of this process
/// alone, never for code that has a file.
#[derive(Debug)]
pub(super) struct Generated {
    root: Arc<Root>,
    path: PathBuf,
    /// Who may have written the map.
    owners: [u32; 3],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    map: PerfMap,
    /// Which file was read, how far, and its size then.
    read: Option<Reading>,
    /// How many bytes may still be read.
    budget: u64,
    found: HashMap<u64, Arc<str>>,
    pace: Pace,
    refusal: Option<Refusal>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    device: u64,
    inode: u64,
    end: u64,
    size: u64,
}

/// Why a map is not used, or only in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It belongs to another user, or is no regular file.
    Untrusted,
    /// More than [`MAX_BYTES`] were written; the rest is not read.
    TooLarge,
}

/// What could not be used of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) bad_lines: u64,
    pub(super) dropped: u64,
    pub(super) refusal: Option<Refusal>,
}

impl Generated {
    /// The generated code of `process`, whose root is `root`. Nothing is read yet.
    pub(super) fn of(process: &Process, root: &Arc<Root>) -> Option<Arc<Self>> {
        let status = process.status().ok()?;
        // The innermost namespace is the last, and the only one where the kernel does not say (proc(5)).
        let own = status.nspid.as_ref().and_then(|ids| ids.last()).unwrap_or(&status.pid);
        let path = PathBuf::from(format!("/tmp/perf-{own}.map"));
        Some(Self::at(Arc::clone(root), path, [status.euid, status.ruid, 0]))
    }

    fn at(root: Arc<Root>, path: PathBuf, owners: [u32; 3]) -> Arc<Self> {
        let state = State {
            map: PerfMap::default(),
            read: None,
            budget: MAX_BYTES,
            found: HashMap::new(),
            pace: Pace::new(Instant::now()),
            refusal: None,
        };
        Arc::new(Self { root, path, owners, state: Mutex::new(state) })
    }

    /// The function at `address`, if the map has it now or had it when the address was first asked for.
    pub(super) fn name(&self, address: u64) -> Option<Arc<str>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = state.found.get(&address) {
            return Some(Arc::clone(name));
        }
        if state.map.name(address).is_none() && state.pace.allows(Instant::now()) {
            // A map that is not there is the usual case: the frame is counted as one without a name.
            if let Err(error) = self.read_on(&mut state) {
                tracing::debug!("{} is not read: {error}", self.path.display());
            }
        }
        let name = Arc::clone(state.map.name(address)?);
        state.found.insert(address, Arc::clone(&name));
        Some(name)
    }

    /// What could not be used so far.
    pub(super) fn unusable(&self) -> Unusable {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Unusable { bad_lines: state.map.bad_lines, dropped: state.map.dropped, refusal: state.refusal }
    }

    /// Reads what has been added to the map since it was last read.
    fn read_on(&self, state: &mut State) -> io::Result<()> {
        let mut file: File = match self.root.open_own_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                state.refusal = Some(Refusal::Untrusted);
                return Err(error);
            }
            file => file?,
        };
        let metadata = file.metadata()?;
        if !self.owners.contains(&metadata.uid()) {
            state.refusal = Some(Refusal::Untrusted);
            return Err(io::Error::other(format!("it belongs to user {}", metadata.uid())));
        }
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
        let begin = match state.read {
            Some(read) if (read.device, read.inode) == (device, inode) && read.size <= size => {
                if read.size == size {
                    return Ok(());
                }
                read.end
            }
            // Another file, or it was begun anew.
            _ => {
                let earlier = std::mem::take(&mut state.map);
                (state.map.bad_lines, state.map.dropped) = (earlier.bad_lines, earlier.dropped);
                0
            }
        };
        if size - begin > state.budget {
            state.refusal = Some(Refusal::TooLarge);
        }
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.take(state.budget.min(size - begin)).read_to_end(&mut text)?;
        let mut taken = state.map.add(&text);
        if text.len() - taken > MAX_LINE {
            state.map.bad_lines += 1;
            taken = text.len();
        }
        state.budget -= text.len() as u64;
        state.read = Some(Reading { device, inode, end: begin + taken as u64, size });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;

    fn generated(path: &Path, owners: [u32; 3]) -> Arc<Generated> {
        let root = Root::open(&Process::myself().unwrap()).unwrap();
        Generated::at(Arc::new(root), path.to_owned(), owners)
    }

    fn me() -> [u32; 3] {
        [std::fs::metadata("/proc/self").unwrap().uid(); 3]
    }

    fn name(generated: &Generated, address: u64) -> Option<String> {
        generated.name(address).map(|name| name.to_string())
    }

    #[test]
    fn a_map_is_read_again_when_it_has_grown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        let generated = generated(&path, me());
        assert_eq!(name(&generated, 0x1000), None);
        let mut file = File::create(&path).unwrap();
        write!(file, "1000 10 one\n2000 10 tw").unwrap();
        assert_eq!(name(&generated, 0x1000).as_deref(), Some("one"));
        assert_eq!(name(&generated, 0x2000), None);
        write!(file, "o\n1000 10 other\n").unwrap();
        assert_eq!(name(&generated, 0x2000).as_deref(), Some("two"));
        // This address was asked for when other code was there.
        assert_eq!(name(&generated, 0x1000).as_deref(), Some("one"));
        assert_eq!(name(&generated, 0x1001).as_deref(), Some("other"));
        assert_eq!(generated.unusable(), Unusable::default());
    }

    #[test]
    fn a_map_that_was_begun_anew_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        let generated = generated(&path, me());
        std::fs::write(&path, "1000 10 one\n2000 10 two\n").unwrap();
        assert_eq!(name(&generated, 0x1000).as_deref(), Some("one"));
        std::fs::write(&path, "nonsense\n3000 10 new\n").unwrap();
        assert_eq!(name(&generated, 0x3000).as_deref(), Some("new"));
        assert_eq!(name(&generated, 0x2000), None);
        assert_eq!(generated.unusable().bad_lines, 1);
    }

    #[test]
    fn a_map_of_another_user_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        std::fs::write(&path, "1000 10 one\n").unwrap();
        let generated = generated(&path, [me()[0] + 1; 3]);
        assert_eq!(name(&generated, 0x1000), None);
        assert_eq!(generated.unusable().refusal, Some(Refusal::Untrusted));
    }

    #[test]
    fn a_link_and_a_pipe_are_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let (map, link) = (directory.path().join("map"), directory.path().join("perf-1.map"));
        std::fs::write(&map, "1000 10 one\n").unwrap();
        std::os::unix::fs::symlink(&map, &link).unwrap();
        let linked = generated(&link, me());
        assert_eq!(name(&linked, 0x1000), None);
        assert_eq!(linked.unusable().refusal, Some(Refusal::Untrusted));
        std::fs::remove_file(&link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&link).status().unwrap().success());
        // Opening it would wait for a writer.
        let pipe = generated(&link, me());
        assert_eq!(name(&pipe, 0x1000), None);
        assert_eq!(pipe.unusable().refusal, Some(Refusal::Untrusted));
    }

    #[test]
    fn only_so_much_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perf-1.map");
        std::fs::write(&path, "1000 10 one\n").unwrap();
        // A hole: without a limit it would take the memory that it claims.
        let file = File::options().append(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let generated = generated(&path, me());
        assert_eq!(name(&generated, 0x1000).as_deref(), Some("one"));
        let unusable = Unusable { bad_lines: 1, dropped: 0, refusal: Some(Refusal::TooLarge) };
        assert_eq!(generated.unusable(), unusable);
        (&file).write_all(b"\n2000 10 two\n").unwrap();
        assert_eq!(name(&generated, 0x2000), None);
    }
}
