//! runc: containers whose users have chosen the id, and which a cgroup's name alone does not show.

use std::{collections::HashMap, path::PathBuf};

use serde::Deserialize;

use super::{
    super::{
        cgroup::{self, Cgroup},
        process::{Process, Unseen},
    },
    Container, Roots, describe,
};

/// The part of `state.json` that is read here (runc, libcontainer/container_linux.go and container.go).
#[derive(Deserialize)]
struct State {
    id: String,
    init_process_pid: u32,
    init_process_start: u64,
    #[serde(default)]
    cgroup_paths: Option<HashMap<String, PathBuf>>,
}

/// A container that runs, and how to know who is in it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) container: Container,
    cgroups: Vec<Cgroup>,
    /// A PID namespace of its own.
    namespace: Option<PathBuf>,
}

impl Running {
    /// Whether the process is in this container, or in one that runs in there.
    pub(crate) fn has(&self, process: &Process, groups: &[procfs::ProcessCGroup]) -> bool {
        let in_namespace = || self.namespace.is_some() && process.namespace("pid").ok() == self.namespace;
        self.cgroups.iter().any(|cgroup| cgroup.contains(groups)) || in_namespace()
    }
}

/// Where states are: runc's own directory, and those of containerd's namespaces for what `ctr` runs.
fn directories(roots: &Roots) -> impl Iterator<Item = String> {
    let containerd = "/run/containerd/runc";
    let namespaces =
        roots.list(containerd).into_iter().map(move |namespace| format!("{containerd}/{namespace}"));
    std::iter::once("/run/runc".to_owned()).chain(namespaces)
}

/// All containers of runc's that have such ids, as far as they can be read.
pub(crate) fn running(roots: &Roots) -> Vec<Running> {
    let mounts = cgroup::mounts(roots);
    let mut found = Vec::new();
    for directory in directories(roots) {
        for id in roots.list(&directory) {
            let text = roots.read(&format!("{directory}/{id}/state.json"));
            let Some(state) = text.and_then(|text| serde_json::from_slice::<State>(&text).ok()) else {
                continue;
            };
            let paths = state.cgroup_paths.iter().flatten();
            found.push(Running {
                container: describe(roots, &state.id),
                // A path that is the root of its hierarchy would have every process in it.
                cgroups: paths
                    .map(|(_, path)| Cgroup::new(path, &mounts))
                    .filter(|cgroup| !cgroup.is_root())
                    .collect(),
                namespace: own_namespace(roots, &state).ok().flatten(),
            });
        }
    }
    found
}

/// The PID namespace of a container, if it is its own. The state has the number of the first process as runc sees it,
/// which is another process's if runc and memtrace are in different PID namespaces: hence the look at the time when it was started.
/// A container that shares its host's namespace has a first process that is not number 1 in there.
fn own_namespace(roots: &Roots, state: &State) -> Result<Option<PathBuf>, Unseen> {
    let Some(init) = Process::open(roots, state.init_process_pid)? else { return Ok(None) };
    let ids = init.ids()?;
    let has_own = init.start == state.init_process_start && ids.len() > 1 && ids.last() == Some(&1);
    has_own.then(|| init.namespace("pid")).transpose()
}
