//! When something goes wrong, or is too much: no wrong totals without a counter that says so.

use std::time::Duration;

use memtrace_tests::fixture::{LEAK, POOL, RANDOM_C, RANDOM_CPP, SITES, STORM};
use memtrace_tests::json::Profile;
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorded, Recorder, Recording, attach_modes};
use memtrace_tests::residue::{self, KernelObjects};
use memtrace_tests::stacks::{Books, Stacks, Values, truth};
use memtrace_tests::target::Leak;

/// Calls that were entered and are not known to have returned. They gave no memory to anybody.
const UNFINISHED: [&str; 2] = ["missed_returns", "calls_unfinished"];

/// What all sites allocated.
fn sum(truth: &Books) -> Values {
    let mut sum = Values::default();
    truth.values().for_each(|values| sum += *values);
    sum
}

fn exact_json() -> Recorder {
    Recorder::exact().output("out.json")
}

#[test]
fn ten_thousand_short_lived_threads() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&STORM.path(), &["threads", "10000"]).expect_success();
        recorded.json().assert_nothing_lost();
        recorded.json().stacks().assert_books("storm", &recorded.truth());
    }
}

/// Where children are not followed, they are not in the parent's books, whatever they do with the objects that they
/// inherit. That there were some is said.
#[test]
fn a_fork_storm() {
    for mode in attach_modes() {
        let recorder = alone(exact_json().attach_mode(mode));
        let recorded = recorder.launch(&STORM.path(), &["forks", "500"]).expect_success();
        assert_own_books(&recorded, 500);
    }
}

/// A child shares its parent's memory from vfork to exec. What it allocates there is its own affair.
#[test]
fn a_vfork_storm() {
    for mode in attach_modes() {
        let recorder = alone(exact_json().attach_mode(mode));
        let recorded = recorder.launch(&STORM.path(), &["vforks", "100"]).expect_success();
        assert_own_books(&recorded, 200);
    }
}

/// Also where children are followed: they become processes of their own when they execute a program.
#[test]
fn children_of_vfork_that_are_followed() {
    for mode in attach_modes() {
        let recorder = exact_json().attach_mode(mode);
        let recorded = recorder.launch(&STORM.path(), &["vforks", "5"]).expect_success();
        let profile = recorded.json();
        // What a child allocates before its exec is seen only where the kernel compares memory, and is its parent's by
        // no stack of its own.
        profile.assert_lost_only(if mode == "perf" { &["stacks_unannounced"] } else { &[] });
        profile.stacks().assert_books("storm", &recorded.truth());
        assert_eq!(profile.statistic("processes_count"), 11.0);
        assert_eq!(profile.statistic("children_not_followed_count"), 0.0);
    }
}

/// Only the command itself.
fn alone(recorder: Recorder) -> Recorder {
    recorder.alone()
}

#[track_caller]
fn assert_own_books(recorded: &Recorded, children: u64) {
    let profile = recorded.json();
    profile.assert_nothing_lost();
    profile.stacks().assert_books("storm", &recorded.truth());
    assert_eq!(profile.statistic("children_not_followed_count"), children as f64);
    recorded.outcome.assert_says(&[&format!("not in this profile: {children} child processes")]);
}

/// The main thread may end before the others, and what `/proc/PID` shows is the main thread's.
///
/// It has a libc of its own: when the main thread has ended, the kernel takes probes off that another test takes off
/// the same file (`main_thread_ended` in docs/losses.md), as it does in the mode perf in any case.
#[test]
fn threads_that_outlive_the_main_thread() {
    let libc = tempfile::tempdir().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).unwrap();
    std::fs::copy(ours, libc.path().join("libc.so.6")).unwrap();
    for mode in attach_modes().filter(|mode| *mode != "perf") {
        let recorder = exact_json().attach_mode(mode);
        let program = STORM.path();
        let mut command = recorder.command(&["--", program.to_str().unwrap(), "orphan", "1000"]);
        let process = Process::spawn(command.env("LD_LIBRARY_PATH", libc.path()));
        let recorded = Recording::of(process, recorder).finish().expect_success();
        recorded.json().stacks().assert_books("storm", &recorded.truth());
        recorded.json().assert_nothing_lost();
    }
}

