//! containerd: the bundle of a running container, in `/run/containerd`, in the directory of containerd's namespace
//! (`k8s.io` for the kubelet, `moby` for docker, `default` for nerdctl).

use super::{Container, Roots, oci};

const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

pub(super) fn describe(roots: &Roots, container: &mut Container) {
    for namespace in roots.list(TASKS) {
        oci::describe(roots, &format!("{TASKS}/{namespace}/{}/config.json", container.id), container);
    }
}
