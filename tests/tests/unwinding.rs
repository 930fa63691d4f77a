//! Stacks of every shape: right to the thread's first function, or marked as cut short.

use memtrace_tests::fixture::{Build, FRAMES, FRAMES_CPP};
use memtrace_tests::record::{Recorded, Recorder};
use memtrace_tests::stacks::{Frame, Stack};

/// How compilers are told to build. The first four have no frame pointers, except where a shape needs one.
const BUILDS: [Build; 6] = [
    FRAMES,
    FRAMES.flags(&["-pthread", "-O0"]),
    FRAMES.flags(&["-pthread", "-O1", "-fomit-frame-pointer"]),
    FRAMES.flags(&["-pthread", "-O3", "-fomit-frame-pointer"]),
    FRAMES.flags(&["-pthread", "-fcf-protection=full"]),
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
    ("plain", &["plain", "build", "main", "_start"]),
    ("with_alloca", &["with_alloca", "build", "main", "_start"]),
    ("with_array", &["with_array", "build", "main", "_start"]),
    ("with_alignment", &["with_alignment", "build", "main", "_start"]),
    ("with_alignment_and_array", &["with_alignment_and_array", "build", "main", "_start"]),
    ("with_arguments", &["with_arguments", "build", "main", "_start"]),
    ("with_large_frame", &["with_large_frame", "build", "main", "_start"]),
    ("raises", &["handler", "raises", "build", "main", "_start"]),
    ("raises_on_another_stack", &["handler", "raises_on_another_stack", "build", "main", "_start"]),
    ("interrupted", &["alarm_handler", "spins", "interrupted", "build", "main", "_start"]),
    ("in_coroutine", &["body"]),
    ("calls_one_that_jumps", &["jumps", "calls_one_that_jumps", "build", "main", "_start"]),
    ("thread", &["in_thread"]),
    ("calls_back", &["compare", "calls_back", "build", "main", "_start"]),
    ("at_exit", &["at_exit", "_start"]),
    ("after_longjmp", &["after_longjmp", "build", "main", "_start"]),
];

fn record(build: Build, arguments: &[&str]) -> Recorded {
    Recorder::exact().output("out.json").launch(&build.path(), arguments).expect_success()
}

/// A stack with the program's own functions alone, innermost first, and how its walk has ended.
#[derive(Debug)]
struct Walked {
    names: Vec<String>,
    end: String,
}

/// The stacks of allocations in `allocate`.
fn walked(recorded: &Recorded, program: &str) -> Vec<Walked> {
    let profile = recorded.json();
    let stacks = profile.stacks().0.into_iter().zip(profile.stack_ends());
    let of_allocate = stacks.filter(|(stack, _)| stack.frames[0].name() == "allocate");
    let own = |frame: &&Frame| frame.mapping.ends_with(&format!("/{program}"));
    of_allocate
        .map(|(stack, end)| Walked {
            names: stack.frames.iter().filter(own).map(|frame| frame.name().to_owned()).collect(),
            end: end.unwrap_or_else(|| "complete".to_owned()),
        })
        .collect()
}

/// The only one.
fn single(recorded: &Recorded, program: &str) -> Walked {
    let mut walked = walked(recorded, program);
    assert_eq!(walked.len(), 1, "{walked:?}");
    walked.remove(0)
}

#[track_caller]
fn assert_shapes(build: Build, shapes: &[(&str, &[&str])]) {
    let arguments: Vec<_> = shapes.iter().map(|(shape, _)| *shape).collect();
    let stacks = walked(&record(build, &arguments), "frames");
    assert_eq!(stacks.len(), shapes.len(), "{stacks:#?} in {build:?}");
    for (shape, functions) in shapes {
        let expected: Vec<_> = ["allocate", "third", "second", "first"].iter().chain(*functions).collect();
        let is_it = |walked: &&Walked| {
            // Optimized, the call of `first` is a jump, and the function is on no stack.
            let expected =
                expected.iter().filter(|name| ***name != "jumps" || walked.names.contains(&"jumps".into()));
            match *shape {
                // The first function of a coroutine returns to code that glibc says nothing of
                // (`__start_context`). Frame pointers may lead on from there, but they are not relied on.
                "in_coroutine" => expected.zip(&walked.names).all(|(expected, name)| **expected == name),
                _ => expected.map(|name| **name).eq(walked.names.iter().map(String::as_str)),
            }
        };
        let end = if *shape == "in_coroutine" { "no_table" } else { "complete" };
        let found =
            stacks.iter().find(is_it).unwrap_or_else(|| panic!("no {shape} of {build:?} in {stacks:#?}"));
        assert_eq!(found.end, end, "{shape} in {build:?}");
    }
}

#[test]
fn stacks_of_every_shape_are_whole() {
    BUILDS.into_iter().for_each(|build| assert_shapes(build, &SHAPES));
}

#[test]
fn where_there_is_no_eh_frame_debug_frame_serves() {
    assert_shapes(DEBUG_FRAME, &SHAPES);
}