/// It has ended when memtrace comes. Only one mode can do that, and memtrace takes it.
#[test]
fn attaching_when_the_main_thread_has_ended() {
    let mut command = std::process::Command::new(STORM.path());
    let mut storm = Leak::start(command.args(["wait", "orphan", "100"]));
    for mode in ["session", "multi"] {
        let recorded = exact_json().attach_mode(mode).run(&["-p", &storm.pid().to_string()]);
        recorded.outcome.assert_refused(&[1], &["main thread", "--attach-mode perf"]);
    }
    storm.perform("");
    let recording = exact_json().attach(storm.pid());
    storm.perform("");
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    profile.assert_nothing_lost();
    assert_eq!(profile.stacks().of("kept"), Values::live(100, 48));
    assert_eq!(profile.stacks().of("churned"), Values::freed(100, 1000));
}

/// Threads that an exec ends may be between the entry and the return of a call. Libraries that the next program maps
/// again keep their probes, once each.
#[test]
fn an_exec_storm() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&STORM.path(), &["run", "execs", "8"]).expect_success();
        recorded.json().assert_lost_only(&UNFINISHED);
        assert_gone_at_exec(&recorded.json().stacks(), &recorded.truth());
        let before = recorded.json().stacks().of("before_exec");
        assert!(before.alloc_objects > 8 * 500, "{before:?}");
    }
}

#[test]
fn an_exec_storm_of_an_attached_process() {
    for mode in attach_modes() {
        let mut command = std::process::Command::new(STORM.path());
        let mut storm = Leak::start(command.args(["wait", "execs", "8"]));
        let recording = exact_json().attach_mode(mode).attach(storm.pid());
        let told = storm.perform("go");
        let profile = recording.stop(libc::SIGINT).expect_success().json();
        // It runs on while memtrace looks at it: some of the programs are gone by then, and their names with them.
        profile.assert_lost_only(&[UNFINISHED[0], UNFINISHED[1], "frames_unmapped"]);
        assert_gone_at_exec(&profile.stacks(), &told);
    }
}

/// Asserts that nothing is left of what earlier programs had, and that all is there of the last one's.
#[track_caller]
fn assert_gone_at_exec(stacks: &Stacks, last: &Books) {
    for (site, truth) in last {
        assert_eq!(stacks.of(site), *truth, "at {site}");
    }
    let before = stacks.of("before_exec");
    assert_eq!((before.inuse_objects, before.inuse_space), (0, 0), "gone with the programs");
    let resized = stacks.of("resized");
    assert_eq!((resized.inuse_objects, resized.inuse_space), (50, 500), "{resized:?}");
}

/// malloc is left by longjmp, which makes no return. Nothing was allocated, and what comes after is booked right.
#[test]
fn a_longjmp_out_of_malloc() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&POOL.path(), &["jump", "1000"]).expect_success();
        recorded.json().assert_lost_only(&UNFINISHED);
        recorded.json().stacks().assert_books("pool", &recorded.truth());
    }
}

/// Threads that end inside malloc leave a call under way for ever.
#[test]
fn threads_that_end_inside_malloc() {
    for mode in attach_modes() {
        let recorded = exact_json().attach_mode(mode).launch(&POOL.path(), &["end", "300"]).expect_success();
        recorded.json().assert_lost_only(&UNFINISHED);
        recorded.json().stacks().assert_books("pool", &recorded.truth());
    }
}

/// More calls under way than there are places for them. Those that were left by longjmp make room, or the profile says
/// how many later ones are missing.
#[test]
fn more_abandoned_calls_than_there_are_places_for_them() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&POOL.path(), &["climb", "40000"]).expect_success();
        let (profile, truth) = (recorded.json(), sum(&recorded.truth()));
        profile.assert_lost_only(&["missed_returns", "calls_unfinished", "in_flight_full"]);
        let found = sum(&profile.stacks().books_of("pool"));
        let missing = truth.alloc_objects - found.alloc_objects;
        let said = profile.loss("in_flight_full") as i64;
        assert!((0..=said).contains(&missing), "{mode}: {missing} are missing, {said} are said to be");
    }
}

