//! Python functions in stacks: the right function, file and line, and never those of another thread.

use memtrace_tests::gopprof::{pprof, top};
use memtrace_tests::process::Process;
use memtrace_tests::python::{MAPPING, Script, interpreters, python_frames};
use memtrace_tests::record::{Recorded, Recorder, attach_modes};
use memtrace_tests::stacks::{Stack, Stacks, Values};
use memtrace_tests::tools;

const KIB: i64 = 1024;

/// What each function of the script allocates for itself: how many blocks, of how many KiB.
const ALLOCATED: [(&str, i64, i64); 18] = [
    ("plain", 1, 1001),
    ("Thing.method", 1, 1002),
    ("Thing.wrapped", 1, 1003),
    ("nested.<locals>.inner", 1, 1004),
    ("generator", 2, 1005),
    ("key", 1, 1007),
    ("mapped", 1, 1008),
    ("comprehension", 1, 1009),
    ("raising", 1, 1010),
    ("waiting", 1, 1011),
    ("by_lambda.<locals>.<lambda>", 1, 1012),
    ("recursive", 1, 1013),
    ("Dying.__del__", 1, 1014),
    ("in_thread", 1, 1015),
    ("größe", 1, 1016),
    ("without_lock", 300, 1017),
    ("foreign_thread", 5, 1018),
    ("with_lock", 300, 1019),
];

/// Who calls whom, at marked lines.
const CALLS: [(&str, &[&str]); 10] = [
    ("Thing.wrapped", &["call_wrapped", "everything"]),
    ("nested.<locals>.inner", &["nested", "everything"]),
    ("generator", &["consume", "everything"]),
    ("key", &["through_sorted", "everything"]),
    ("mapped", &["through_map", "everything"]),
    ("comprehension", &["everything"]),
    ("waiting", &["outer", "run_async", "everything"]),
    ("by_lambda.<locals>.<lambda>", &["by_lambda", "everything"]),
    ("Dying.__del__", &["drop", "everything"]),
    ("in_thread", &["Thread.run", "Thread._bootstrap_inner", "Thread._bootstrap"]),
];

/// The blocks of the script: all that is so large. By the size of a block in KiB.
fn blocks(stacks: &Stacks) -> impl Iterator<Item = (i64, &Stack)> {
    stacks.0.iter().filter_map(|stack| {
        let Values { alloc_objects, alloc_space, .. } = stack.values;
        let size = if alloc_objects == 0 { 0 } else { alloc_space / alloc_objects / KIB };
        (1001..=1019).contains(&size).then_some((size, stack))
    })
}

/// Where a comprehension is a function of its own (up to 3.11), it belongs to the function around it.
fn without_comprehension(name: &str) -> &str {
    name.strip_suffix(".<locals>.<listcomp>").unwrap_or(name)
}

/// Asserts that every block of the script stands under its function and line, and under nothing else.
fn assert_functions(stacks: &Stacks, script: &Script) {
    for (function, objects, size) in ALLOCATED {
        let mut values = Values::default();
        let mut found = 0;
        for (_, stack) in blocks(stacks).filter(|(of, _)| *of == size) {
            let frames = python_frames(stack);
            values += stack.values;
            found += 1;
            if function == "foreign_thread" {
                // Not what the thread that has made it runs, although that waits in Python.
                assert!(frames.is_empty(), "the interpreter knows nothing of this thread: {frames:#?}");
                continue;
            }
            let names: Vec<_> = frames.iter().map(|frame| without_comprehension(&frame.function)).collect();
            assert_eq!(names.first(), Some(&function), "{names:?}");
            assert_eq!((frames[0].line, frames[0].file.as_str()), (script.line(function), script.argument()));
            let root = if ["in_thread", "without_lock", "with_lock"].contains(&function) {
                "Thread._bootstrap"
            } else {
                "<module>"
            };
            assert_eq!(names.last(), Some(&root), "{names:?}");
        }
        // A bytearray has one byte more, and since 3.15 the head of a bytes object, too.
        let more: &[i64] =
            if ["without_lock", "foreign_thread"].contains(&function) { &[0] } else { &[1, 33] };
        let allocated = (values.alloc_objects, values.alloc_space);
        let truths: Vec<_> = more.iter().map(|more| (objects, objects * (size * KIB + more))).collect();
        assert!(truths.contains(&allocated), "{function}: {allocated:?}, and not one of {truths:?}");
        assert!(found > 0, "{function}");
    }
}

