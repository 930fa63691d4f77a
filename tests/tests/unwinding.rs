//! Stacks of every shape: right to the thread's first function, or marked as cut short.

use memtrace_tests::fixture::{Build, FRAMES, FRAMES_CPP};
use memtrace_tests::record::{Recorded, Recorder};

/// How compilers are told to build. The first four have no frame pointers, except where a shape needs one.
const BUILDS: [Build; 5] = [
    FRAMES,
    FRAMES.flags(&["-pthread", "-O0"]),
    FRAMES.flags(&["-pthread", "-O1", "-fomit-frame-pointer"]),
    FRAMES.flags(&["-pthread", "-O3", "-fomit-frame-pointer"]),
    FRAMES.flags(&["-pthread", "-fno-omit-frame-pointer"]),
];

/// Only `.debug_frame`: the compiler writes no `.eh_frame`.
const DEBUG_FRAME: Build = FRAMES.flags(&["-pthread", "-fno-asynchronous-unwind-tables", "-fno-exceptions"]);
/// No call frame information, but frame pointers.
const FRAME_POINTERS_ONLY: Build =
    FRAMES.flags(&["-pthread", "-g0", "-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer"]);
/// Neither.
const NOTHING: Build = FRAMES.flags(&["-pthread", "-g0", "-fno-asynchronous-unwind-tables"]);

/// A shape, and the program's own functions on the stack from `first` on, innermost first. Those between them
/// that belong to the C library are not listed.
const SHAPES: [(&str, &[&str]); 16] = [
    ("plain", &["plain", "main", "_start"]),
    ("with_alloca", &["with_alloca", "main", "_start"]),
    ("with_array", &["with_array", "main", "_start"]),
    ("with_alignment", &["with_alignment", "main", "_start"]),
    ("with_alignment_and_array", &["with_alignment_and_array", "main", "_start"]),
    ("with_arguments", &["with_arguments", "main", "_start"]),
    ("with_large_frame", &["with_large_frame", "main", "_start"]),
    ("raises", &["handler", "raises", "main", "_start"]),
    ("raises_on_another_stack", &["handler", "raises_on_another_stack", "main", "_start"]),
    ("interrupted", &["alarm_handler", "spins", "interrupted", "main", "_start"]),
    ("in_coroutine", &["body"]),
    ("calls_one_that_jumps", &["jumps", "calls_one_that_jumps", "main", "_start"]),
    ("thread", &["in_thread"]),
    ("calls_back", &["compare", "calls_back", "main", "_start"]),
    ("at_exit", &["at_exit", "_start"]),
    ("after_longjmp", &["after_longjmp", "main", "_start"]),
];

fn record(build: Build, arguments: &[&str]) -> Recorded {
    Recorder::exact().output("out.json").launch(&build.path(), arguments).expect_success()
}

/// The functions of the program itself on the stack of its one allocation, innermost first, and how the walk ended.
fn stack_of(recorded: &Recorded, program: &str) -> (Vec<String>, String) {
    let profile = recorded.json();
    let stacks: Vec<_> = profile.stacks().with_leaf("allocate").cloned().collect();
    let [stack] = stacks.as_slice() else { panic!("{} stacks of one allocation", stacks.len()) };
    let own = stack.frames.iter().filter(|frame| frame.mapping.ends_with(&format!("/{program}")));
    let end = profile.stack_ends().remove("allocate").unwrap_or_else(|| "complete".to_owned());
    (own.map(|frame| frame.name().to_owned()).collect(), end)
}

