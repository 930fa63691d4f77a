//! Several processes in one recording: what a command starts, and what appears that matches.
//! Each process has its own books, and the profile of all is their sum.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use memtrace_tests::family::{self, Named, Server};
use memtrace_tests::fixture::{FAMILY, LEAK};
use memtrace_tests::gopprof::top;
use memtrace_tests::process::{PATIENCE, Process};
use memtrace_tests::python::{Script, python_frames};
use memtrace_tests::record::{Recorded, Recorder, Recording, attach_modes};
use memtrace_tests::residue::{self, KernelObjects};
use memtrace_tests::servers::{Nginx, Postgres, children};
use memtrace_tests::stacks::{self, Books, Stack, Stacks, Values, truths};
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
        assert_eq!(in_all.sum(), own(&stacks), "of {of:?}");
        assert_eq!(profile.loss("books_unbalanced"), 0);
        let mut truth = truths.get(&of.pid).cloned().unwrap_or_default();
        println!("{of:?}");
        let more = stacks.of(INHERITED) - truth.remove(INHERITED).unwrap_or_default();
        // That of a thread: the C library allocates something for each.
        assert!((0..=1).contains(&more.inuse_objects), "{more:?} was inherited, too");
        assert!(more.inuse_objects == 1 || more == Values::default(), "{more:?} was inherited, too");
        stacks.assert_books(program, &truth);
    }
    let recorded: Vec<_> = each.keys().map(|of| of.pid).collect();
    let missing: Vec<_> = truths.keys().filter(|pid| !recorded.contains(pid)).collect();
    assert!(missing.is_empty(), "{missing:?} have no profiles among {recorded:?}");
    assert_sum(&all.stacks(), each.values().map(|profile| profile.stacks()));
}

/// What a process has of its creator's, in its own profile: in that of all processes it is there once.
const INHERITED: &str = "[inherited at fork]";

/// What the process itself has allocated.
fn own(stacks: &Stacks) -> Values {
    stacks.sum() - stacks.of(INHERITED)
}

/// Asserts that one profile says as much as the others together.
#[track_caller]
fn assert_sum(all: &Stacks, each: impl Iterator<Item = Stacks>) {
    let mut sum = Values::default();
    each.for_each(|stacks| sum += own(&stacks));
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
        // What its creator had allocated before the recording began is not known.
        let mut truth = truth.clone();
        truth.remove(INHERITED);
        profile.stacks().assert_sites(&truth);
        by_pid[&pid.to_string()].assert_sites(&truth);
        assert_eq!(profile.loss("books_unbalanced"), 0);
    }
    assert_sum(&all.stacks(), each.values().map(json::Profile::stacks));
}

/// What cannot be helped where memtrace has not started a process: it runs for a moment before it has its probes, and
/// whatever else this machine executes may have ended before it is looked at.
const LATE: [&str; 3] = ["processes_late", "processes_late_milliseconds", "processes_unseen"];

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

/// A process that begins later, whoever has started it, is recorded if it matches.
#[test]
fn a_newcomer_that_matches() {
    let program = Named::new("newcomer");
    let mut first = Server::start(&program.path());
    let selection = program.selection();
    let selection = selection.each_ref().map(String::as_str);
    let (mut recording, pid) = exact_json().verbose().select(&selection);
    assert_eq!(pid, first.pid());
    let mut second = Server::start(&program.path());
    let mut other = Server::start(&FAMILY.path());
    recording.wait_for_probes(&[second.pid()]);
    residue::assert_no_probe_left(other.pid());
    let mut truths = BTreeMap::new();
    for server in [&mut first, &mut second] {
        truths.insert(server.pid(), server.truth());
    }
    other.truth();
    let recorded = recording.stop(libc::SIGINT).expect_success();
    recorded.json().assert_lost_only(&LATE);
    assert_eq!(recorded.json().statistic("processes_count"), 2.0);
    assert_sites_of_each(&recorded, &truths);
}

/// How many short processes there are in a storm.
fn storm_size() -> i64 {
    let size = std::env::var("MEMTRACE_STORM").unwrap_or_else(|_| "300".to_owned());
    size.parse().unwrap_or_else(|_| panic!("MEMTRACE_STORM={size} is no number of processes"))
}

