//! `memtrace doctor`: what this kernel, these capabilities and this target allow.

use memtrace_tests::fixture::{LEAK, LEAK_STATIC_STRIPPED};
use memtrace_tests::process::Outcome;
use memtrace_tests::record;
use memtrace_tests::target::{Leak, Redis};

fn doctor(arguments: &[&str]) -> Outcome {
    record::run(&[&["doctor"], arguments].concat())
}

fn assert_reports(outcome: &Outcome, words: &[&str]) {
    for word in words {
        let found = outcome.stdout.to_lowercase().contains(&word.to_lowercase());
        assert!(found, "`{word}` is missing in\n{}", outcome.stdout);
    }
}

#[test]
fn this_machine_is_fine() {
    let outcome = doctor(&[]).expect_success();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_reports(&outcome, &[release.trim(), "uprobe", "ring buffer", "BTF", "CAP_BPF", "CAP_PERFMON"]);
}

#[test]
fn the_allocator_of_a_target_is_named() {
    let redis = Redis::serve();
    assert_reports(
        &doctor(&["-p", &redis.pid().to_string()]).expect_success(),
        &["jemalloc", "redis-server"],
    );
    let leak = Leak::serve(LEAK);
    assert_reports(
        &doctor(&["-p", &leak.pid().to_string()]).expect_success(),
        &["glibc", "libc.so.6", "malloc"],
    );
}

#[test]
fn a_target_that_cannot_be_traced_is_an_unhealthy_one() {
    let leak = Leak::serve(LEAK_STATIC_STRIPPED);
    let outcome = doctor(&["-p", &leak.pid().to_string()]);
    assert_eq!(outcome.code(), 1, "{}{}", outcome.stdout, outcome.stderr);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains("malloc") || said.contains("allocator"), "{said}");
}

#[test]
fn json_is_json() {
    let leak = Leak::serve(LEAK);
    let pid = leak.pid().to_string();
    for arguments in [&["--json"][..], &["--json", "-p", &pid]] {
        let outcome = doctor(arguments).expect_success();
        let value: serde_json::Value =
            serde_json::from_str(&outcome.stdout).expect("--json prints JSON alone");
        assert!(value.as_object().is_some_and(|object| !object.is_empty()), "{value}");
    }
}

#[test]
fn no_such_pid_is_said() {
    doctor(&["-p", "4194305"]).assert_refused(&[1], &["4194305"]);
}
