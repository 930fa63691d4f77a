//! Mistakes that other tools make in keeping the books, each as a test that is named after it.

use memtrace_tests::fixture::{LEAK, POOL, RANDOM_C, SITES, WITH_PID, WRAPPER};
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorder, attach_modes};
use memtrace_tests::stacks::Values;
use memtrace_tests::target::Leak;
use std::process::Command;

fn exact_json() -> Recorder {
    Recorder::exact().output("out.json")
}

/// A size that is remembered by the thread's id alone is overwritten by the next call, and calls are nested: here
/// every function calls others, for other sizes, and returns other addresses. The outermost counts, once.
#[test]
fn bcc_4970_nested_calls_do_not_mix_up_their_sizes() {
    let preload = format!("LD_PRELOAD={}", WRAPPER.path().display());
    let program = RANDOM_C.path();
    for mode in attach_modes() {
        let arguments = ["--", "env", &preload, program.to_str().unwrap(), "run", "1", "8"];
        let recorded = exact_json().alone().attach_mode(mode).run(&arguments).expect_success();
        recorded.json().assert_nothing_lost();
        recorded.json().stacks().assert_sites(&recorded.truth());
    }
}

/// Symbols of an allocator in the program itself were not found, or found and never fired.
#[test]
fn bcc_4777_5392_an_allocator_linked_into_the_program_is_found() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&POOL.path(), &["reuse", "10", "0"]).expect_success();
        recorded.json().assert_nothing_lost();
        assert_eq!(recorded.json().stacks().of("before"), Values::live(10, 64));
    }
}

/// An object that is still in the books at an address which is handed out again has been freed, unseen: it must go,
/// and that it was unseen must be said.
#[test]
fn an_address_reused_after_a_missed_free() {
    for mode in attach_modes() {
        let recorded =
            exact_json().attach_mode(mode).launch(&POOL.path(), &["reuse", "100", "60"]).expect_success();
        let profile = recorded.json();
        profile.assert_lost_only(&["missed_frees"]);
        assert_eq!(profile.loss("missed_frees"), 60);
        profile.stacks().assert_books("pool", &recorded.truth());
    }
}

/// A call that never returned must not be taken for that of the next thread with the same id, and the same stack.
#[test]
fn a_thread_id_reused_after_a_missed_return() {
    for mode in attach_modes() {
        let recorded = exact_json().attach_mode(mode).launch(&POOL.path(), &["again", "20"]).expect_success();
        recorded.json().assert_lost_only(&["missed_returns", "calls_unfinished"]);
        recorded.json().stacks().assert_books("pool", &recorded.truth());
    }
}

/// Another program that has got the target's process id is not the target.
#[test]
fn a_pid_reused_by_another_program() {
    for mode in attach_modes() {
        let mut leak = Leak::serve(LEAK);
        let pid = leak.pid();
        let recording = exact_json().attach_mode(mode).attach(pid);
        leak.perform("leak_a 10 100");
        // memtrace does not get to know of the end before the other program has run.
        recording.process.signal(libc::SIGSTOP);
        leak.0.signal(libc::SIGKILL);
        leak.0.finish();
        let mut other = Command::new(WITH_PID.path());
        other
            .arg(pid.to_string())
            .arg(LEAK.path())
            .args(["run", "leak_a", "5", "100", "leak_b", "1000", "64"]);
        Process::spawn(&mut other).finish().expect_success();
        recording.process.signal(libc::SIGCONT);
        let stacks = recording.finish().expect_success().json().stacks();
        assert_eq!(stacks.of("leak_a"), Values::live(10, 100));
        assert_eq!(stacks.of("leak_b"), Values::default());
    }
}

/// An exec makes an end of all objects; the process is the same, and goes on being recorded. What the new program
/// has allocated when memtrace gets to know is not what the exec made an end of.
#[test]
fn objects_of_an_earlier_program_are_gone_after_exec() {
    for mode in attach_modes() {
        let mut leak = Leak::serve(LEAK);
        let recording = exact_json().attach_mode(mode).attach(leak.pid());
        leak.perform("leak_a 10 100 churn 5 10");
        recording.process.signal(libc::SIGSTOP);
        leak.execute();
        leak.perform("leak_b 20 200 churn 5 10");
        recording.process.signal(libc::SIGCONT);
        leak.perform("leak_b 10 200");
        let profile = recording.stop(libc::SIGINT).expect_success().json();
        profile.assert_nothing_lost();
        assert_eq!(profile.stacks().of("leak_a"), Values::freed(10, 100));
        assert_eq!(profile.stacks().of("churn"), Values::freed(10, 10));
        assert_eq!(profile.stacks().of("leak_b"), Values::live(30, 200));
    }
}

