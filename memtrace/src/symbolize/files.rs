//! Finds the file behind a mapping when the process is not there: by path and build-id, on this machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::debuginfod::{Debuginfod, Kind};
use super::elf::Elf;
use super::failure::Failure;
use super::module::Module;
use super::modules::Modules;
use super::root::regular_file_at;

/// Where programs and libraries are looked for.
///
/// In this order: in each of `directories` (as `BUILD-ID/NAME`, at the whole path, and by name alone, which
/// is how pprof looks into `PPROF_BINARY_PATH`), at the path itself, by build-id where Fedora keeps links
/// to programs, and at last on a debuginfod server. A file counts only if it has the build-id.
#[derive(Debug, Default)]
pub struct Files {
    /// Directories that hold programs of other machines.
    pub directories: Vec<PathBuf>,
    /// Where to ask for programs that are not on this machine; `None` asks nobody.
    pub debuginfod: Option<Arc<Debuginfod>>,
}

impl Files {
    /// The file that was mapped from `path` and has `build_id` (in hex). Where the build-id is empty, only the
    /// path tells that it is the same file.
    ///
    /// # Errors
    /// [`Failure::Absent`] if there is none; other failures if it cannot be used.
    pub fn find(&self, path: &Path, build_id: &str, modules: &Modules) -> Result<Arc<Module>, Failure> {
        let found = self.candidates(path, build_id).into_iter().find_map(|candidate| {
            let file = regular_file_at(&candidate).ok()?;
            let matches = build_id.is_empty() || is_file_of(&file, build_id);
            matches.then_some((candidate, file))
        });
        let (found, file) = match found {
            Some(found) => found,
            None => (path.to_owned(), self.download(path, build_id).ok_or(Failure::Absent)?),
        };
        let module = modules.file(&found, Ok(file), None);
        module.file()?;
        Ok(module)
    }

    fn candidates(&self, path: &Path, build_id: &str) -> Vec<PathBuf> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let mut candidates = Vec::new();
        for directory in &self.directories {
            if let Some(name) = path.file_name() {
                if !build_id.is_empty() {
                    candidates.push(directory.join(build_id).join(name));
                }
                candidates.push(directory.join(below));
                candidates.push(directory.join(name));
            }
        }
        candidates.push(path.to_owned());
        if let Some((first, rest)) = build_id.split_at_checked(2)
            && !rest.is_empty()
        {
            for directory in ["/usr/lib", "/usr/lib/debug"] {
                candidates.push(Path::new(directory).join(".build-id").join(first).join(rest));
            }
        }
        candidates
    }

    fn download(&self, path: &Path, build_id: &str) -> Option<File> {
        let servers = self.debuginfod.as_ref()?;
        servers.find(&bytes(build_id)?, Kind::Executable, &path.to_string_lossy())
    }
}

fn is_file_of(file: &File, build_id: &str) -> bool {
    let wanted = bytes(build_id);
    Elf::read(file).is_ok_and(|elf| Some(elf.build_id) == wanted)
}

/// The bytes of a build-id in hex.
fn bytes(build_id: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        build_id.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let pairs = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a build-id, which the test binary may not have.
    fn libc() -> (PathBuf, String) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("/libc.so")).unwrap();
        let path = PathBuf::from(&line[line.find('/').unwrap()..]);
        let id = Elf::read(&File::open(&path).unwrap()).unwrap().build_id;
        (path, id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn build_ids_are_pairs_of_digits() {
        assert_eq!(bytes("00ff7A"), Some(vec![0, 255, 0x7a]));
        for wrong in ["", "0", "0g", "abc", "Ä0"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_counts_only_with_its_build_id() {
        let modules = Modules::with_max_open(8);
        let (path, id) = libc();
        let files = Files::default();
        assert_eq!(files.find(&path, &id, &modules).unwrap().build_id(), id);
        assert_eq!(files.find(&path, "", &modules).unwrap().build_id(), id);
        let other = id.replace(&id[..1], if &id[..1] == "0" { "1" } else { "0" });
        assert_eq!(files.find(&path, &other, &modules).unwrap_err(), Failure::Absent);
        assert_eq!(files.find(Path::new("/no/such"), &id, &modules).unwrap_err(), Failure::Absent);
        assert_eq!(files.find(Path::new("/dev/zero"), "", &modules).unwrap_err(), Failure::Absent);
        assert_eq!(files.find(Path::new("/etc/passwd"), "", &modules).unwrap_err(), Failure::Malformed);
    }

    #[test]
    fn directories_are_searched_as_pprof_does() {
        let (path, id) = libc();
        let name = path.file_name().unwrap();
        for place in [Path::new(&id).join(name), PathBuf::from("opt/app").join(name), PathBuf::from(name)] {
            let directory = tempfile::tempdir().unwrap();
            let copy = directory.path().join(place);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(&path, &copy).unwrap();
            let files = Files { directories: vec![directory.path().to_owned()], ..Files::default() };
            let modules = Modules::with_max_open(8);
            let found = files.find(&Path::new("/opt/app").join(name), &id, &modules).unwrap();
            assert_eq!(found.path(), copy);
        }
    }
}