/// Every table too small at once, and userspace stopped while it happens.
#[test]
fn tiny_tables_and_a_tiny_ring() {
    let mut target = Leak::serve(RANDOM_CPP);
    let recorder = ["--max-live", "64", "--max-stacks", "4", "--ring-size", "4096"].into_iter();
    let recording = recorder.fold(exact_json(), Recorder::option).attach(target.pid());
    recording.process.signal(libc::SIGSTOP);
    let truth = sum(&target.perform("1 8"));
    recording.process.signal(libc::SIGCONT);
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    let all = profile.stacks().sum();
    // libstdc++ and libc allocate, too: exceptions and the threads' stacks.
    assert!(all.alloc_objects >= truth.alloc_objects, "{all:?} for {truth:?}");
    assert!(all.alloc_objects < truth.alloc_objects * 5 / 4, "{all:?} for {truth:?}");
    let (live_full, stacks_full) = (profile.loss("live_table_full"), profile.loss("stack_table_full"));
    assert!(stacks_full as i64 > truth.alloc_objects / 2, "{:?}", profile.losses);
    assert!(live_full as i64 >= truth.inuse_objects - all.inuse_objects, "{:?}", profile.losses);
    assert!((0..=64 + 64).contains(&all.inuse_objects), "{all:?}");
}

#[test]
fn a_target_that_is_killed_amid_allocations() {
    for mode in attach_modes() {
        let mut target = Leak::serve(RANDOM_C);
        let recording = exact_json().attach_mode(mode).attach(target.pid());
        let objects = KernelObjects::held_by(recording.process.pid());
        target.0.tell("1 1000000");
        target.0.wait_for_work(Duration::from_millis(150));
        target.0.signal(libc::SIGKILL);
        let profile = recording.finish().expect_success().json();
        objects.assert_gone();
        // Eight of its threads may have been between the entry and the return of a call.
        profile.assert_lost_only(&UNFINISHED);
        let all = profile.stacks().sum();
        assert!(all.inuse_objects > 0 && all.inuse_objects < all.alloc_objects, "{all:?}");
        assert!(profile.stacks().of("site_malloc").alloc_objects > 0);
    }
}

/// The target's threads are anywhere when the probes vanish, and when they are there again.
#[test]
fn memtrace_killed_amid_allocations_and_attached_again() {
    for mode in attach_modes() {
        let mut target = Leak::serve(RANDOM_C);
        for round in 0..2 {
            let recording = exact_json().attach_mode(mode).attach(target.pid());
            let objects = KernelObjects::held_by(recording.process.pid());
            objects.assert_present();
            target.0.tell(&format!("{} 60", 200 * round));
            std::thread::sleep(Duration::from_millis(50 + 20 * round));
            recording.process.signal(libc::SIGKILL);
            recording.process.finish();
            target.0.stdout_line(|line| line.starts_with('{'));
            residue::assert_no_probe_left(target.pid());
            objects.assert_gone();
        }
        let recording = exact_json().attach_mode(mode).attach(target.pid());
        assert_exact_from_now_on(&mut target, recording);
    }
}

/// Attached and detached amid allocations: nothing is booked of what was allocated before or after.
#[test]
fn attaching_and_detaching_amid_allocations() {
    for mode in attach_modes() {
        let mut target = Leak::serve(RANDOM_C);
        for round in 0..2 {
            target.0.tell(&format!("{} 150", 200 * round));
            let recording = exact_json().attach_mode(mode).attach(target.pid());
            std::thread::sleep(Duration::from_millis(10));
            let profile = recording.stop(libc::SIGINT).expect_success().json();
            profile.assert_lost_only(&UNFINISHED);
            let all = profile.stacks().sum();
            assert!(all.inuse_objects >= 0 && all.inuse_objects <= all.alloc_objects, "{all:?}");
            target.0.stdout_line(|line| line.starts_with('{'));
        }
        let recording = exact_json().attach_mode(mode).attach(target.pid());
        assert_exact_from_now_on(&mut target, recording);
    }
}

