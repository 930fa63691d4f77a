//! The specification that a runtime is given (OCI runtime-spec, config.json): its annotations.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Container, PodName, Roots};

#[derive(Deserialize)]
struct Specification {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// Reads the specification at `path`, if there is one.
pub(super) fn describe(roots: &Roots, path: &str, container: &mut Container) {
    let text = roots.read(path);
    if let Some(read) = text.and_then(|text| serde_json::from_slice::<Specification>(&text).ok()) {
        annotations(container, &read.annotations);
    }
}

/// The name of a container: containerd's CRI (pkg/cri/annotations), CRI-O and cri-dockerd (the kubelet's
/// `KubernetesContainerNameLabel`), nerdctl (pkg/labels).
const NAME: [&str; 3] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];
/// The namespace and the name of its pod: containerd's CRI; CRI-O and cri-dockerd.
const POD: [(&str, &str); 2] = [
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name"),
    ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name"),
];

/// What annotations, or the labels of docker, say of a container.
pub(super) fn annotations(container: &mut Container, annotations: &HashMap<String, String>) {
    let get = |key: &str| annotations.get(key).cloned();
    let pod = POD
        .iter()
        .find_map(|(namespace, name)| Some(PodName { namespace: get(namespace)?, name: get(name)? }));
    container.learn(NAME.into_iter().filter_map(get), pod);
}
