//! Whether a process is in a container or pod that was asked for.

use std::path::{Component, Path};

use super::{PodKey, known::Place};

/// How a container was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// By its id or name. A clause that can follow "the process".
    Exactly(String),
    /// By the beginning of this id.
    Beginning(String),
}

/// Whether a process is in the container that `wanted` means.
pub(super) fn container(place: &Place, wanted: &str) -> Option<Meant> {
    let exactly = place
        .containers
        .iter()
        .find(|container| container.id == wanted || container.names.iter().any(|name| name == wanted));
    if let Some(container) = exactly {
        return Some(Meant::Exactly(format!("is in the container {wanted} ({})", container.label())));
    }
    let begins = place.containers.iter().find(|container| container.id.starts_with(wanted));
    if let Some(container) = begins {
        return Some(Meant::Beginning(container.id.clone()));
    }
    // runc names a cgroup after the container, also where its state is in another directory than the usual one.
    let is_named =
        |path: &str| Path::new(path).components().any(|part| part == Component::Normal(wanted.as_ref()));
    let unknown = place.containers.is_empty() && place.groups.iter().any(|group| is_named(&group.pathname));
    unknown.then(|| Meant::Exactly(format!("is in a cgroup that is called {wanted}")))
}

/// Whether a process is in this pod.
pub(super) fn pod(place: &Place, wanted: &PodKey) -> bool {
    match wanted {
        PodKey::Name(name) => place.pod.as_ref() == Some(name),
        PodKey::Uid(uid) => place.pod_uid.as_ref() == Some(uid),
    }
}
