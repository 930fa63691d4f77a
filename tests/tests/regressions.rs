//! Mistakes found in other tools' code or trackers, each as a test that is named after it.

use memtrace_tests::container::Bundle;
use memtrace_tests::fixture::{API, FRAMES, LEAK, LEAK_STATIC_STRIPPED, OPS};
use memtrace_tests::record::{Recorder, attach_modes};
use memtrace_tests::residue::KernelObjects;
use memtrace_tests::stacks::Values;
use memtrace_tests::target::{Leak, Redis};
use std::path::Path;
use std::time::{Duration, Instant};

/// A stack taken at malloc's entry by frame pointers begins with the caller's caller.
#[test]
fn bcc_4958_direct_caller_is_present() {
    let recorded = Recorder::exact().launch(&LEAK.path(), &["run", "chain", "10", "20"]).expect_success();
    assert_eq!(recorded.stacks().of("chain_leaf"), Values::live(10, 20));
}

/// memleak takes a block out of its books when realloc is entered, also when realloc then fails.
#[test]
fn bcc_failed_realloc_leaves_the_old_block_live() {
    let recorded = Recorder::exact().launch(&API.path(), &[]).expect_success();
    let (truth, values) = (recorded.truth()["by_malloc"], recorded.stacks().of("by_malloc"));
    assert_eq!((values.inuse_objects, values.inuse_space), (truth.inuse_objects, truth.inuse_space));
    for site in ["failed_realloc", "failed_reallocarray"] {
        assert_eq!(recorded.stacks().of(site), Values::default(), "{site} allocated nothing");
    }
}

/// Sizes and counts packed into bit fields overflow at 1 TiB.
#[test]
fn bcc_more_than_a_tebibyte_is_counted() {
    // Memory that nobody touches takes addresses only.
    let gib4 = 4i64 << 30;
    let recorded = Recorder::exact().launch(&LEAK.path(), &["run", "leak_a", "300", &gib4.to_string()]);
    assert_eq!(recorded.expect_success().stacks().of("leak_a"), Values::live(300, gib4));
}

/// "could not determine address of symbol malloc", and no word on what to do.
#[test]
fn bcc_3432_4210_target_without_malloc_symbol_is_explained() {
    let mut leak = Leak::serve(LEAK_STATIC_STRIPPED);
    let recorded = Recorder::new().run(&["-p", &leak.pid().to_string()]);
    recorded.outcome.assert_refused(&[1], &["malloc|allocator", "hint:|static"]);
    assert_eq!(leak.perform("leak_a 1 10")["leak_a"], Values::live(1, 10), "the target is unharmed");
}

/// operator new of libstdc++ was not found, or found and never fired.
#[test]
fn bcc_4777_5392_operator_new_is_booked_to_its_caller() {
    let recorded = Recorder::exact().launch(&OPS.path(), &[]).expect_success();
    assert_eq!(recorded.stacks().of("ops::by_new"), recorded.truth()["ops::by_new"]);
    assert_eq!(recorded.stacks().of("ops::by_new_array"), recorded.truth()["ops::by_new_array"]);
}

/// A return probe replaces the return address on the stack, through which an exception cannot unwind: with one on
/// a function that throws, the target is terminated.
#[test]
fn exceptions_pass_through_a_traced_operator_new() {
    let recorded = Recorder::exact().launch(&OPS.path(), &["throw"]).expect_success();
    assert_eq!(recorded.stacks().of("ops::by_new"), Values::live(1, 48));
    assert_eq!(recorded.stacks().of("ops::failed_new"), Values::default());
    assert_eq!(recorded.stacks().of("ops::failed_nothrow_new"), Values::default());
}

/// The same for stacks of which the allocator's own frames are a part: they say nothing to the user.
#[test]
fn the_allocators_own_frames_are_not_in_the_profile() {
    let recorded = Recorder::exact().launch(&OPS.path(), &[]).expect_success();
    for stack in recorded.stacks().0.iter().filter(|stack| stack.frames[0].mapping.ends_with("/ops")) {
        let inner: Vec<_> = stack.names().into_iter().filter(|name| name.contains("operator new")).collect();
        assert!(inner.is_empty(), "{stack:?}");
    }
}

/// Locations without a mapping break what ingests pprof, and mappings without build-id cannot be symbolized later.
#[test]
fn pyroscope_every_location_has_a_mapping_with_a_build_id() {
    let redis = Redis::serve();
    let load = redis.benchmark();
    let recording = Recorder::new().interval("16KiB").attach(redis.pid());
    redis.wait_for_commands(10_000);
    let recorded = recording.stop(libc::SIGINT).expect_success();
    drop(load);
    let profile = recorded.pprof();
    assert!(!profile.location.is_empty());
    for location in &profile.location {
        let mapping = profile.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
        let mapping = mapping.unwrap_or_else(|| panic!("no mapping on {location:?}"));
        let name = profile.text(mapping.filename);
        if name.starts_with('/') {
            assert!(profile.text(mapping.build_id).len() >= 16, "no build-id on {name}");
            let range = mapping.memory_start..mapping.memory_limit;
            assert!(range.contains(&location.address), "{location:?} is not in {mapping:?}");
        }
    }
}

/// Detaching probe by probe took seconds.
#[test]
fn codspeed_518_datadog_55730_tear_down_is_quick() {
    let leak = Leak::serve(LEAK);
    let recording = Recorder::new().attach(leak.pid());
    let objects = KernelObjects::held_by(recording.process.pid());
    objects.assert_present();
    let started = Instant::now();
    recording.stop(libc::SIGINT).expect_success();
    let took = started.elapsed();
    // Far less than a second, on a machine that has nothing else to do.
    assert!(took < Duration::from_secs(30), "{took:?}");
    objects.assert_gone();
}

/// memtrace's own: a copy of a library that had probes already was taken for that library, but probes are set on an inode.
#[test]
fn a_program_that_is_executed_in_a_chroot_has_probes_on_its_own_libraries() {
    let root = Bundle::new();
    root.add_libraries_of(&LEAK.path());
    root.add(&LEAK.path(), Path::new("/leak"));
    for mode in attach_modes() {
        let at = root.root();
        let arguments = ["--", "chroot", at.to_str().unwrap(), "/leak", "run", "leak_a", "10", "100"];
        let recorded = Recorder::exact().attach_mode(mode).run(&arguments).expect_success();
        assert_eq!(recorded.stacks().of("leak_a"), Values::live(10, 100));
    }
}

/// memtrace's own, found by comparing it with framehop: a frame pointer of 0 was taken for the mark of a thread's first
/// function in code that uses the register for something else, and the stack was presented as whole.
#[test]
fn a_frame_pointer_that_is_0_by_chance_is_no_root() {
    let no_tables = FRAMES.flags(&["-pthread", "-g0", "-fno-asynchronous-unwind-tables"]);
    // glibc begins threads with 0 in the register.
    let recorder = Recorder::exact().output("out.folded");
    let recorded = recorder.launch(&no_tables.path(), &["thread"]).expect_success();
    let text = std::fs::read_to_string(recorded.output()).expect("the profile is there");
    let stacks: Vec<_> = text.lines().filter(|line| line.ends_with(";allocate 100")).collect();
    assert_eq!(stacks, ["[stack cut short: no_table];allocate 100"], "{text}");
}
