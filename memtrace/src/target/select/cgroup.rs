//! Cgroups of version 1 and 2.

use std::path::{Path, PathBuf};

use procfs::{
    ProcessCGroup,
    process::{MountInfo, Process},
};

use super::Roots;

/// A cgroup, with all that are below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    hierarchy: Hierarchy,
    /// As `/proc/PID/cgroup` has it: relative to the root of memtrace's cgroup namespace (cgroup_namespaces(7)).
    pub(super) path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Whichever.
    Any,
    /// Version 2.
    Unified,
    /// The one of version 1 that has these controllers (or `name=`), among other options.
    Controllers(Vec<String>),
}

impl Cgroup {
    /// The cgroup of this path: in one of `mounts`, or as `/proc/PID/cgroup` shows it.
    pub(super) fn new(path: &Path, mounts: &[MountInfo]) -> Self {
        let inside = |mount: &MountInfo| path.strip_prefix(&mount.mount_point).map(Path::to_owned).ok();
        let mounted = mounts
            .iter()
            .filter_map(|mount| Some((mount, Hierarchy::of(mount)?, inside(mount)?)))
            .max_by_key(|(mount, ..)| mount.mount_point.components().count());
        match mounted {
            Some((mount, hierarchy, inside)) => Self { hierarchy, path: Path::new(&mount.root).join(inside) },
            None => Self { hierarchy: Hierarchy::Any, path: Path::new("/").join(path) },
        }
    }

    /// Whether this is the root of its hierarchy, which has all processes in it.
    pub(super) fn is_root(&self) -> bool {
        self.path == Path::new("/")
    }

    /// Whether one of a process's cgroups is this one, or below it.
    pub(super) fn contains(&self, groups: &[ProcessCGroup]) -> bool {
        groups
            .iter()
            .any(|group| self.hierarchy.is_of(group) && Path::new(&group.pathname).starts_with(&self.path))
    }
}

impl Hierarchy {
    /// That which is mounted there; none where it is another file system.
    fn of(mount: &MountInfo) -> Option<Self> {
        match mount.fs_type.as_str() {
            "cgroup2" => Some(Self::Unified),
            "cgroup" => {
                let option = |(key, value): (&String, &Option<String>)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => key.clone(),
                };
                Some(Self::Controllers(mount.super_options.iter().map(option).collect()))
            }
            _ => None,
        }
    }

    fn is_of(&self, group: &ProcessCGroup) -> bool {
        match self {
            Self::Any => true,
            Self::Unified => group.hierarchy == 0,
            Self::Controllers(options) => {
                !group.controllers.is_empty()
                    && group.controllers.iter().all(|controller| options.contains(controller))
            }
        }
    }
}

/// What is mounted where memtrace is; nothing, where that cannot be read.
pub(super) fn mounts(roots: &Roots) -> Vec<MountInfo> {
    let own = Process::new_with_root(roots.proc.join("self"));
    own.and_then(|own| own.mountinfo()).map(|mounts| mounts.0).unwrap_or_default()
}
