//! Which process is traced, where it is not named by its id.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_tests::container::{Bundle, Container};
use memtrace_tests::family;
use memtrace_tests::fixture::{FAMILY, LEAK};
use memtrace_tests::pprof::proto::Profile;
use memtrace_tests::process::Process;
use memtrace_tests::record::{self, Recorder};
use memtrace_tests::residue;
use memtrace_tests::servers::children;
use memtrace_tests::stacks::{Stacks, Values};
use memtrace_tests::target::Leak;
use memtrace_tests::tools;

/// `leak` under a name that nobody else has: that of a link to it.
fn named_leak(name: &str) -> Leak {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join(name);
    symlink(LEAK.path(), &program).unwrap();
    Leak::start(Command::new(program).arg("serve"))
}

#[test]
fn the_process_of_a_name() {
    let mut other = named_leak("selected-by-nobody");
    let mut chosen = named_leak("selected-by-its-name");
    let (recording, pid) = Recorder::exact().select(&["--name", "^selected-by-its-name$"]);
    assert_eq!(pid, chosen.pid());
    residue::assert_no_probe_left(other.pid());
    let books = chosen.perform("leak_a 10 100");
    other.perform("leak_b 10 100");
    let stacks = recording.stop(libc::SIGINT).expect_success().stacks();
    assert_eq!(stacks.of("leak_a"), books["leak_a"]);
    assert_eq!(stacks.of("leak_b"), Values::default());
}

#[test]
fn several_processes_of_a_name() {
    let leaks = [(); 2].map(|()| named_leak("selected-twice"));
    let outcome = record::run(&["doctor", "--name", "selected-twice"]);
    let [first, second] = [&leaks[0], &leaks[1]].map(|leak| leak.pid().to_string());
    outcome.assert_refused(&[1], &["2 processes match", &first, &second, "-p"]);
    // What else is asked for must hold, too.
    record::run(&["doctor", "--name", "selected-twice", "-p", &first]).expect_success();
    record::run(&["doctor", "--all", "--name", "selected-twice", "-p", &first]).expect_success();
}

/// `leak` in a network namespace of its own, with a socket that listens on `port`, started by a shell that has none.
fn listening_leak(port: u16) -> Leak {
    let script = format!(
        "import os, socket; s = socket.socket(); s.bind(('', {port})); s.listen(); \
         os.set_inheritable(s.fileno(), True); os.execv({program:?}, ['leak', 'serve'])",
        program = LEAK.path()
    );
    let mut command = tools::command("unshare");
    command.args(["--net", "sh", "-c", "/usr/bin/python3 -c \"$0\"; true"]).arg(script);
    Leak::start(&mut command)
}

#[test]
fn who_listens_on_a_port() {
    // In a network namespace of its own, any port is free.
    let mut leak = listening_leak(40_404);
    let (recording, pid) = Recorder::exact().select(&["--port", "40404"]);
    assert_ne!(pid, leak.pid(), "that is the shell");
    let books = leak.perform("leak_a 10 100");
    let stacks = recording.stop(libc::SIGINT).expect_success().stacks();
    assert_eq!(stacks.of("leak_a"), books["leak_a"]);
}

/// A container's root with `leak` in it.
fn image() -> Bundle {
    let bundle = Bundle::new();
    bundle.add_libraries_of(&LEAK.path());
    bundle.add(&LEAK.path(), Path::new("/leak"));
    bundle
}

/// Records while both containers allocate, and asserts that only the chosen one is in the profile.
fn assert_only_the_chosen(options: &[&str], chosen: &mut Container, other: &mut Container) {
    let (recording, pid) = Recorder::exact().select(options);
    assert_eq!(pid, chosen.pid());
    residue::assert_no_probe_left(other.pid());
    chosen.ask("leak_a 10 100");
    other.ask("leak_b 10 100");
    let stacks = recording.stop(libc::SIGINT).expect_success().stacks();
    assert_eq!(stacks.of("leak_a"), Values::live(10, 100));
    assert_eq!(stacks.of("leak_b"), Values::default());
}

