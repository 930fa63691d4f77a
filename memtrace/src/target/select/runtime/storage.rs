//! Podman and CRI-O, which keep containers by way of the library containers/storage.

use serde::Deserialize;

use super::{Container, Roots, oci};

/// An entry of `containers.json` (containers/storage, containers.go).
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// The lists of containers in a storage: those that outlive a boot, and those that do not.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

pub(super) fn describe(roots: &Roots, container: &mut Container) {
    for storage in storages(roots) {
        // Of CRI-O's containers this has the pod, too.
        oci::describe(roots, &format!("{storage}/{}/userdata/config.json", container.id), container);
        for list in LISTS {
            let text = roots.read(&format!("{storage}/{list}"));
            let entries = text.and_then(|text| serde_json::from_slice::<Vec<Entry>>(&text).ok());
            let ours = entries.into_iter().flatten().find(|entry| entry.id == container.id);
            container.learn(ours.into_iter().flat_map(|entry| entry.names), None);
        }
    }
}

/// Those of root (`graphroot` and `runroot` of containers-storage.conf(5)), and those of users.
fn storages(roots: &Roots) -> impl Iterator<Item = String> {
    let users =
        roots.list("/home").into_iter().map(|user| format!("/home/{user}/.local/share/containers/storage"));
    ["/var/lib/containers/storage".to_owned(), "/run/containers/storage".to_owned()]
        .into_iter()
        .chain(users)
        .map(|storage| format!("{storage}/overlay-containers"))
}