#[track_caller]
fn assert_exact_from_now_on(target: &mut Leak, recording: Recording) {
    let truth = target.perform("5 8");
    assert_exact(recording, &truth);
}

#[track_caller]
fn assert_exact(recording: Recording, truth: &Books) {
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    profile.assert_nothing_lost();
    profile.stacks().assert_sites(truth);
}

/// Two at once, by different interfaces of the kernel; the one that stays does not notice the other's end.
#[test]
fn two_memtraces_on_one_busy_target() {
    for (first, second) in
        [("session", "perf"), ("multi", "session"), ("perf", "multi"), ("session", "session")]
    {
        let mut target = Leak::serve(RANDOM_C);
        let stays = exact_json().attach_mode(first).attach(target.pid());
        let goes = exact_json().attach_mode(second).attach(target.pid());
        let truth = target.perform("1 8");
        assert_exact(goes, &truth);
        let profile = stays.stop(libc::SIGINT).expect_success().json();
        profile.assert_nothing_lost();
        profile.stacks().assert_sites(&truth);
    }
}

/// memtrace is stopped for longer than its ring lasts. Names are missing then, and said to be; numbers are not.
#[test]
fn memtrace_that_gets_no_processor_time() {
    let mut target = Leak::serve(SITES);
    let recording = exact_json().option("--ring-size").option("4096").attach(target.pid());
    recording.process.signal(libc::SIGSTOP);
    let truth = sum(&target.perform("1 1000 3 2 16 1000"));
    recording.process.signal(libc::SIGCONT);
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    assert_unannounced(&profile, truth);
}

/// Asserts that stacks are missing, that this is said, and that everything is in the sums all the same.
fn assert_unannounced(profile: &Profile, truth: Values) {
    profile.assert_lost_only(&["stacks_unannounced"]);
    let (stacks, lost) = (profile.stacks(), profile.loss("stacks_unannounced") as i64);
    assert!(lost > truth.alloc_objects / 2, "{:?}", profile.losses);
    assert_eq!(stacks.of("[stack not recorded]").alloc_objects, lost);
    let mut counted = stacks.of("[stack not recorded]");
    counted += sum(&stacks.books_of("sites"));
    assert_eq!(counted, truth);
}

/// What did not fit into the ring is announced with the next sample of the stack.
#[test]
fn stacks_that_did_not_fit_into_the_ring_come_later() {
    let mut target = Leak::serve(SITES);
    let recording = exact_json().option("--ring-size").option("4096").attach(target.pid());
    recording.process.signal(libc::SIGSTOP);
    // Objects that stay, and no others: one stack for each site.
    target.perform("1 40 5 0 16 1000");
    recording.process.signal(libc::SIGCONT);
    // One stack after the other, with time to read each.
    let mut told = String::new();
    for sites in 1..=40 {
        told = target.0.ask(&format!("1 {sites} 1 0 16 1000"));
    }
    // Of the last ones there was one sample each; where memtrace was slow, another one finds room.
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(30));
        told = target.0.ask("1 40 1 0 16 1000");
    }
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    profile.assert_nothing_lost();
    profile.stacks().assert_books("sites", &truth(&told));
}

#[test]
fn a_leak_that_is_killed_keeps_its_books() {
    let mut leak = Leak::serve(LEAK);
    let recording = exact_json().attach(leak.pid());
    leak.perform("leak_a 1000 64 churn 1000 32 hold 50 100");
    leak.0.signal(libc::SIGKILL);
    let profile = recording.finish().expect_success().json();
    profile.assert_nothing_lost();
    assert_eq!(profile.stacks().of("leak_a"), Values::live(1000, 64));
    assert_eq!(profile.stacks().of("churn"), Values::freed(1000, 32));
    assert_eq!(profile.stacks().of("hold"), Values::live(50, 100));
}
