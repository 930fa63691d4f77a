//! Wrong input and missing means: a sentence that says what to do, a non-zero exit, no panic, nothing started.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use memtrace_tests::fixture::{LEAK, LEAK_STATIC_STRIPPED, PAUSE_32_BIT};
use memtrace_tests::pprof::proto::Profile;
use memtrace_tests::process::{Outcome, PATIENCE, Process};
use memtrace_tests::record::{self, Recorder, Recording};
use memtrace_tests::residue;
use memtrace_tests::stacks::Values;
use memtrace_tests::target::Leak;
use memtrace_tests::tools;

/// `memtrace record -p PID`, which must write nothing.
fn refused(pid: &str) -> Outcome {
    let recorded = Recorder::new().run(&["-p", pid]);
    assert_eq!(recorded.files(), [""; 0], "a recording that does not begin leaves no file");
    recorded.outcome
}

#[test]
fn no_such_pid() {
    let ended = Process::spawn(&mut Command::new("true"));
    let pid = ended.pid().to_string();
    ended.finish();
    refused(&pid).assert_refused(&[1], &[&pid, "no such process|no process|not running|does not exist"]);
}

#[test]
fn a_kernel_thread() {
    // kthreadd's children; in a PID namespace of its own the machine shows none.
    let pid = "2";
    let comm = std::fs::read_to_string("/proc/2/comm").unwrap_or_default();
    assert_eq!(comm.trim(), "kthreadd", "this test needs to see the machine's kernel threads");
    refused(pid).assert_refused(&[1], &["kernel thread"]);
}

#[test]
fn a_32_bit_program() {
    let process = Process::spawn(&mut Command::new(PAUSE_32_BIT.path()));
    let exe = format!("/proc/{}/exe", process.pid());
    let limit = Instant::now() + PATIENCE;
    while std::fs::read_link(&exe).unwrap() != PAUSE_32_BIT.path() {
        assert!(Instant::now() < limit, "it is not executed");
        std::thread::sleep(Duration::from_millis(5));
    }
    refused(&process.pid().to_string()).assert_refused(&[1], &["32-bit", "64-bit build"]);
}

/// A /proc that shows another namespace's numbers: that of the machine, in a namespace in which memtrace is 1 or so.
#[test]
fn a_proc_of_another_pid_namespace() {
    let leak = Leak::serve(LEAK);
    let pid = leak.pid().to_string();
    for rest in [["-p", &pid], ["--", "true"]] {
        let recorder = Recorder::new();
        let mut command = tools::command("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(tools::memtrace()).arg("record").args(rest);
        let outcome = Process::spawn(command.current_dir(recorder.dir())).finish();
        outcome.assert_refused(&[1], &["/proc", "PID namespace", "mount"]);
    }
    residue::assert_no_probe_left(leak.pid());
}

/// In a container, of a process in a container within that: its numbers are not known to the kernel program.
#[test]
fn a_process_in_a_pid_namespace_below_memtraces_own() {
    const SCRIPT: &str = "unshare --pid --fork --kill-child sleep 1000 & \
        until inner=$(cat /proc/$!/task/$!/children) && [ -n \"$inner\" ]; do sleep 0.05; done; \
        exec \"$0\" record -p $inner";
    let recorder = Recorder::new();
    let mut command = tools::command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT]);
    let outcome = Process::spawn(command.arg(tools::memtrace()).current_dir(recorder.dir())).finish();
    outcome.assert_refused(&[1], &["PID namespace", "--pid=host", "nsenter"]);
}

#[test]
fn a_zombie() {
    let zombie = Process::spawn(&mut Command::new("true"));
    let stat = format!("/proc/{}/stat", zombie.pid());
    let limit = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(Instant::now() < limit, "`true` does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    refused(&zombie.pid().to_string()).assert_refused(&[1], &["exited|zombie|ended"]);
}

/// Targets that end at every moment of memtrace's start, some of which nobody reaps: either it was in time and
/// writes a profile, or it says that the target has gone.
#[test]
fn a_pid_that_exits_while_attaching() {
    let mut refusals = 0;
    for round in 0..24u64 {
        let rest = (round * 20_000).to_string();
        let operations = ["run", "leak_a", "1000", "64", "rest", "1", &rest, "leak_a", "1000", "64"];
        let target = Process::spawn(Command::new(LEAK.path()).args(operations));
        let pid = target.pid();
        let recorder = Recorder::exact();
        let process = Process::spawn(&mut recorder.command(&["-p", &pid.to_string()]));
        let recording = Recording::of(process, recorder);
        let unreaped = if round % 2 == 0 {
            target.finish().expect_success();
            None
        } else {
            Some(target)
        };
        let recorded = recording.finish();
        if recorded.outcome.status.success() {
            Profile::read(&recorded.output());
        } else {
            refusals += 1;
            recorded
                .outcome
                .assert_refused(&[1], &["exited|ended|no such process|no process|not running|gone"]);
            assert_eq!(recorded.files(), [""; 0]);
        }
        drop(unreaped);
    }
    assert!(refusals > 0, "a target that ends at once was never noticed");
}

#[test]
fn a_command_that_does_not_exist() {
    for command in ["no-such-command-anywhere", "/no/such/command"] {
        let recorded = Recorder::new().run(&["--", command]);
        recorded.outcome.assert_refused(&[127], &[command, "not found|no such|there is no"]);
        assert_eq!(recorded.files(), [""; 0]);
    }
}

#[test]
fn a_command_that_cannot_be_executed() {
    let recorder = Recorder::new();
    let file = recorder.dir().join("notes.txt");
    std::fs::write(&file, "not a program").unwrap();
    let recorded = recorder.run(&["--", file.to_str().unwrap()]);
    recorded.outcome.assert_refused(&[126], &["notes.txt", "permission|not executable"]);
}

/// Checked before the command is started: an hour of recording must not end in a file that cannot be written.
#[test]
fn an_unwritable_output() {
    let recorder = Recorder::new();
    std::fs::create_dir(recorder.dir().join("directory")).unwrap();
    let dir = recorder.dir().to_owned();
    for output in ["no/such/directory/out.pb.gz", "directory", "/proc/out.pb.gz"] {
        let marker = dir.join("started");
        let mut command = record::memtrace();
        command.current_dir(&dir).args(["record", "-o", output, "--", "touch"]).arg(&marker);
        let outcome = Process::spawn(&mut command).finish();
        outcome.assert_refused(&[1], &[output]);
        assert!(!marker.exists(), "-o {output:?}: the command was started");
    }
}

/// Without capabilities: what is missing is named.
#[test]
fn no_permission() {
    let leak = Leak::serve(LEAK);
    let recorder = Recorder::new();
    // Where an unprivileged user can reach the binary and write the profile.
    std::fs::set_permissions(recorder.dir(), PermissionsExt::from_mode(0o777)).unwrap();
    let binary = recorder.dir().join("memtrace");
    tools::copy_program(tools::memtrace(), &binary);
    for rest in [["-p", &leak.pid().to_string()], ["--", "true"]] {
        let mut command = tools::command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&binary);
        command.args(["record", "-o", "out.pb.gz"]).args(rest);
        command.current_dir(recorder.dir()).env("RUST_BACKTRACE", "1");
        let outcome = Process::spawn(&mut command).finish();
        outcome.assert_refused(&[1], &["root|CAP_BPF|CAP_SYS_ADMIN", "hint:|sudo|run "]);
    }
    residue::assert_no_probe_left(leak.pid());
}