/// musl has no call frame information for its own functions, and no frame pointers: what the program itself has is
/// found up to there, and marked.
#[test]
fn stacks_with_musl_are_right_and_marked() {
    const SPECS: &str = "-specs=/usr/lib/x86_64-linux-musl/musl-gcc.specs";
    const MUSL: [(&str, &[&str]); 11] = [
        ("plain", &["plain", "build", "main"]),
        ("with_alloca", &["with_alloca", "build", "main"]),
        ("with_array", &["with_array", "build", "main"]),
        ("with_alignment", &["with_alignment", "build", "main"]),
        ("with_alignment_and_array", &["with_alignment_and_array", "build", "main"]),
        ("with_large_frame", &["with_large_frame", "build", "main"]),
        ("raises", &["handler"]),
        ("thread", &["in_thread"]),
        ("calls_back", &["compare"]),
        ("at_exit", &["at_exit"]),
        ("after_longjmp", &["after_longjmp", "build", "main"]),
    ];
    for build in [FRAMES.flags(&["-pthread", "-static", SPECS]), FRAMES.flags(&["-pthread", SPECS])] {
        for (shape, functions) in MUSL {
            let Walked { names, end } = single(&record(build, &[shape]), "frames");
            let expected: Vec<_> = ["allocate", "third", "second", "first"].iter().chain(functions).collect();
            // In a static program the function of musl that comes next is the program's, too.
            assert!(names.iter().zip(&expected).all(|(name, expected)| name == **expected), "{names:?}");
            assert!(names.len() >= expected.len(), "{names:?} of {shape} in {build:?}");
            assert!(
                end == "no_table" || end == "no_mapping" || end == "bad_read",
                "{end} of {shape} in {build:?}"
            );
        }
    }
}

/// The dynamic loader calls the initializers of libraries from where the process begins, of which it says nothing.
#[test]
fn stacks_from_before_main_are_whole() {
    let recorded = Recorder::exact().output("out.json").launch("/bin/ls".as_ref(), &["/"]).expect_success();
    let profile = recorded.json();
    let outermost =
        |stack: &Stack| stack.frames.last().map(|frame| frame.mapping.clone()).unwrap_or_default();
    let of_loader = |stack: &&Stack| outermost(stack).contains("/ld-linux");
    assert!(profile.stacks().0.iter().filter(of_loader).count() > 0, "libselinux's initializer allocates");
    assert_eq!(profile.loss("stacks_incomplete"), 0);
}

/// The frame of a function that nothing describes is kept, and what is above is not guessed.
#[test]
fn a_stack_ends_at_a_function_that_nothing_describes() {
    let expected = ["allocate", "third", "second", "first", "calls_first", "undescribed"];
    let Walked { names, end } = single(&record(FRAMES, &["calls_undescribed"]), "frames");
    assert_eq!((names, end.as_str()), (owned(&expected), "no_table"));
}

/// Frame pointers go on where there are no tables; what is above in libraries goes on by tables.
#[test]
fn where_there_is_no_table_frame_pointers_serve() {
    assert_shapes(FRAME_POINTERS_ONLY, &SHAPES[..4]);
}

/// The direct caller is known without any of this, and that more is missing is said.
#[test]
fn where_there_is_neither_the_stack_is_marked() {
    let recorded = record(NOTHING, &["plain"]);
    let Walked { names, end } = single(&recorded, "frames");
    assert_eq!(names[0], "allocate");
    assert!(end == "no_table" || end == "no_mapping" || end == "bad_read", "{end}");
    assert_eq!(recorded.json().loss("stacks_incomplete"), 1);
}

#[test]
fn stacks_that_are_too_deep_are_marked() {
    let depth = |frames: &str| {
        let recorder = Recorder::exact().output("out.json").option("--max-frames").option(frames);
        let recorded = recorder.launch(&FRAMES.path(), &["recurse=10000"]).expect_success();
        let Walked { names, end } = single(&recorded, "frames");
        (names.len(), names.last().cloned().unwrap_or_default(), end)
    };
    assert_eq!(depth("127"), (127, "recurse".to_owned(), "truncated".to_owned()));
    assert_eq!(depth("255"), (255, "recurse".to_owned(), "too_deep".to_owned()));
    let Walked { names, end } = single(&record(FRAMES, &["recurse=100"]), "frames");
    assert_eq!(
        (names.len(), end.as_str()),
        (105, "complete"),
        "allocate, 101 recurse, build, main, _start: {names:?}"
    );
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
        let Walked { mut names, end } = single(&record(FRAMES_CPP, &[shape]), "frames");
        // What the templates of the standard library put in between is theirs.
        names.retain(|name| functions.contains(&name.as_str()) || name == "allocate" || name == "first");
        let expected: Vec<_> = ["allocate", "first"].iter().chain(functions).copied().collect();
        assert_eq!((names, end.as_str()), (owned(&expected), "complete"), "{shape}");
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A stack that is cut short is not presented as whole in formats without labels either.
#[test]
fn an_incomplete_stack_is_marked_in_folded_stacks() {
    let recorder = Recorder::exact().output("out.folded").option("--max-frames").option("3");
    let recorded = recorder.launch(&FRAMES.path(), &["plain"]).expect_success();
    let text = std::fs::read_to_string(recorded.output()).expect("the profile is there");
    assert_eq!(text, "[stack cut short: truncated];second;third;allocate 100\n");
}