#[track_caller]
fn assert_shapes(build: Build) {
    for (shape, functions) in SHAPES {
        let (names, end) = stack_of(&record(build, &[shape]), "frames");
        let mut expected = vec!["allocate", "third", "second", "first"];
        expected.extend(functions);
        // Optimized, the call of `first` is a jump.
        expected.retain(|name| *name != "jumps" || names.iter().any(|found| found == name));
        if shape == "in_coroutine" {
            // The first function of a coroutine returns to code that glibc says nothing of (`__start_context`).
            // Frame pointers may lead on from there, but that is not relied on.
            assert_eq!(names[..expected.len()], owned(&expected), "{shape} in {build:?}");
            assert_eq!(end, "no_table", "{shape} in {build:?}");
        } else {
            assert_eq!((names, end.as_str()), (owned(&expected), "complete"), "{shape} in {build:?}");
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn stacks_of_every_shape_are_whole() {
    BUILDS.into_iter().for_each(assert_shapes);
}

#[test]
fn where_there_is_no_eh_frame_debug_frame_serves() {
    assert_shapes(DEBUG_FRAME);
}

/// Frame pointers go on where there are no tables; what is above in libraries goes on by tables.
#[test]
fn where_there_is_no_table_frame_pointers_serve() {
    for (shape, functions) in SHAPES.into_iter().take(4) {
        let (names, end) = stack_of(&record(FRAME_POINTERS_ONLY, &[shape]), "frames");
        let mut expected = vec!["allocate", "third", "second", "first"];
        expected.extend(functions);
        assert_eq!((names, end.as_str()), (owned(&expected), "complete"), "{shape}");
    }
}

/// The direct caller is known without any of this, and that more is missing is said.
#[test]
fn where_there_is_neither_the_stack_is_marked() {
    let recorded = record(NOTHING, &["plain"]);
    let (names, end) = stack_of(&recorded, "frames");
    assert_eq!(names[0], "allocate");
    assert!(end == "no_table" || end == "no_mapping" || end == "bad_read", "{end}");
    assert_eq!(recorded.json().loss("stacks_incomplete"), 1);
}

#[test]
fn stacks_that_are_too_deep_are_marked() {
    let depth = |frames: &str| {
        let recorder = Recorder::exact().output("out.json").option("--max-frames").option(frames);
        let recorded = recorder.launch(&FRAMES.path(), &["recurse", "10000"]).expect_success();
        let (names, end) = stack_of(&recorded, "frames");
        (names.len(), names.last().cloned().unwrap_or_default(), end)
    };
    assert_eq!(depth("127"), (127, "recurse".to_owned(), "truncated".to_owned()));
    assert_eq!(depth("255"), (255, "recurse".to_owned(), "too_deep".to_owned()));
    let recorded = record(FRAMES, &["recurse", "100"]);
    let (names, end) = stack_of(&recorded, "frames");
    assert_eq!((names.len(), end.as_str()), (104, "complete"), "allocate, 101 recurse, main, _start");
}

#[test]
fn stacks_of_cpp_are_whole() {
    let shapes: [(&str, &[&str]); 4] = [
        ("in_destructor", &["Cleaner::~Cleaner", "cleans", "in_destructor", "main", "_start"]),
        ("in_catch", &["in_catch", "main", "_start"]),
        ("through_function", &["through_function", "main", "_start"]),
        ("thread", &["in_thread"]),
    ];
    for (shape, functions) in shapes {
        let (mut names, end) = stack_of(&record(FRAMES_CPP, &[shape]), "frames");
        // What the templates of the standard library put in between is theirs.
        names.retain(|name| functions.contains(&name.as_str()) || name == "allocate" || name == "first");
        let mut expected = vec!["allocate", "first"];
        expected.extend(functions);
        assert_eq!((names, end.as_str()), (owned(&expected), "complete"), "{shape}");
    }
}

/// A stack that is cut short is not presented as whole in formats without labels either.
#[test]
fn an_incomplete_stack_is_marked_in_folded_stacks() {
    let recorder = Recorder::exact().output("out.folded").option("--max-frames").option("3");
    let recorded = recorder.launch(&FRAMES.path(), &["plain"]).expect_success();
    let text = std::fs::read_to_string(recorded.output()).expect("the profile is there");
    assert_eq!(text, "[stack cut short: truncated];second;third;allocate 100\n");
}
