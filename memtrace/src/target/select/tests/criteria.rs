//! What is asked for, over processes of every kind.

use regex::Regex;

use super::{
    super::{Criteria, Labels, SelectError},
    tree::{Machine, OWN},
};

fn name(regex: &str) -> Criteria {
    Criteria { name: Some(Regex::new(regex).unwrap()), ..Criteria::default() }
}

#[test]
fn a_name_is_that_of_the_kernel_the_file_or_the_first_argument() {
    let machine = Machine::new();
    machine.process(10, "server");
    machine.process(11, "worker").link("exe", "/opt/app/server-1.2 (deleted)");
    machine.process(12, "MainThread").file("cmdline", "/usr/local/bin/server\0-d\0");
    machine.process(13, "postgres").file("cmdline", "postgres: server writer/x \0");
    machine
        .process(14, "other")
        .file("cmdline", "/home/server/bin/other\0server\0")
        .link("exe", "/srv/server/other");
    assert_eq!(machine.pids(name("server")), [10, 11, 12, 13]);
    assert_eq!(machine.pids(name("^server$")), [10, 12]);
    assert_eq!(machine.pids(name("1\\.2$")), [11], "not ` (deleted)`");
    assert_eq!(machine.pids(name("^postgres: ")), [13]);
    let found = machine.find(name("server")).unwrap();
    let why: Vec<_> = found.selected.iter().map(|process| process.why.as_str()).collect();
    let titled = "is started as \"postgres: server writer/x \"";
    assert_eq!(why, ["is called \"server\"", "runs \"server-1.2\"", "is started as \"server\"", titled]);
}

#[test]
fn kernel_threads_zombies_and_memtrace_never_match() {
    let machine = Machine::new();
    machine.process(2, "server").stat(2, "server", 'S', 0x0020_0000);
    machine.process(3, "server").stat(3, "server", 'Z', 0);
    machine.process(4, "server");
    machine.process(OWN, "server");
    assert_eq!(machine.pids(name("server")), [4]);
    assert_eq!(machine.pids(Criteria { all: true, ..Criteria::default() }), [4]);
}

#[test]
fn a_process_goes_on_without_its_main_thread() {
    let machine = Machine::new();
    let made = machine.process(5, "server");
    made.stat(5, "server", 'Z', 0);
    let thread = machine.process(6, "server").unified("/system.slice/a.service");
    thread.stat(6, "server", 'S', 0);
    thread.move_below(&made, "task/6");
    assert_eq!(machine.cgroup("/system.slice/a.service"), [5]);
}

#[test]
fn all_criteria_must_hold() {
    let machine = Machine::new();
    machine.process(10, "server").unified("/a");
    machine.process(11, "server").unified("/b");
    machine.process(12, "client").unified("/a");
    let both = Criteria { cgroup: Some("/a".into()), ..name("server") };
    assert_eq!(machine.pids(both.clone()), [10]);
    assert_eq!(
        machine.find(both.clone()).unwrap().selected[0].why,
        "is called \"server\", is in the cgroup /a"
    );
    assert_eq!(machine.pids(Criteria { pids: vec![11, 12], ..name("server") }), [11]);
    assert_eq!(machine.pids(Criteria { all: true, ..both }), [10]);
}

#[test]
fn ids_alone_are_taken_as_they_are() {
    let machine = Machine::new();
    machine.process(10, "server");
    let found = machine.find(Criteria { pids: vec![77, 10, 10, OWN], ..Criteria::default() }).unwrap();
    let pids: Vec<_> = found.selected.iter().map(|process| process.pid).collect();
    // Whoever opens 77 says that it is not there.
    assert_eq!(pids, [10, 77]);
    assert_eq!(found.selected[0].labels.comm, "server");
    assert_eq!(found.selected[1].labels, Labels { pid: 77, ..Labels::default() });
}

#[test]
fn nothing_asked_for_is_nothing_found() {
    let machine = Machine::new();
    machine.process(10, "server");
    assert_eq!(machine.pids(Criteria::default()), [0; 0]);
}

#[test]
fn what_was_looked_for_is_said() {
    let machine = Machine::new();
    let criteria = Criteria { port: Some(80), container: Some("web".to_owned()), ..name("ngin") };
    let error = machine.find(criteria).unwrap_err();
    assert!(matches!(error, SelectError::NothingMatches { unreadable: 0, .. }));
    let said = error.to_string();
    let wanted = "no process that has a name that matches \"ngin\" and listens on port 80 and is in a container \"web\"";
    assert!(said.contains(wanted) && said.contains("--wait") && said.contains("container's id"), "{said}");
}

#[test]
fn cgroups_as_they_are_mounted_and_as_proc_shows_them() {
    let machine = Machine::new();
    let mounts = "\
        25 1 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        26 25 0:6 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        27 25 0:7 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        28 25 0:8 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        29 25 0:8 /apps /mnt/apps rw - cgroup2 cgroup2 rw\n";
    machine.process(OWN, "memtrace").file("mountinfo", mounts);
    machine.process(10, "a").file("cgroup", "5:memory:/a/b\n4:cpu,cpuacct:/\n0::/apps/a\n");
    machine.process(12, "c").file("cgroup", "5:memory:/apps/a\n4:cpu,cpuacct:/\n0::/\n");
    machine.process(11, "b").file("cgroup", "5:memory:/ab\n4:cpu,cpuacct:/a\n0::/apps\n");
    assert_eq!(machine.cgroup("/sys/fs/cgroup/memory/a"), [10]);
    assert_eq!(machine.cgroup("/sys/fs/cgroup/memory/a/b/"), [10]);
    assert_eq!(machine.cgroup("/sys/fs/cgroup/memory/a/b/c"), [0; 0]);
    assert_eq!(machine.cgroup("/sys/fs/cgroup/cpu,cpuacct/a"), [11]);
    assert_eq!(machine.cgroup("/sys/fs/cgroup/unified/apps"), [10, 11]);
    assert_eq!(machine.cgroup("/mnt/apps/a"), [10]);
    assert_eq!(machine.cgroup("/a"), [10, 11], "in whichever hierarchy");
    assert_eq!(machine.cgroup("apps/a"), [10, 12]);
}