#[test]
fn a_launched_program_without_malloc_symbols() {
    let program = LEAK_STATIC_STRIPPED.path();
    let recorded = Recorder::new().launch(&program, &["run", "leak_a", "1", "1"]);
    recorded.outcome.assert_refused(&[1], &["malloc|allocator", "hint:|static"]);
}

/// A program that loads libc late, or that is a script, is not such a program.
#[test]
fn a_script_is_traced_through_its_interpreter() {
    let recorder = Recorder::exact();
    let script = recorder.dir().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 4\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let recorded = recorder.run(&["--", script.to_str().unwrap()]);
    assert_eq!(recorded.outcome.code(), 4, "{}", recorded.outcome.stderr);
    assert!(recorded.stacks().0.iter().any(|stack| stack.values.alloc_objects > 0), "sh allocates");
}

/// Usage errors: exit code 2, the wrong word is named, and nothing is started.
#[test]
fn command_lines_that_make_no_sense() {
    let leak = Leak::serve(LEAK);
    let pid = leak.pid().to_string();
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("started");
    let touch = ["--", "touch", marker.to_str().unwrap()];
    let interval = |text| [&["--sample-interval", text], &touch[..]].concat();
    let cases: &[(Vec<&str>, &[&str])] = &[
        (vec![], &["--pid|-p", "command|cmd"]),
        ([&["-p", &pid], &touch[..]].concat(), &["--pid|-p"]),
        (vec!["-p", "abc"], &["abc"]),
        (vec!["-p", "-1"], &["-1"]),
        (vec!["-p", "0"], &["0"]),
        (vec!["-p", "99999999999999999999"], &["99999999999999999999"]),
        (vec!["-p", &pid, "-d", "soon"], &["soon"]),
        (vec!["-p", &pid, "-d", "-3"], &["-3"]),
        ([&["-o", ""], &touch[..]].concat(), &["output"]),
        (interval("abc"), &["abc"]),
        (interval("0"), &["sample-interval"]),
        (interval("-5"), &["-5"]),
        (interval("12XB"), &["12XB"]),
        (interval("KiB"), &["KiB"]),
        (interval("99999999999999GiB"), &["99999999999999GiB"]),
        (interval(""), &["sample-interval"]),
        ([&["--no-such-option"], &touch[..]].concat(), &["--no-such-option"]),
        (vec!["--"], &["command|cmd"]),
    ];
    for (arguments, words) in cases {
        let outcome = record::run(&[&["record"], &arguments[..]].concat());
        assert_eq!(outcome.code(), 2, "{arguments:?}:\n{}", outcome.stderr);
        outcome.assert_says(words);
    }
    assert!(!marker.exists(), "a command was started");
    residue::assert_no_probe_left(leak.pid());
}

#[test]
fn no_subcommand_and_an_unknown_one() {
    for arguments in [&[][..], &["rekord"]] {
        let outcome = record::run(arguments);
        assert_eq!(outcome.code(), 2, "{}", outcome.stderr);
        outcome.assert_says(&["record"]);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (argument, expected) in [("--help", "record"), ("--help", "doctor"), ("--version", "memtrace ")] {
        let outcome = record::run(&[argument]).expect_success();
        assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
    }
}

/// After all that was refused above, the target is as it was.
#[test]
fn a_refusal_does_not_harm_the_target() {
    let mut leak = Leak::serve(LEAK);
    let pid = leak.pid().to_string();
    let recorded = Recorder::new().output("no/such/directory/out.pb.gz").run(&["-p", &pid]);
    recorded.outcome.assert_refused(&[1], &["no/such/directory"]);
    residue::assert_no_probe_left(leak.pid());
    assert_eq!(leak.perform("leak_a 2 3")["leak_a"], Values::live(2, 3));
}
