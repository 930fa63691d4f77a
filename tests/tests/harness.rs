//! The tests' own means: fixtures that tell the truth, and checks that can fail.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;

use memtrace_tests::fixture::{
    API, Build, LEAK, LEAK_FRAME_POINTERS, LEAK_STATIC_STRIPPED, OPS, RANDOM_C, RANDOM_CPP, RANDOM_RUST,
    WITNESS,
};
use memtrace_tests::process::Process;
use memtrace_tests::residue;
use memtrace_tests::stacks::{Values, truth};
use memtrace_tests::target::{Leak, Python, Redis};
use memtrace_tests::tools;

/// The witness books each object by the return address of the call that made it. That its books agree shows
/// that the fixture counts well, and that each site calls the allocator itself, neither inlined nor by a tail call.
fn assert_truthful(build: Build, arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let mut command = Command::new(build.exporting_functions().path());
    command.args(arguments).env("LD_PRELOAD", WITNESS.path()).env("WITNESS", &report);
    let outcome = Process::spawn(&mut command).finish().expect_success();
    let mut told = truth(&outcome.stdout);
    told.retain(|_, values| *values != Values::default());

    let demangled = tools::command("c++filt").arg("-p").stdin(std::fs::File::open(&report).unwrap()).output();
    let mut witnessed = BTreeMap::<String, Values>::new();
    for line in String::from_utf8(demangled.unwrap().stdout).unwrap().lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let number = |index: usize| fields[index].parse::<i64>().unwrap();
        let name = fields[0].to_owned();
        *witnessed.entry(name).or_default() += Values {
            alloc_objects: number(1),
            alloc_space: number(2),
            inuse_objects: number(3),
            inuse_space: number(4),
        };
    }
    // What libc and libstdc++ allocate for themselves is not the fixture's.
    witnessed.retain(|name, _| !name.starts_with("_IO_") && !name.starts_with("__cxa_"));
    assert_eq!(told, witnessed, "the fixture (left) and the witness (right) disagree");
}

#[test]
fn leak_tells_the_truth() {
    let operations =
        "leak_a 100 64 leak_b 50 1000 churn 1000 32 chain 7 8 inlined 3 5 hold 10 99 release 4 0";
    let mut arguments = vec!["run"];
    arguments.extend(operations.split(' '));
    let program = LEAK.path();
    let outcome = Process::spawn(Command::new(program).args(&arguments)).finish().expect_success();
    let told = truth(&outcome.stdout);
    assert_eq!(told["leak_a"], Values::live(100, 64));
    assert_eq!(told["churn"], Values::freed(1000, 32));
    assert_eq!(told["hold"].inuse_objects, 6);
    // The inlined function is booked by its own name, but the witness, which sees machine code, says its caller's.
    let without_inlined = operations.replace("inlined 3 5 ", "");
    let mut arguments = vec!["run"];
    arguments.extend(without_inlined.split(' '));
    assert_truthful(LEAK, &arguments);
}

#[test]
fn api_tells_the_truth() {
    assert_truthful(API, &[]);
}

#[test]
fn ops_tells_the_truth() {
    assert_truthful(OPS, &[]);
}

/// The witness is for one thread; of these seeds the scripts have one.
#[test]
fn random_scripts_tell_the_truth() {
    for seed in ["8", "16", "24"] {
        assert_truthful(RANDOM_C, &["run", seed, "1"]);
        assert_truthful(RANDOM_CPP, &["run", seed, "1"]);
    }
}

/// What a seed comes to does not depend on how its threads were scheduled.
#[test]
fn random_scripts_repeat_themselves() {
    for program in [RANDOM_C, RANDOM_CPP, RANDOM_RUST] {
        let play = || Process::spawn(Command::new(program.path()).args(["run", "1", "16"])).finish();
        let told = play().expect_success().stdout;
        assert_eq!(told, play().expect_success().stdout, "{program:?}");
        let sum = truth(&told).values().map(|values| values.alloc_objects).sum::<i64>();
        assert!(sum > 3000, "16 scripts made {sum} objects");
    }
}

#[test]
fn every_variant_of_leak_serves() {
    for build in [LEAK, LEAK_FRAME_POINTERS, LEAK_STATIC_STRIPPED] {
        let mut leak = Leak::serve(build);
        leak.perform("leak_a 1 10");
        assert_eq!(leak.perform("leak_a 2 10")["leak_a"], Values::live(3, 10), "{build:?}");
    }
}

#[test]
fn servers_serve_under_load() {
    Python::serve().assert_serves();
    let redis = Redis::serve();
    let load = redis.benchmark();
    redis.assert_serves();
    drop(load);
    redis.assert_serves();
}

#[test]
fn a_patched_instruction_is_seen_and_so_is_its_repair() {
    let leak = Leak::serve(LEAK);
    assert_eq!(residue::patches(leak.pid()), Vec::<String>::new());

    let maps = std::fs::read_to_string(format!("/proc/{}/maps", leak.pid())).unwrap();
    let libc = maps.lines().find(|line| line.contains("r-xp") && line.contains("/libc.so")).unwrap();
    let address = u64::from_str_radix(libc.split('-').next().unwrap(), 16).unwrap();
    let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{}/mem", leak.pid())).unwrap();
    let mut original = [0];
    memory.read_exact_at(&mut original, address).unwrap();
    assert_ne!(original, [0xcc]);
    memory.write_all_at(&[0xcc], address).unwrap();
    let patches = residue::patches(leak.pid());
    assert_eq!(patches.len(), 1, "{patches:?}");
    assert!(patches[0].contains("libc.so"), "{patches:?}");

    memory.write_all_at(&original, address).unwrap();
    residue::assert_no_probe_left(leak.pid());
}
