//! The containers and pods that processes are in, looked up once.

use std::{
    cell::OnceCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use procfs::ProcessCGroup;

use super::{
    Roots, container,
    pod::{self, PodName},
    process::{Process, Unseen},
    runtime::{self, Container, Running},
};

/// What was found out and does not change.
#[derive(Debug, Default)]
pub(super) struct Cache {
    containers: Mutex<HashMap<String, Arc<Container>>>,
    pods: Mutex<HashMap<String, PodName>>,
}

/// Looks up containers and pods, at one moment: containers with an id of their users' choice come and go, and are listed once.
#[derive(Debug)]
pub(super) struct Known<'a> {
    roots: &'a Roots,
    cache: &'a Cache,
    running: OnceCell<Vec<Running>>,
}

/// Where a process is.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Its cgroups.
    pub(super) groups: Vec<ProcessCGroup>,
    /// Its containers, the outermost first.
    pub(super) containers: Vec<Arc<Container>>,
    /// The uid of its pod.
    pub(super) pod_uid: Option<String>,
    /// The name of its pod, if it can be read.
    pub(super) pod: Option<PodName>,
}

impl<'a> Known<'a> {
    pub(super) fn new(roots: &'a Roots, cache: &'a Cache) -> Self {
        Self { roots, cache, running: OnceCell::new() }
    }

    /// Where a process is.
    pub(super) fn place(&self, process: &Process) -> Result<Place, Unseen> {
        let groups = process.cgroups()?;
        let ids = container::ids(&groups);
        let mut containers: Vec<_> = ids.iter().map(|id| self.container(id)).collect();
        if containers.is_empty() {
            let running = self.running.get_or_init(|| runtime::running(self.roots));
            let ours = running.iter().filter(|running| running.has(process, &groups));
            containers = ours.map(|running| Arc::new(running.container.clone())).collect();
        }
        let pod_uid = container::pod_uid(&groups);
        let described = containers.iter().rev().find_map(|container| container.pod.clone());
        let pod = described.or_else(|| self.pod(pod_uid.as_deref()?));
        Ok(Place { groups, containers, pod_uid, pod })
    }

    fn container(&self, id: &str) -> Arc<Container> {
        let mut known = self.cache.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = known.get(id) {
            return Arc::clone(container);
        }
        let container = Arc::new(runtime::describe(self.roots, id));
        // Its files may come later than its first process.
        if !container.names.is_empty() {
            known.insert(id.to_owned(), Arc::clone(&container));
        }
        container
    }

    fn pod(&self, uid: &str) -> Option<PodName> {
        let mut known = self.cache.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(uid) {
            return Some(name.clone());
        }
        let name = pod::name(self.roots, uid)?;
        known.insert(uid.to_owned(), name.clone());
        Some(name)
    }
}