fn assert_calls(stacks: &Stacks, script: &Script) {
    for (function, callers) in CALLS {
        let size = ALLOCATED.iter().find(|(name, ..)| *name == function).expect("it allocates").2;
        let (_, stack) = blocks(stacks).find(|(of, _)| *of == size).expect("it has allocated");
        let frames = python_frames(stack);
        let mut rest = frames.iter().skip(1);
        for caller in callers {
            let called = rest.find(|frame| frame.function == *caller);
            let called = called.unwrap_or_else(|| panic!("{caller} has called {function}: {frames:#?}"));
            if called.file == script.argument() && *caller != "everything" {
                assert_eq!(called.line, script.line(caller), "{caller} called {function} there");
            }
        }
    }
    let (_, stack) = blocks(stacks).find(|(of, _)| *of == 1013).expect("recursive has allocated");
    let deep = python_frames(stack).iter().filter(|frame| frame.function == "recursive").count();
    assert_eq!(deep, 21);
}

fn loss(recorded: &Recorded, name: &str) -> u64 {
    let losses = recorded.json().losses;
    losses.iter().find(|loss| loss.name == name).map_or(0, |loss| loss.count)
}

#[test]
fn every_function_is_named_with_its_line() {
    let script = Script::functions();
    for python in interpreters() {
        let recorded = Recorder::exact().launch(&python, &[script.argument()]).expect_success();
        let stacks = recorded.stacks();
        assert_functions(&stacks, &script);
        assert_calls(&stacks, &script);
    }
}

#[test]
fn an_attached_interpreter_has_its_functions_in_every_mode() {
    let script = Script::functions();
    for mode in attach_modes() {
        let mut python = Process::spawn(tools::command("/usr/bin/python3").arg(&script.path));
        python.stdout_line(|line| line == "ready");
        let recording = Recorder::exact().attach_mode(mode).attach(python.pid());
        python.tell("go");
        python.stdout_line(|line| line == "done");
        let recorded = recording.stop(libc::SIGINT).expect_success();
        assert_functions(&recorded.stacks(), &script);
        python.tell("end");
        python.finish().expect_success();
    }
}

/// The interpreter knows its threads by the numbers of its own PID namespace.
#[test]
fn an_interpreter_in_a_pid_namespace_has_its_functions() {
    let script = Script::functions();
    let mut unshare = Process::spawn(
        tools::command("unshare").args(["--pid", "--fork", "/usr/bin/python3"]).arg(&script.path),
    );
    unshare.stdout_line(|line| line == "ready");
    let pid = unshare.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("unshare runs");
    let child = children.trim().parse().expect("unshare has one child");
    let recording = Recorder::exact().attach(child);
    unshare.tell("go");
    unshare.stdout_line(|line| line == "done");
    let recorded = recording.stop(libc::SIGINT).expect_success();
    assert_functions(&recorded.stacks(), &script);
}

#[test]
fn an_interpreter_that_is_executed_later_is_found() {
    let script = Script::functions();
    let command = format!("exec /usr/bin/python3 {}", script.argument());
    let recorded = Recorder::exact().option("-v").run(&["--", "/bin/sh", "-c", &command]).expect_success();
    assert_functions(&recorded.stacks(), &script);
    let said = &recorded.outcome.stderr;
    assert!(said.contains("found CPython 3."), "{said}");
}

#[test]
fn go_pprof_shows_functions_and_lines() {
    let script = Script::functions();
    let python = std::path::Path::new("/usr/bin/python3");
    let recorded = Recorder::exact().launch(python, &[script.argument()]).expect_success();
    let rows = top("alloc_space", &[], &recorded.output());
    for function in ["Thing.method", "key", "with_lock", "größe", "by_lambda.<locals>.<lambda>"] {
        assert!(rows.iter().any(|row| row.function == function), "{function} is not in {rows:#?}");
    }
    let listing = pprof(&["-sample_index=alloc_space", "-list=^plain$"], &recorded.output());
    let line = listing.lines().find(|line| line.contains("# LINE plain")).expect("the line is listed");
    assert!(line.contains(&format!("{}:", script.line("plain"))) && line.contains("1001kB"), "{listing}");
}

