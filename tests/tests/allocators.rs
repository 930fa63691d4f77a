//! Every allocator has exact books: linked, preloaded, and inside of a static program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use memtrace_tests::fixture::{Build, CUSTOM, RANDOM_C, RANDOM_CPP, RANDOM_RUST};
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorded, Recorder, attach_modes};
use memtrace_tests::tools;

/// What an exception leaves behind: the call has not returned, and nothing is missing.
const THROWN: [&str; 2] = ["missed_returns", "calls_unfinished"];

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// A script for each library's C and C++, and the library.
struct Library {
    file: &'static str,
    linked_c: Build,
    linked_cpp: Build,
    cpp: Build,
}

const C: Build = RANDOM_C.flags(&["-pthread", "-DPORTABLE"]);
const CPP: Build = RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS"]);

const JEMALLOC: Library = Library {
    file: "libjemalloc.so.2",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ljemalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ljemalloc"]),
    cpp: CPP,
};

const TCMALLOC: Library = Library {
    file: "libtcmalloc.so.4",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ltcmalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ltcmalloc"]),
    cpp: CPP,
};

const TCMALLOC_MINIMAL: Library = Library {
    file: "libtcmalloc_minimal.so.4",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ltcmalloc_minimal"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ltcmalloc_minimal"]),
    cpp: CPP,
};

/// Debian's is compiled as C, and ends the program where it should throw.
const MIMALLOC: Library = Library {
    file: "libmimalloc.so.2",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-lmimalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-DNO_EXCEPTIONS", "-lmimalloc"]),
    cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-DNO_EXCEPTIONS"]),
};

/// Asserts that the profile is the truth, and that nothing was lost but what exceptions have left.
#[track_caller]
fn assert_exact(recorded: Recorded) {
    let truth = recorded.truth();
    let profile = recorded.expect_success().json();
    profile.assert_lost_only(&THROWN);
    profile.stacks().assert_sites(&truth);
}

fn exact() -> Recorder {
    Recorder::exact().output("out.json")
}

fn linked(program: Build) {
    assert_exact(exact().launch(&program.path(), &["run", "1", "8"]));
}

fn preloaded(recorder: Recorder, library: &str, program: Build) {
    let preload = format!("LD_PRELOAD={LIBRARIES}/{library}");
    let program = program.path();
    assert_exact(recorder.launch(Path::new("env"), &[&preload, program.to_str().unwrap(), "run", "1", "8"]));
}

fn in_each_way(library: &Library) {
    println!("{}", library.file);
    linked(library.linked_c);
    linked(library.linked_cpp);
    preloaded(exact(), library.file, C);
    preloaded(exact(), library.file, library.cpp);
}

#[test]
fn jemalloc_is_exact() {
    in_each_way(&JEMALLOC);
}

#[test]
fn tcmalloc_is_exact() {
    in_each_way(&TCMALLOC);
    in_each_way(&TCMALLOC_MINIMAL);
}

#[test]
fn mimalloc_is_exact() {
    in_each_way(&MIMALLOC);
}

/// The probes on `ret` instructions, with exceptions on their way.
#[test]
fn operators_that_throw_are_exact_in_every_attach_mode() {
    for mode in attach_modes() {
        for library in [JEMALLOC, TCMALLOC] {
            preloaded(exact().attach_mode(mode), library.file, library.cpp);
        }
    }
}