#[test]
fn one_of_two_containers_of_the_same_image() {
    let images = [image(), image()];
    let [mut chosen, mut other] = images.each_ref().map(|image| image.run(&["/leak", "serve"]));
    let name = images[0].name();
    assert_only_the_chosen(&["--container", &name], &mut chosen, &mut other);
    let cgroup = format!("/sys/fs/cgroup/pids/{name}");
    if Path::new(&cgroup).is_dir() {
        assert_only_the_chosen(&["--cgroup", &cgroup], &mut chosen, &mut other);
    }
    assert_only_the_chosen(&["--cgroup", &name, "--name", "leak"], &mut chosen, &mut other);
    chosen.finish();
    other.finish();
}

/// All processes of a container are recorded, those that come later, too, and none of another one of the same image.
#[test]
fn all_processes_of_one_of_two_containers() {
    let images = [(); 2].map(|()| {
        let bundle = Bundle::new();
        bundle.add_libraries_of(&FAMILY.path());
        bundle.add(&FAMILY.path(), Path::new("/family"));
        bundle
    });
    let [mut chosen, mut other] = images.each_ref().map(|image| image.run(&["/family", "serve"]));
    for container in [&mut chosen, &mut other] {
        family::fork(container.process(), 2);
    }
    let _state = State::of(&images[0]);
    let earlier = children(chosen.pid());
    assert_eq!(earlier.len(), 2, "on the host they have these ids");
    let recorder = Recorder::exact().verbose().output("out.json");
    let (mut recording, pid) = recorder.select(&["--container", &images[0].name()]);
    assert_eq!(pid, chosen.pid());
    for container in [&mut chosen, &mut other] {
        family::fork(container.process(), 2);
    }
    let mut workers = children(chosen.pid());
    workers.retain(|pid| !earlier.contains(pid));
    recording.wait_for_probes(&workers);
    for pid in children(other.pid()) {
        residue::assert_no_probe_left(pid);
    }
    let truths = family::work(chosen.process(), 4).into_values();
    family::work(other.process(), 4);
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let profile = recorded.json();
    profile.assert_lost_only(&["processes_late", "processes_late_milliseconds", "processes_unseen"]);
    assert_eq!(profile.statistic("processes_count"), 5.0);
    // In the container processes have other ids, but no two have the same truth.
    let names: Vec<_> = profile.stacks_by("container").into_keys().collect();
    assert_eq!(names, [images[0].name()]);
    let mut stacks: Vec<_> = profile.stacks_by("pid").into_values().collect();
    for mut truth in truths {
        truth.remove("[inherited at fork]");
        let is_it = |stacks: &Stacks| truth.iter().all(|(site, values)| stacks.of(site) == *values);
        let at = stacks.iter().position(is_it);
        stacks.remove(at.unwrap_or_else(|| panic!("no process has allocated {truth:?}: {stacks:#?}")));
    }
    assert!(stacks.iter().all(|stacks| stacks.of("kept") == Values::default()), "another one has worked");
    for container in [&mut chosen, &mut other] {
        assert_eq!(container.ask("end"), "ended");
    }
    chosen.finish();
    other.finish();
}

/// A link in the directory where runc keeps its states when it is not told otherwise.
struct State(PathBuf);

