//! Several processes in one recording: what a command starts, and what appears that matches.
//! Each process has its own books, and the profile of all is their sum.

use std::collections::BTreeMap;

use memtrace_tests::family::{Named, Server};
use memtrace_tests::fixture::{FAMILY, LEAK};
use memtrace_tests::gopprof::top;
use memtrace_tests::python::{Script, python_frames};
use memtrace_tests::record::{Recorded, Recorder, attach_modes};
use memtrace_tests::stacks::{self, Books, Stacks, Values, truths};
use memtrace_tests::{json, pprof};

fn exact_json() -> Recorder {
    Recorder::exact().output("out.json")
}

/// Asserts that each process of `truths` has a profile of its own that is its truth, that no other has one in which
/// `program` allocates, and that the profile of all says the same.
#[track_caller]
fn assert_each_true(recorded: &Recorded, program: &str, truths: &BTreeMap<u32, Books>) {
    let all = recorded.json();
    let (each, by_pid) = (recorded.each(), all.stacks_by("pid"));
    for (of, profile) in &each {
        let pid = of.pid.to_string();
        let in_all = by_pid.get(&pid).unwrap_or_else(|| panic!("the profile of all knows no process {pid}"));
        let stacks = profile.stacks();
        assert_eq!(in_all.sum(), stacks.sum(), "of {of:?}");
        assert_eq!(profile.loss("books_unbalanced"), 0);
        let truth = truths.get(&of.pid).cloned().unwrap_or_default();
        println!("{of:?}");
        stacks.assert_books(program, &truth);
    }
    let recorded: Vec<_> = each.keys().map(|of| of.pid).collect();
    let missing: Vec<_> = truths.keys().filter(|pid| !recorded.contains(pid)).collect();
    assert!(missing.is_empty(), "{missing:?} have no profiles among {recorded:?}");
    assert_sum(&all.stacks(), each.values().map(|profile| profile.stacks()));
}

/// Asserts that one profile says as much as the others together.
#[track_caller]
fn assert_sum(all: &Stacks, each: impl Iterator<Item = Stacks>) {
    let mut sum = Values::default();
    each.for_each(|stacks| sum += stacks.sum());
    assert_eq!(all.sum(), sum, "the profile of all (left) is not the sum of the others (right)");
}

#[test]
fn a_family_from_its_first_allocation() {
    for mode in attach_modes() {
        let recorded = exact_json().attach_mode(mode).launch(&FAMILY.path(), &["run"]).expect_success();
        let truths = truths(&recorded.outcome.stdout);
        assert_eq!(truths.len(), 12, "{}", recorded.outcome.stdout);
        recorded.json().assert_nothing_lost();
        assert_eq!(recorded.json().statistic("processes_count"), 12.0);
        assert_each_true(&recorded, "family", &truths);
    }
}

/// By `--follow none`, the children are not recorded, and not harmed.
#[test]
fn no_family_if_none_is_wanted() {
    let recorder = exact_json().option("--follow").option("none");
    let recorded = recorder.launch(&FAMILY.path(), &["run"]).expect_success();
    let truths = truths(&recorded.outcome.stdout);
    assert_eq!(truths.len(), 12, "{}", recorded.outcome.stdout);
    let profile = recorded.json();
    profile.assert_nothing_lost();
    assert_eq!(profile.statistic("processes_count"), 1.0);
    assert_eq!(profile.statistic("children_not_followed_count"), 5.0);
    let root = &profile.stacks_by("pid").into_keys().collect::<Vec<_>>()[..];
    let [root] = root else { panic!("several processes: {root:?}") };
    profile.stacks().assert_books("family", &truths[&root.parse().unwrap()]);
    assert!(!recorded.directory_of_each().exists(), "there is only one process");
}