/// A full table was silent: what did not fit was missing from all sums, or stayed there for ever.
#[test]
fn bcc_3221_5238_a_full_live_table_says_what_is_missing() {
    let recorder = exact_json().option("--max-live").option("1000");
    let recorded =
        recorder.launch(&SITES.path(), &["run", "1", "10", "500", "100", "16", "1000"]).expect_success();
    let (profile, truth) = (recorded.json(), recorded.truth());
    profile.assert_lost_only(&["live_table_full"]);
    let books = profile.stacks().books_by_site(&truth);
    let (mut missing, mut live) = (0, 0);
    for (site, truth) in &truth {
        let values = books[site];
        assert_eq!(
            (values.alloc_objects, values.alloc_space),
            (truth.alloc_objects, truth.alloc_space),
            "at {site} all allocations are counted"
        );
        let range = 0..=truth.inuse_objects;
        assert!(range.contains(&values.inuse_objects), "at {site}: {values:?} for {truth:?}");
        assert!((0..=truth.inuse_space).contains(&values.inuse_space), "at {site}: {values:?} for {truth:?}");
        missing += truth.inuse_objects - values.inuse_objects;
        live += values.inuse_objects;
    }
    // The kernel counts a table's entries per CPU, in batches: the limit is not met to the entry.
    assert!((900..1200).contains(&live), "1000 fit, but {live} are live");
    // Of what did not fit, the churning objects have been freed since.
    let lost = profile.loss("live_table_full") as i64;
    assert!((missing..=missing + 10 * 100).contains(&lost), "{missing} are missing, {lost} are said to be");
    recorded.outcome.assert_says(&["live_table_full", "--max-live"]);
}

/// A full stack table made error codes stand for stacks, and their sums were wrong.
#[test]
fn bcc_3221_5238_a_full_stack_table_says_what_is_missing() {
    // Objects that stay, and no others: one stack for each site.
    let arguments = ["run", "1", "1000", "5", "0", "16", "1000"];
    let all = exact_json().launch(&SITES.path(), &arguments).expect_success();
    all.json().assert_nothing_lost();
    all.json().stacks().assert_books("sites", &all.truth());

    let few =
        exact_json().option("--max-stacks").option("100").launch(&SITES.path(), &arguments).expect_success();
    let profile = few.json();
    profile.assert_lost_only(&["stack_table_full"]);
    assert_eq!(profile.stacks().sum(), all.json().stacks().sum(), "nothing is missing from the sums");
    let nameless = profile.stacks().of("[stack not recorded]");
    assert_eq!(nameless.alloc_objects, profile.loss("stack_table_full") as i64);
    assert!(nameless.alloc_objects > 4000, "{nameless:?}");
    let truth = few.truth();
    let known = profile.stacks().books_of("sites");
    // The kernel counts a table's entries per CPU, in batches, so where the process moves to another CPU a stack that
    // did not fit may do so later. All others are exact.
    let exact = known.iter().filter(|(site, values)| **values == truth[*site]).count();
    assert!(exact > 50 && known.len() - exact < 20, "{exact} of {known:?}");
    for (site, values) in &known {
        assert!(values.alloc_objects <= truth[site].alloc_objects, "{site}: {values:?}");
        assert!(values.alloc_space <= truth[site].alloc_space, "{site}: {values:?}");
    }
    few.outcome.assert_says(&["stack_table_full", "--max-stacks", "stack not recorded"]);
}

/// Frees that are sampled by a draw of their own leave objects behind for ever, and take away others.
#[test]
fn systing_every_n_a_free_follows_its_allocation() {
    let recorder = Recorder::new().interval("16KiB").output("out.json");
    let recorded =
        recorder.launch(&SITES.path(), &["run", "7", "50", "0", "2000", "16", "65536"]).expect_success();
    recorded.json().assert_nothing_lost();
    let books = recorded.json().stacks().books_of("sites");
    assert_eq!(books.len(), 50);
    for (site, values) in books {
        assert!(values.alloc_objects > 0 && values.alloc_space > 0, "{site}: {values:?}");
        assert_eq!((values.inuse_objects, values.inuse_space), (0, 0), "everything was freed at {site}");
    }
}

/// Counts that are packed into bit fields overflow at 16.7 million objects.
#[test]
fn bcc_more_than_16_777_216_objects_are_counted() {
    let recorded = Recorder::new().launch(&LEAK.path(), &["run", "churn", "18000000", "64"]).expect_success();
    let churn = recorded.stacks().of("churn");
    // 2200 samples: a standard error of 2.1 %. What overflows would be 1.2 million.
    assert!((16_000_000..20_000_000).contains(&churn.alloc_objects), "{churn:?}");
    assert_eq!((churn.inuse_objects, churn.inuse_space), (0, 0));
}