impl State {
    fn of(bundle: &Bundle) -> Self {
        let directory = Path::new("/run/runc");
        std::fs::create_dir_all(directory).unwrap();
        let link = directory.join(bundle.name());
        symlink(bundle.state(), &link).unwrap();
        Self(link)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // Only if it is empty.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

/// The cgroup is not called as the container is: only the state says which it is.
#[test]
fn a_container_by_the_state_that_runc_keeps() {
    let images = [image(), image()];
    let [mut chosen, mut other] = [0, 1].map(|index: usize| {
        let cgroup = format!("/job-{index}-of-{}", std::process::id());
        let mut container =
            images[index].start(&["/leak", "serve"], |config| config["linux"]["cgroupsPath"] = cgroup.into());
        container.process().stdout_line(|line| line == "ready");
        container
    });
    let _states = images.each_ref().map(State::of);
    assert_only_the_chosen(&["--container", &images[0].name()], &mut chosen, &mut other);
    chosen.finish();
    other.finish();
}

/// memtrace in a container that is in the PID namespace of another container, but not in the host's.
#[test]
fn from_a_third_container_in_the_targets_pid_namespace() {
    let images = [image(), image()];
    let [mut chosen, mut other] = images.each_ref().map(|image| image.run(&["/leak", "serve"]));
    for options in [&["-p", "1"][..], &["--name", "^leak$"], &["--container", &images[0].name()]] {
        let tools = Bundle::new();
        tools.add_libraries_of(tools::memtrace());
        tools.add(tools::memtrace(), Path::new("/memtrace"));
        let arguments = [&["/memtrace", "record", "-s", "1", "-o", "/tmp/out.pb.gz"], options].concat();
        let namespace = format!("/proc/{}/ns/pid", chosen.pid());
        let mut tracer = tools.start(&arguments, |config| share_pids(config, &namespace));
        tracer.process().stderr_line(|line| line.contains("tracing pid 1 (leak"));
        residue::assert_no_probe_left(other.pid());
        chosen.ask("leak_a 10 100");
        other.ask("leak_b 10 100");
        tracer.process().signal(libc::SIGINT);
        tracer.finish();
        let stacks = Profile::read(&tools.on_host(Path::new("/tmp/out.pb.gz"))).stacks();
        assert_eq!(stacks.of("leak_a"), Values::live(10, 100), "{options:?}");
        assert_eq!(stacks.of("leak_b"), Values::default());
    }
    chosen.finish();
    other.finish();
}

/// A container in this PID namespace, with what memtrace needs.
fn share_pids(config: &mut serde_json::Value, namespace: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("runc makes namespaces");
    let pid =
        namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").expect("one of them of PIDs");
    pid["path"] = namespace.into();
    let needed =
        ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_KILL", "CAP_DAC_OVERRIDE"];
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = needed.as_slice().into();
    }
}

#[test]
fn nothing_matches() {
    for (options, words) in [
        (&["--name", "no-such-name-anywhere"][..], &["no-such-name-anywhere", "--wait"][..]),
        (&["--container", "no-such-container"], &["no-such-container", "id"]),
        (&["--pod", "nowhere/nothing"], &["nowhere/nothing", "/var/log/pods"]),
        (&["--cgroup", "/no/such/cgroup"], &["/no/such/cgroup"]),
        (&["--port", "1"], &["port 1"]),
        // It is memtrace's own.
        (&["--name", "^memtrace$", "--port", "1"], &["^memtrace$", "port 1"]),
    ] {
        for subcommand in ["record", "doctor"] {
            record::run(&[&[subcommand], options].concat()).assert_refused(&[1], words);
        }
    }
}

#[test]
fn what_may_not_be_looked_at_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("memtrace");
    tools::copy_program(tools::memtrace(), &binary);
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = tools::command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
    command.args(["doctor", "--name", "no-such-name-anywhere"]);
    let outcome = Process::spawn(&mut command).finish();
    outcome.assert_refused(&[1], &["processes could not be looked at", "CAP_SYS_PTRACE"]);
}

#[test]
fn a_process_that_is_waited_for() {
    let recorder = Recorder::exact();
    let mut process = Process::spawn(&mut recorder.command(&["--name", "^selected-later$", "--wait"]));
    process.stderr_line(|line| line.contains("waiting for a process"));
    let mut leak = named_leak("selected-later");
    process.stderr_line(|line| line.contains(&format!("tracing pid {}", leak.pid())));
    leak.perform("leak_a 10 100");
    let recording = record::Recording::of(process, recorder);
    let stacks = recording.stop(libc::SIGINT).expect_success().stacks();
    assert_eq!(stacks.of("leak_a"), Values::live(10, 100));
}