#[test]
fn musl_is_exact() {
    linked(C.with_musl());
    linked(RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-static"]).with_musl());
}

#[test]
fn static_programs_are_exact() {
    linked(RANDOM_C.flags(&["-pthread", "-static"]));
    linked(RANDOM_CPP.flags(&["-pthread", "-static"]));
    linked(RANDOM_C.flags(&[
        "-pthread",
        "-DPORTABLE",
        "-static",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.a",
        "-lstdc++",
        "-lm",
    ]));
}

#[test]
fn static_programs_in_rust_are_exact() {
    linked(RANDOM_RUST.flags(&["-Ctarget-feature=+crt-static"]));
    linked(RANDOM_RUST.flags(&[
        "-Ctarget-feature=+crt-static",
        "--cfg=jemalloc",
        "-L/usr/lib/x86_64-linux-gnu",
    ]));
}

const POOL: [&str; 8] = [
    "--alloc",
    "exe:pool_alloc:size=arg1,ret",
    "--alloc",
    "exe:pool_zeroed:size=arg1*arg2,ret",
    "--alloc",
    "custom:pool_resize:old=arg1,size=arg2,out=arg3",
    "--free",
    "exe:pool_free:arg1",
];

#[test]
fn functions_of_the_users_are_exact() {
    let recorder = POOL.iter().fold(exact(), |recorder, option| recorder.option(option));
    let recorded = recorder.launch(&CUSTOM.path(), &[]).expect_success();
    let profile = recorded.json();
    profile.assert_nothing_lost();
    profile.stacks().assert_books("custom", &recorded.truth());
}

#[test]
fn functions_that_are_not_there_are_named() {
    let mut target = memtrace_tests::target::Leak::serve(memtrace_tests::fixture::LEAK);
    let recorder = Recorder::exact().option("--alloc").option("libc.so.6:no_such_function:size=arg0,ret");
    let outcome = recorder.run(&["-p", &target.pid().to_string()]).outcome;
    outcome.assert_refused(&[1], &["no_such_function", "nm"]);
    target.perform("leak_a 1 1");
}

#[test]
fn growth_that_no_probe_sees_is_told() {
    let mut target = Process::spawn(tools::command(CUSTOM.path().to_str().unwrap()).arg("grow"));
    target.stdout_line(|line| line == "ready");
    let mut recording = exact().attach(target.pid());
    recording.process.stderr_line(|line| line.contains("no probe was hit") && line.contains("--alloc"));
    recording.stop(libc::SIGINT).expect_success();
}

#[test]
fn doctor_and_verbose_say_where_probes_are() {
    let library = format!("{LIBRARIES}/{}", TCMALLOC_MINIMAL.file);
    let mut command = tools::command("/usr/bin/env");
    command.arg(format!("LD_PRELOAD={library}")).arg(CPP.path()).arg("serve");
    let target = memtrace_tests::target::Leak::start(&mut command);
    let pid = target.pid().to_string();
    let report = memtrace_tests::record::run(&["doctor", "-p", &pid]).expect_success().stdout;
    let operator = report.lines().find(|line| line.contains("operator new") && line.contains("in force"));
    assert!(operator.is_some_and(|line| line.contains("ret (single-stepped)")), "{report}");
    let lines = |name: &str, how: &str| {
        report.lines().filter(|line| line.trim().starts_with(name) && line.contains(how)).count()
    };
    assert_eq!(lines("malloc ", "in force"), 1, "{report}");
    assert_eq!(lines("malloc ", "interposed by libtcmalloc_minimal"), 1, "{report}");
    let mut verbose = memtrace_tests::record::memtrace();
    verbose.args(["-v", "record", "-p", &pid, "-d", "100ms", "-o", "/dev/null"]);
    let said = Process::spawn(&mut verbose).finish().expect_success().stderr;
    assert!(said.contains("attached to malloc in") && said.contains("`ret` instructions"), "{said}");
}

/// A request that nginx answers.
fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("nginx listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("nginx reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("nginx answers");
    answer
}

#[test]
fn nginx_under_load_has_named_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "daemon off; master_process off; pid {0}/pid; error_log stderr;\n\
         events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b; \
         fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
         server {{ listen 127.0.0.1:{port}; return 200 hello; }} }}",
        dir.path().display()
    );
    std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
    let mut command = tools::command("/usr/sbin/nginx");
    let nginx = Process::spawn(command.arg("-c").arg(dir.path().join("nginx.conf")));
    let limit = std::time::Instant::now() + memtrace_tests::process::PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < limit, "nginx does not listen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let recording = exact().attach(nginx.pid());
    (0..50).for_each(|_| assert!(get(port).ends_with("hello")));
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    let stacks = profile.stacks();
    let of_request = |stack: &&memtrace_tests::stacks::Stack| {
        let names = stack.names();
        names.contains(&"ngx_create_pool") && names.contains(&"ngx_http_create_request")
    };
    let pools: i64 = stacks.0.iter().filter(of_request).map(|stack| stack.values.alloc_objects).sum();
    assert_eq!(pools, 50, "one pool for each request");
}
