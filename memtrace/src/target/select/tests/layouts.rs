//! Containers and pods, as each runtime lays them out.

use super::{
    super::{Criteria, Labels, SelectError},
    tree::{DB, Machine, UID, WEB},
};

fn labels(machine: &Machine, pid: u32) -> Labels {
    machine.select(Criteria::default()).labels(pid)
}

/// The same container by name, by id and by the beginning of its id.
#[track_caller]
fn assert_is_web(machine: &Machine, pid: u32) {
    for name in ["web", WEB, &WEB[..12]] {
        assert_eq!(machine.container(name), [pid], "{name}");
    }
    assert_eq!(labels(machine, pid).container.as_deref(), Some("web"));
}

#[test]
fn docker_on_version_1_and_2() {
    let docker = |id: &str| format!("/var/lib/docker/containers/{id}/config.v2.json");
    let machine = Machine::new();
    machine.process(10, "nginx").hybrid(&format!("/docker/{WEB}"));
    machine.process(11, "mysqld").unified(&format!("/system.slice/docker-{DB}.scope"));
    machine.process(12, "dockerd").unified("/system.slice/docker.service");
    machine.host_file(&docker(WEB), &format!(r#"{{"ID":"{WEB}","Name":"/web","Config":{{"Labels":{{}}}}}}"#));
    machine.host_file(&docker(DB), &format!(r#"{{"ID":"{DB}","Name":"/db","Config":{{"Labels":null}}}}"#));
    assert_is_web(&machine, 10);
    assert_eq!(machine.container("db"), [11]);
    assert_eq!(labels(&machine, 12).container, None);
}

#[test]
fn podman_of_root_and_of_a_user() {
    let machine = Machine::new();
    machine.process(10, "nginx").unified(&format!("/machine.slice/libpod-{WEB}.scope/container"));
    machine.process(11, "conmon").unified(&format!("/machine.slice/libpod-conmon-{WEB}.scope"));
    let user = "/user.slice/user-1000.slice/user@1000.service/user.slice";
    machine.process(12, "postgres").unified(&format!("{user}/libpod-{DB}.scope"));
    let entry = |id: &str, name: &str| {
        format!(r#"[{{"id":"{id}","names":["{name}"],"image":"x","metadata":"{{}}"}}]"#)
    };
    machine.host_file("/var/lib/containers/storage/overlay-containers/containers.json", &entry(WEB, "web"));
    let home = "/home/me/.local/share/containers/storage/overlay-containers/containers.json";
    machine.host_file(home, &entry(DB, "db"));
    assert_is_web(&machine, 10);
    assert_eq!(machine.container("db"), [12]);
}

#[test]
fn containerd_for_the_kubelet() {
    let machine = Machine::new();
    let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let path = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{WEB}.scope");
    machine.process(10, "nginx").unified(&path);
    // The pause container of the same pod.
    let pause = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{DB}.scope");
    machine.process(11, "pause").unified(&pause);
    let config = format!(
        r#"{{"ociVersion":"1.1.0","annotations":{{"io.kubernetes.cri.container-name":"web",
            "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-name":"cart-0",
            "io.kubernetes.cri.sandbox-uid":"{UID}"}}}}"#
    );
    machine.host_file(
        &format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{WEB}/config.json"),
        &config,
    );
    assert_is_web(&machine, 10);
    assert_eq!(machine.pod(UID), [10, 11]);
    // Of the other container no file says the pod, until the kubelet's directory does.
    assert_eq!(machine.pod("shop/cart-0"), [10]);
    machine.host_file(&format!("/var/log/pods/shop_cart-0_{UID}/web/0.log"), "");
    assert_eq!(machine.pod("shop/cart-0"), [10, 11]);
    assert_eq!(machine.pod("shop/cart"), [0; 0]);
    assert_eq!(machine.pod("default/cart-0"), [0; 0]);
    let pairs: Vec<_> = labels(&machine, 10).pairs().collect();
    let expected =
        [("pid", "10"), ("comm", "nginx"), ("container", "web"), ("pod", "cart-0"), ("namespace", "shop")];
    assert_eq!(pairs, expected.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn cri_o_on_version_1_and_2() {
    let slice = format!("kubepods-pod{}.slice", UID.replace('-', "_"));
    let config = r#"{"annotations":{"io.kubernetes.container.name":"web",
        "io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.name":"cart-0"}}"#;
    for unified in [true, false] {
        let machine = Machine::new();
        let process = machine.process(10, "nginx");
        match unified {
            true => process.unified(&format!("/kubepods.slice/{slice}/crio-{WEB}.scope/container")),
            false => process.hybrid(&format!("/kubepods/pod{UID}/crio-{WEB}")),
        };
        machine.process(11, "conmon").hybrid(&format!("/kubepods/pod{UID}/crio-conmon-{WEB}"));
        let storage = "/var/lib/containers/storage/overlay-containers";
        machine.host_file(&format!("{storage}/{WEB}/userdata/config.json"), config);
        assert_is_web(&machine, 10);
        assert_eq!(machine.pod("shop/cart-0"), [10]);
    }
}

#[test]
fn a_pod_that_only_the_volumes_of_the_kubelet_name() {
    let machine = Machine::new();
    machine.process(10, "nginx").hybrid(&format!("/kubepods/besteffort/pod{UID}/{WEB}"));
    let pod = format!("/var/lib/kubelet/pods/{UID}");
    machine.host_file(
        &format!("{pod}/etc-hosts"),
        "# Kubernetes-managed hosts file.\n::1\tlocalhost\n10.1.0.7\tcart-0\n",
    );
    machine.host_file(&format!("{pod}/volumes/kubernetes.io~projected/kube-api-access-x/namespace"), "shop");
    assert_eq!(machine.pod("shop/cart-0"), [10]);
    let labels = labels(&machine, 10);
    assert_eq!((labels.pod.as_deref(), labels.container.as_deref()), (Some("cart-0"), Some(&WEB[..12])));
}

#[test]
fn a_pod_without_a_readable_name_has_its_uid() {
    let machine = Machine::new();
    machine.process(10, "nginx").unified(&format!("/kubepods/guaranteed/pod{UID}/{WEB}"));
    let labels = labels(&machine, 10);
    assert_eq!((labels.pod.as_deref(), labels.namespace), (Some(UID), None));
    let pod = Some("shop/cart-0".parse().unwrap());
    let error = machine.find(Criteria { pod, ..Criteria::default() }).unwrap_err().to_string();
    assert!(error.contains("the pod's uid"), "{error}");
}

#[test]
fn the_beginning_of_an_id_must_be_of_one_container() {
    let machine = Machine::new();
    machine.process(10, "nginx").unified(&format!("/docker/{WEB}"));
    machine.process(11, "nginx").unified(&format!("/docker/{WEB}"));
    machine.process(12, "mysqld").unified(&format!("/docker/{DB}"));
    assert_eq!(machine.container("4fa"), [10, 11]);
    let ambiguous = Criteria { container: Some("4f".to_owned()), ..Criteria::default() };
    match machine.find(ambiguous).unwrap_err() {
        SelectError::AmbiguousContainer { prefix, ids } => {
            assert_eq!((prefix.as_str(), ids), ("4f", vec![WEB.into(), DB.into()]));
        }
        error => panic!("{error}"),
    }
    // A name goes before.
    machine.host_file(&format!("/var/lib/docker/containers/{DB}/config.v2.json"), r#"{"Name":"/4f"}"#);
    let found = machine.find(Criteria { container: Some("4f".to_owned()), ..Criteria::default() }).unwrap();
    assert_eq!(found.selected.iter().map(|process| process.pid).collect::<Vec<_>>(), [12]);
}

#[test]
fn a_container_has_those_that_run_in_it() {
    let machine = Machine::new();
    machine.process(10, "nginx").unified(&format!("/docker/{DB}/kubelet/kubepods/pod{UID}/{WEB}"));
    assert_eq!(machine.container(DB), [10]);
    assert_eq!(machine.container(WEB), [10]);
    assert_eq!(labels(&machine, 10).container.as_deref(), Some(&WEB[..12]));
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let machine = Machine::new();
    machine.process(10, "nginx").unified(&format!("/docker/{WEB}"));
    machine.host_file(&format!("/var/lib/docker/containers/{WEB}/config.v2.json"), "{ \"Name\": [");
    machine.host_file("/var/lib/containers/storage/overlay-containers/containers.json", "\u{0}\u{1}");
    machine.host_file("/run/runc/broken/state.json", "{}");
    machine.process(11, "odd").file("cgroup", "what\n");
    assert_eq!(machine.container(WEB), [10]);
    assert_eq!(machine.container("web"), [0; 0]);
}
