//! Containers whose users have chosen the id.

use serde_json::json;

use super::tree::{Machine, OWN, START};

const MOUNTS: &str = "26 25 0:6 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

fn state(machine: &Machine, id: &str, pid: u32, start: u64, cgroup: &str) {
    let state = json!({
        "id": id, "init_process_pid": pid, "init_process_start": start,
        "cgroup_paths": { "": format!("/sys/fs/cgroup{cgroup}") },
    });
    machine.process(OWN, "memtrace").file("mountinfo", MOUNTS);
    machine.host_file(&format!("/run/runc/{id}/state.json"), &state.to_string());
}

#[test]
fn by_the_cgroup_of_its_state() {
    let machine = Machine::new();
    state(&machine, "build", 10, START, "/jobs/7");
    machine.process(10, "make").unified("/jobs/7");
    machine.process(11, "cc").unified("/jobs/7/below");
    machine.process(12, "make").unified("/jobs/70");
    assert_eq!(machine.container("build"), [10, 11]);
    assert_eq!(machine.select(Default::default()).labels(11).container.as_deref(), Some("build"));
}

#[test]
fn by_the_pid_namespace_of_its_first_process() {
    let machine = Machine::new();
    // A container without a cgroup of its own.
    state(&machine, "build", 10, START, "/");
    machine.process(10, "make").link("ns/pid", "pid:[9]").nspid("10\t1");
    machine.process(11, "cc").link("ns/pid", "pid:[9]").unified("/elsewhere");
    machine.process(12, "cc");
    assert_eq!(machine.container("build"), [10, 11]);
}

#[test]
fn a_container_that_shares_its_hosts_pid_namespace_is_not_the_host() {
    let machine = Machine::new();
    state(&machine, "build", 10, START, "/jobs/7");
    machine.process(10, "make").nspid("10").unified("/jobs/7");
    machine.process(11, "sshd");
    assert_eq!(machine.container("build"), [10]);
}

/// memtrace in another PID namespace than runc: 10 is somebody else here.
#[test]
fn the_number_of_another_pid_namespace() {
    let machine = Machine::new();
    state(&machine, "build", 10, START + 1, "/jobs/7");
    machine.process(10, "sshd").link("ns/pid", "pid:[9]").nspid("10\t1");
    machine.process(20, "make").unified("/jobs/7");
    assert_eq!(machine.container("build"), [20]);
}

/// memtrace in the PID namespace of the container, as others may be that are not in it.
#[test]
fn a_container_whose_pid_namespace_is_memtraces_own() {
    let machine = Machine::new();
    state(&machine, "build", 10, START, "/jobs/7");
    machine.process(10, "make").nspid("1").unified("/jobs/7");
    machine.process(20, "other");
    assert_eq!(machine.container("build"), [10]);
}

#[test]
fn by_the_name_of_a_cgroup() {
    let machine = Machine::new();
    machine.process(10, "make").hybrid("/../build");
    machine.process(11, "make").hybrid("/build-2");
    assert_eq!(machine.container("build"), [10]);
}