/// A shell that starts two programs: each has its profile, and pprof tells them apart.
#[test]
fn a_script_with_two_programs() {
    let script = Script::functions();
    let program = LEAK.path();
    let recorded = Recorder::exact().run(&[
        "--",
        "sh",
        "-c",
        "/usr/bin/python3 \"$0\" & \"$1\" run leak_a 1000 64 leak_b 500 3000 churn 5000 32; wait",
        script.argument(),
        program.to_str().unwrap(),
    ]);
    let recorded = recorded.expect_success();
    let directory = recorded.directory_of_each();
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let of = |comm: &str| -> (String, Stacks) {
        let name = names.iter().find(|name| name.starts_with(&format!("{comm}.")));
        let name = name.unwrap_or_else(|| panic!("no profile of {comm} among {names:?}"));
        let pid = name.strip_suffix(".pb.gz").and_then(|stem| stem.rsplit_once('.')).unwrap().1;
        (pid.to_owned(), pprof::proto::Profile::read(&directory.join(name)).stacks())
    };
    let truth =
        recorded.outcome.stdout.lines().find(|line| line.starts_with('{')).expect("leak tells its truth");
    let truth = stacks::truth(truth);

    let (leak_pid, leak) = of("leak");
    leak.assert_books("leak", &truth);
    assert!(leak.0.iter().all(|stack| python_frames(stack).is_empty()), "Python functions in a C program");
    let (python_pid, python) = of("python3");
    assert!(python.books_of("leak").is_empty());
    for (function, size) in [("plain", 1001), ("key", 1007), ("in_thread", 1015), ("größe", 1016)] {
        let found =
            python.0.iter().filter(|stack| stack.values.alloc_space / 1024 == size).collect::<Vec<_>>();
        let [stack] = found[..] else { panic!("{function}: {found:#?}") };
        assert_eq!((stack.values.alloc_objects, stack.values.alloc_space), (1, size * 1024 + 1));
        assert_eq!(python_frames(stack)[0].name(), function);
    }

    // The same in the profile of all, by labels.
    let all = recorded.output();
    for focus in [format!("pid=^{leak_pid}$"), "comm=^leak$".to_owned()] {
        let rows = top("alloc_objects", &[&format!("-tagfocus={focus}")], &all);
        let flat =
            |function: &str| rows.iter().find(|row| row.function == function).map(|row| row.flat.as_str());
        assert_eq!(
            (flat("leak_a"), flat("leak_b"), flat("churn")),
            (Some("1000"), Some("500"), Some("5000"))
        );
        assert_eq!(flat("plain"), None, "{focus} is not Python");
    }
    for focus in [format!("pid=^{python_pid}$"), "comm=^python3$".to_owned()] {
        let rows = top("alloc_objects", &[&format!("-tagfocus={focus}")], &all);
        assert!(rows.iter().any(|row| row.function == "plain"), "{rows:#?}");
        assert!(!rows.iter().any(|row| row.function.starts_with("leak_")), "{rows:#?}");
    }
}

/// Asserts that the sites of `truths` are in the books of the processes as they say; what processes have allocated
/// before their probes were set may be missing.
#[track_caller]
fn assert_sites_of_each(recorded: &Recorded, truths: &BTreeMap<u32, Books>) {
    let all = recorded.json();
    let (each, by_pid) = (recorded.each(), all.stacks_by("pid"));
    for (pid, truth) in truths {
        println!("process {pid}");
        let profile = each.iter().find(|(of, _)| of.pid == *pid);
        let (_, profile) = profile.unwrap_or_else(|| panic!("{pid} has no profile: {:?}", each.keys()));
        profile.stacks().assert_sites(truth);
        by_pid[&pid.to_string()].assert_sites(truth);
        assert_eq!(profile.loss("books_unbalanced"), 0);
    }
    assert_sum(&all.stacks(), each.values().map(json::Profile::stacks));
}

const LATE: [&str; 2] = ["processes_late", "processes_late_milliseconds"];

/// A server that runs already and makes workers: by its name, and as the children of its id.
fn workers_of_a_running_server(mode: &str, by_id: bool) {
    let program = Named::new("family");
    let mut server = Server::start(&program.path());
    let earlier = server.fork(2);
    let recorder = exact_json().verbose().attach_mode(mode);
    let pid = server.pid().to_string();
    let selection = program.selection();
    let options = match by_id {
        true => vec!["-p", &pid, "--follow", "children"],
        false => selection.iter().map(String::as_str).collect(),
    };
    let (mut recording, first) = recorder.select(&options);
    assert_eq!(first, server.pid());
    let workers = server.fork(4);
    recording.wait_for_probes(&workers);
    let mut truths = server.work(6);
    truths.insert(server.pid(), server.truth());
    server.end();
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let profile = recorded.json();
    profile.assert_lost_only(&LATE);
    assert_eq!(profile.loss("processes_late"), 4);
    assert!(profile.loss("processes_late_milliseconds") > 0);
    if by_id {
        earlier.iter().for_each(|pid| drop(truths.remove(pid)));
    }
    assert_eq!(profile.statistic("processes_count"), truths.len() as f64);
    assert_sites_of_each(&recorded, &truths);
}

#[test]
fn workers_of_a_server_that_was_found_by_its_name() {
    attach_modes().for_each(|mode| workers_of_a_running_server(mode, false));
}

#[test]
fn workers_of_a_server_that_was_named_by_its_id() {
    attach_modes().for_each(|mode| workers_of_a_running_server(mode, true));
}
