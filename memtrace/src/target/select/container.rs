//! The containers that a process is in, from its cgroups.
//!
//! Runtimes put a container's id into the name of its cgroup, each in its own way:
//!
//! | runtime | cgroup of a container |
//! |---|---|
//! | docker | `/docker/ID`, `/system.slice/docker-ID.scope` |
//! | podman | `/libpod_parent/libpod-ID`, `/machine.slice/libpod-ID.scope/container` |
//! | containerd, for the kubelet | `/kubepods/burstable/podUID/ID`, `…-podUID.slice/cri-containerd-ID.scope`, `…slice:cri-containerd:ID` |
//! | CRI-O | `/kubepods/burstable/podUID/crio-ID`, `…-podUID.slice/crio-ID.scope/container` |
//!
//! IDs are 64 hexadecimal digits. The monitors of podman and CRI-O (conmon) have cgroups that are called by the container's id, too,
//! but are not in it.

use procfs::ProcessCGroup;

/// The ids of the containers in these cgroups, the outermost first: containers run in containers.
pub(super) fn ids(groups: &[ProcessCGroup]) -> Vec<String> {
    // Hierarchies of version 1 may be mounted without the runtime using them.
    let of = |group: &ProcessCGroup| -> Vec<String> {
        group.pathname.split('/').filter_map(id).map(str::to_owned).collect()
    };
    groups.iter().map(of).max_by_key(Vec::len).unwrap_or_default()
}

/// The uid of the innermost Kubernetes pod in these cgroups, with dashes.
pub(super) fn pod_uid(groups: &[ProcessCGroup]) -> Option<String> {
    groups.iter().find_map(|group| group.pathname.rsplit('/').find_map(uid))
}

fn id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (prefix, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !prefix.ends_with("conmon")).then_some(id)
}

/// `podUID`, or `kubepods-burstable-podUID.slice` in which systemd wants underscores; that of a static pod is a hash
/// without any.
fn uid(component: &str) -> Option<String> {
    // `…-podUID.slice:cri-containerd:ID`
    let name = component.split(':').next().unwrap_or_default();
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let (before, uid) = name.rsplit_once("pod")?;
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_uid =
        digits == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'));
    (is_uid && (before.is_empty() || before.ends_with('-'))).then(|| uid.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";
    const OTHER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    fn groups(path: &str) -> Vec<ProcessCGroup> {
        vec![ProcessCGroup { hierarchy: 0, controllers: Vec::new(), pathname: path.to_owned() }]
    }

    #[test]
    fn every_layout_has_its_id() {
        let uid = UID.replace('-', "_");
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/system.slice/docker-{ID}.scope/init.scope"),
            format!("/libpod_parent/libpod-{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"),
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/crio-{ID}"),
            format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-{ID}.scope/container"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{ID}.scope"
            ),
            format!(
                "/system.slice/containerd.service/kubepods-besteffort-pod{uid}.slice:cri-containerd:{ID}"
            ),
            format!("/../../docker/{ID}"),
        ] {
            assert_eq!(ids(&groups(&path)), [ID], "{path}");
            let in_pod = path.contains("kubepods");
            assert_eq!(pod_uid(&groups(&path)), in_pod.then(|| UID.to_owned()), "{path}");
        }
    }

    #[test]
    fn what_is_no_container() {
        for path in [
            "/".to_owned(),
            "/user.slice/user-0.slice/session-1.scope".to_owned(),
            "/system.slice/containerd.service".to_owned(),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/kubepods/pod{UID}/crio-conmon-{ID}"),
            format!("/docker/{}", &ID[1..]),
        ] {
            assert_eq!(ids(&groups(&path)), [""; 0], "{path}");
        }
        assert_eq!(pod_uid(&groups("/system.slice/podman.service")), None);
    }

    #[test]
    fn nested_containers_and_static_pods() {
        let hash = UID.replace('-', "");
        let path = format!("/docker/{OTHER}/kubelet/kubepods/burstable/pod{hash}/{ID}");
        assert_eq!(ids(&groups(&path)), [OTHER, ID]);
        assert_eq!(pod_uid(&groups(&path)), Some(hash));
    }

    #[test]
    fn a_hierarchy_without_the_container_does_not_hide_it() {
        let mut both = groups("/system.slice/containerd.service");
        both.extend(groups(&format!("/docker/{ID}")));
        assert_eq!(ids(&both), [ID]);
    }
}