/// What memtrace needs while `process` runs, which is it: kilobytes of memory, and descriptors.
fn most_needed(process: &mut Process) -> (u64, usize) {
    let proc = PathBuf::from(format!("/proc/{}", process.pid()));
    let (mut memory, mut descriptors) = (0, 0);
    while process.is_running() {
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        memory = memory.max(kilobytes.unwrap_or(0));
        descriptors = descriptors.max(std::fs::read_dir(proc.join("fd")).map_or(0, Iterator::count));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("at most {memory} kB and {descriptors} descriptors");
    (memory, descriptors)
}

/// Hundreds of processes that hardly live, four at a time: none of a command's is missed.
#[test]
fn a_storm_of_short_processes() {
    let size = storm_size();
    let leaf = Named::new("leaf");
    let recorder = exact_json();
    let (number, program) = (size.to_string(), FAMILY.path());
    let arguments = ["--", program.to_str().unwrap(), "storm", &number, "4", leaf.path().to_str().unwrap()]
        .map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    let mut process = Process::spawn(&mut recorder.command(&arguments));
    let (memory, descriptors) = most_needed(&mut process);
    let recorded = Recording::of(process, recorder).finish().expect_success();
    let profile = recorded.json();
    profile.assert_nothing_lost();
    assert_eq!(profile.statistic("processes_count") as i64, size + 1);
    let mut truth = truths(&recorded.outcome.stdout).into_values().next().expect("storm tells its own truth");
    *truth.get_mut("kept").unwrap() += Values::live(10 * size, 48);
    *truth.get_mut("churned").unwrap() += Values::freed(5 * size, 1000);
    profile.stacks().assert_books("family", &truth);
    assert_eq!(recorded.each().len() as i64, size + 1);
    // The rest is what a single process takes, too.
    assert!(memory < 100_000 + 100 * size as u64, "{memory} kB");
    assert!(descriptors < 1000, "{descriptors} descriptors");
}

/// The same where memtrace gets to know of processes when they have begun: each is recorded, or counted.
#[test]
fn a_storm_of_short_processes_that_match() {
    let size = storm_size();
    let leaf = Named::new("leaf");
    let mut first = Server::start(&leaf.path());
    let selection = leaf.selection();
    let (mut recording, _) = exact_json().select(&selection.each_ref().map(String::as_str));
    let mut storm = Command::new(FAMILY.path());
    Process::spawn(storm.args(["storm", &size.to_string(), "4"]).arg(leaf.path())).finish().expect_success();
    let truth = first.truth();
    assert!(recording.process.is_running(), "one process is still there");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let profile = recorded.json();
    let lost = ["processes_missed", "calls_unfinished", "missed_frees"];
    profile.assert_lost_only(&[&LATE[..], &lost].concat());
    let seen = profile.statistic("processes_count") as i64;
    let [missed, unseen] = ["processes_missed", "processes_unseen"].map(|name| profile.loss(name) as i64);
    println!("{seen} processes recorded, {missed} missed, {unseen} unseen, of {}", size + 1);
    // What else this machine executes meanwhile is among those of which it was not seen whether they match.
    assert_eq!(seen + missed, size + 1, "each is recorded, or counted as missed");
    assert_eq!(profile.loss("processes_late") as i64, seen - 1);
    let leaves = profile.stacks().books_of("family");
    for (of, profile) in recorded.each() {
        if of.pid == first.pid() {
            profile.stacks().assert_books("family", &truth);
            continue;
        }
        let books = profile.stacks().books_of("family");
        for (site, most) in [("kept", Values::live(10, 48)), ("churned", Values::freed(5, 1000))] {
            let values = books.get(site).copied().unwrap_or_default();
            assert!((0..=most.alloc_objects).contains(&values.alloc_objects), "{of:?}: {books:?}");
            assert!((0..=most.inuse_objects).contains(&values.inuse_objects), "{of:?}: {books:?}");
        }
    }
    assert!(leaves["kept"].alloc_objects <= truth["kept"].alloc_objects + 10 * size);
}

/// When the time is over, what the command has started goes on, and so do those that are started later.
#[test]
fn a_tree_outlives_its_recording() {
    let script = "\"$0\" serve; exit 7";
    let program = FAMILY.path();
    let recorder = exact_json().option("-d").option("1");
    let arguments = ["--", "sh", "-c", script, program.to_str().unwrap()];
    let mut process = Process::spawn(&mut recorder.command(&arguments));
    process.stdout_line(|line| line == "ready");
    let mut workers = family::fork(&mut process, 2);
    process.stderr_line(|line| line.starts_with("memtrace: wrote out.json"));
    workers.extend(family::fork(&mut process, 2));
    for worker in &workers {
        residue::assert_no_probe_left(*worker);
    }
    let truths = family::work(&mut process, 4);
    assert_eq!(truths.into_keys().collect::<BTreeSet<_>>(), workers.into_iter().collect());
    assert_eq!(process.ask("end"), "ended");
    assert!(process.is_running(), "memtrace waits for the command");
    let outcome = process.finish();
    outcome.assert_civil();
    assert_eq!(outcome.code(), 7);
}

/// Processes that are told to stop whenever memtrace has to look at them go on when nobody looks any more.
#[test]
fn a_tree_goes_on_when_memtrace_is_killed() {
    let leaf = Named::new("leaf");
    let program = FAMILY.path();
    for round in 0..5 {
        println!("round {round}");
        let recorder = exact_json();
        let arguments = ["--", program.to_str().unwrap(), "storm", "100", "4", leaf.path().to_str().unwrap()]
            .map(str::to_owned);
        let mut process = Process::spawn(&mut recorder.command(&arguments.each_ref().map(String::as_str)));
        let line = process.stderr_line(|line| line.starts_with("memtrace: tracing pid "));
        let pid: u32 =
            line.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect("a process id");
        let limit = Instant::now() + PATIENCE;
        while children(pid).len() < 2 {
            assert!(Instant::now() < limit, "there are no children");
            std::thread::sleep(Duration::from_millis(1 + 7 * round));
        }
        let objects = KernelObjects::held_by(process.pid());
        objects.assert_programs();
        process.signal(libc::SIGKILL);
        let line = process.stdout_line(|line| line.ends_with('}'));
        assert_eq!(truths(&line).into_keys().collect::<Vec<_>>(), [pid]);
        objects.assert_gone();
    }
}

/// How long real servers are under load, in seconds.
fn load_seconds() -> String {
    std::env::var("MEMTRACE_LOAD_SECONDS").unwrap_or_else(|_| "3".to_owned())
}

/// Asserts that some stack of `program` has each of `names`.
#[track_caller]
fn assert_names(stacks: &Stacks, program: &str, names: &[&str]) {
    let is_in = |name: &str| {
        let mut frames = stacks.0.iter().flat_map(|stack| &stack.frames);
        frames.any(|frame| frame.name() == name && frame.mapping.rsplit('/').next() == Some(program))
    };
    for name in names {
        assert!(is_in(name), "no {name} of {program} in any of {} stacks", stacks.0.len());
    }
}

#[test]
fn twenty_backends_of_postgres() {
    let postgres = Postgres::serve();
    let selection = postgres.program.selection();
    let recorder = Recorder::exact().output("out.json");
    let (recording, pid) = recorder.select(&selection.each_ref().map(String::as_str));
    assert_eq!(pid, postgres.pid());
    postgres.bench(&["--client", "20", "--jobs", "2", "--time", &load_seconds()]);
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let served = postgres.finish();
    let profile = recorded.json();
    profile.assert_lost_only(&[&LATE[..], &["processes_missed"]].concat());
    assert!(profile.loss("processes_missed") < 2);
    let each = recorded.each();
    // pgbench asks for the number of rows first, by a connection that hardly lives.
    let expected: BTreeSet<_> = served[served.len() - 20..].iter().copied().collect();
    println!("{} processes, {} ms late in all", each.len(), profile.loss("processes_late_milliseconds"));
    let found: BTreeMap<_, _> = each.iter().map(|(of, profile)| (of.pid, profile)).collect();
    for pid in &expected {
        let profile =
            found.get(pid).unwrap_or_else(|| panic!("backend {pid} has no profile: {:?}", each.keys()));
        assert_names(&profile.stacks(), "postgres", &["PostgresMain"]);
        assert_eq!(profile.loss("books_unbalanced"), 0);
    }
    assert!(profile.loss("processes_late") >= expected.len() as u64);
    assert_names(&profile.stacks(), "postgres", &["AllocSetContextCreateInternal", "PostgresMain"]);
    assert_sum(&profile.stacks(), each.values().map(json::Profile::stacks));
}

#[test]
fn new_workers_of_nginx() {
    let nginx = Nginx::serve();
    let selection = nginx.program.selection();
    let recorder = Recorder::exact().output("out.json").verbose();
    let (mut recording, pid) = recorder.select(&selection.each_ref().map(String::as_str));
    assert_eq!(pid, nginx.pid());
    nginx.load();
    let workers = nginx.reload();
    recording.wait_for_probes(&workers);
    nginx.load();
    let recorded = recording.stop(libc::SIGINT).expect_success();
    let profile = recorded.json();
    profile.assert_lost_only(&LATE);
    assert_eq!(profile.loss("processes_late"), Nginx::WORKERS as u64);
    assert_eq!(profile.statistic("processes_count"), (1 + 2 * Nginx::WORKERS) as f64);
    let each = recorded.each();
    let with_requests = each.iter().filter(|(of, profile)| {
        let stacks = profile.stacks();
        let mut names = stacks.0.iter().flat_map(Stack::names);
        workers.contains(&of.pid) && names.any(|name| name.starts_with("ngx_http_"))
    });
    assert!(with_requests.count() > 0, "no new worker has served a request: {:?}", each.keys());
    assert_sum(&profile.stacks(), each.values().map(json::Profile::stacks));
    for worker in &workers {
        residue::assert_no_probe_left(*worker);
    }
    nginx.finish();
}