#[test]
fn python_can_be_left_out() {
    let script = Script::functions();
    let python = std::path::Path::new("/usr/bin/python3");
    let recorder = Recorder::exact().option("--python").option("off");
    let recorded = recorder.launch(python, &[script.argument()]).expect_success();
    let stacks = recorded.stacks();
    assert!(stacks.0.iter().all(|stack| stack.frames.iter().all(|frame| frame.mapping != MAPPING)));
    let allocated: i64 = ALLOCATED.iter().map(|(_, objects, size)| objects * size * KIB).sum();
    assert!(stacks.sum().alloc_space > allocated, "all the same it was seen");
}

/// A stack that is too deep says so, and has its innermost functions.
#[test]
fn a_deep_recursion_is_marked() {
    let code = "def deep(n): return deep(n - 1) if n else bytearray(3 << 20)\nkept = deep(300)";
    for python in interpreters() {
        let recorded = Recorder::exact().output("out.json").launch(&python, &["-c", code]).expect_success();
        let stacks = recorded.json().stacks();
        let large = stacks.0.iter().find(|stack| stack.values.alloc_space > 3 << 20).expect("3 MiB");
        let frames = python_frames(large);
        assert!((95..=100).contains(&frames.len()), "{} frames", frames.len());
        assert!(frames.iter().all(|frame| frame.function == "deep"));
        assert!(loss(&recorded, "python_truncated") > 0);
    }
}

/// What `objects.py` keeps: the function, how many, and how many bytes each, on any 64-bit CPython since 3.8. A bytes
/// object has 33 bytes beside its contents; a tuple of 25 has 224, and 16 before it for the garbage collector.
const KEPT: [(&str, i64, i64); 3] =
    [("small", 100_000, 73), ("large", 1_000, 2_033), ("tuples", 100_000, 240)];

/// What stands under a Python function in objects of this size.
fn kept(stacks: &Stacks, function: &str, size: i64) -> Values {
    let mut sum = Values::default();
    for stack in &stacks.0 {
        let Values { alloc_objects, alloc_space, .. } = stack.values;
        let is_its = python_frames(stack).first().is_some_and(|frame| frame.function == function);
        if is_its && alloc_space == alloc_objects * size {
            sum += stack.values;
        }
    }
    sum
}

fn objects(mode: &str, environment: &[(&str, &str)], options: &[&str]) -> memtrace_tests::json::Profile {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/objects.py");
    let mut python =
        Process::spawn(tools::command("/usr/bin/python3").arg(script).envs(environment.iter().copied()));
    python.stdout_line(|line| line == "ready");
    let recorder = Recorder::exact().attach_mode(mode).output("out.json");
    let recorder = options.iter().fold(recorder, |recorder, option| recorder.option(option));
    let recording = recorder.attach(python.pid());
    assert_eq!(python.ask("go"), "done");
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    assert!(python.is_running());
    profile
}

/// Debian's interpreter has copies of `PyObject_Malloc` where tuples are made, but none where bytes are. Large objects
/// come from malloc, and count once all the same.
#[test]
fn objects_are_seen_as_far_as_the_interpreter_has_no_copies() {
    for mode in attach_modes() {
        let profile = objects(mode, &[], &["--python-objects"]);
        for (function, count, size) in &KEPT[..2] {
            assert_eq!(kept(&profile.stacks(), function, *size), Values::live(*count, *size), "{function}");
        }
        let by_allocator = profile.by_label("allocator");
        assert!(by_allocator["pymalloc"].alloc_objects >= 101_000, "{by_allocator:?}");
        assert!(profile.loss("python_objects_copied") > 12, "{:?}", profile.losses);
    }
}

#[test]
fn without_being_asked_for_small_objects_are_not_looked_for() {
    let profile = objects("session", &[], &[]);
    assert_eq!(kept(&profile.stacks(), "small", 73), Values::default());
    // Malloc serves what is larger than 512 bytes.
    assert_eq!(kept(&profile.stacks(), "large", 2_033), Values::live(1_000, 2_033));
    assert!(!profile.by_label("allocator").contains_key("pymalloc"));
    assert_eq!(profile.loss("python_objects_copied"), 0);
}

#[test]
fn without_its_own_allocator_every_object_is_seen_once() {
    for options in [&[][..], &["--python-objects"]] {
        let profile = objects("session", &[("PYTHONMALLOC", "malloc")], options);
        for (function, count, size) in KEPT {
            assert_eq!(kept(&profile.stacks(), function, size), Values::live(count, size), "{function}");
        }
    }
}
