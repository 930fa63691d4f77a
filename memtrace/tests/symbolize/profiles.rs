//! Whole stacks in a profile.

use std::process::Command;
use std::time::{Duration, SystemTime};

use memtrace::profile::Profile;
use memtrace::symbolize::{Frame, Names, Options, PSEUDO_MAPPING, Symbolizer, UNKNOWN_MAPPING};

use crate::fixture::{MARK, Program, WAIT, compile, line_of};

fn source() -> String {
    format!(
        r#"{MARK}
static inline __attribute__((always_inline)) void inner(void) {{ MARK("inner"); }}
__attribute__((noinline)) void outer(void) {{
    inner(); /* call of inner */
}}
int main(void) {{
    outer();
    printf("libc %p 0\n", (char *)&strtol + 2);
    {WAIT}
}}
"#
    )
}

fn empty() -> Profile {
    Profile::heap(1, SystemTime::now(), Duration::ZERO)
}

fn start() -> (tempfile::TempDir, Program) {
    let directory = tempfile::tempdir().unwrap();
    let path = compile(directory.path(), "profile.c", &source(), "gcc", &["-O2", "-g"]);
    let program = Program::start(&mut Command::new(path));
    (directory, program)
}

#[tokio::test(flavor = "current_thread")]
async fn stacks_become_locations() {
    let (_directory, program) = start();
    let mut space = program.space();
    let mut frames = space.normalize(&[program.address("libc"), program.address("inner"), 1 << 20]);
    frames.push(Frame::Pseudo("[truncated]"));
    let mut names = Names::new(Symbolizer::start(Options::default()).unwrap());
    names.resolve(&frames).await;

    let mut profile = empty();
    let mut interner = names.interner(&mut profile);
    interner.add_main(&space);
    interner.add_sample(&frames, vec![1, 10, 1, 10], vec![]);
    interner.add_sample(&frames, vec![1, 20, 1, 20], vec![]);
    names.add_losses(&mut profile.losses);

    let stack = &profile.samples[0].stack;
    assert_eq!(stack, &profile.samples[1].stack);
    assert_eq!((stack.len(), profile.locations.len()), (4, 4));
    let location = |index: usize| profile.locations.get_index(stack[index]).unwrap();
    let mapping = |index: usize| profile.mappings.get_index(location(index).mapping).unwrap();
    let lines = |index: usize| {
        let line = |line: &memtrace::profile::Line| {
            (profile.functions.get_index(line.function).unwrap().name.as_str(), line.line)
        };
        location(index).lines.iter().map(line).collect::<Vec<_>>()
    };

    // The executable is first although the first frame is in libc.
    assert!(profile.mappings[0].path.ends_with("/profile"), "{:?}", profile.mappings);
    assert_eq!(mapping(0).build_id.len(), 40);
    assert!(mapping(0).path.contains("/libc.so"));
    assert_eq!(location(1).address, program.address("inner") - 1);
    assert_eq!(mapping(1), &profile.mappings[0]);
    assert_eq!(mapping(1).file_offset % 4096, 0);
    let source = source();
    assert_eq!(lines(1), [("inner", program.marks["inner"].1), ("outer", line_of(&source, "call of inner"))]);
    assert_eq!((lines(2), mapping(2).path.as_str()), (vec![], UNKNOWN_MAPPING));
    assert_eq!((lines(3), mapping(3).path.as_str()), (vec![("[truncated]", 0)], PSEUDO_MAPPING));

    // One distinct address, however many samples it is in.
    let losses: Vec<_> = profile.losses.iter().map(|loss| (loss.name, loss.count)).collect();
    assert_eq!(losses, [("frames_unmapped", 1)]);
}

#[test]
fn without_names_there_are_addresses_mappings_and_build_ids() {
    let (_directory, program) = start();
    let mut space = program.space();
    let frames = space.normalize(&[program.address("inner")]);
    let mut names = Names::off();
    names.resolve_blocking(&frames);
    let mut profile = empty();
    names.interner(&mut profile).add_sample(&frames, vec![1, 1, 1, 1], vec![]);
    assert!(profile.locations[0].lines.is_empty() && profile.losses.is_empty());
    assert_eq!(profile.mappings[0].build_id.len(), 40);
}
