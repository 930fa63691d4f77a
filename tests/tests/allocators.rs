//! Every allocator has exact books: linked, preloaded, and inside of a static program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use memtrace_tests::fixture::{
    Build, CUSTOM, LEAK_STATIC_STRIPPED, PLUGIN, RANDOM_C, RANDOM_CPP, RANDOM_RUST,
};
use memtrace_tests::json::Profile;
use memtrace_tests::process::Process;
use memtrace_tests::record::{Recorded, Recorder, attach_modes};
use memtrace_tests::stacks::{Stack, truth};
use memtrace_tests::target::{Leak, Redis};
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
    /// What the label `allocator` says.
    name: &'static str,
}

const C: Build = RANDOM_C.flags(&["-pthread", "-DPORTABLE"]);
const CPP: Build = RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS"]);

const JEMALLOC: Library = Library {
    file: "libjemalloc.so.2",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ljemalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ljemalloc"]),
    cpp: CPP,
    name: "jemalloc",
};

const TCMALLOC: Library = Library {
    file: "libtcmalloc.so.4",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ltcmalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ltcmalloc"]),
    cpp: CPP,
    name: "tcmalloc",
};

const TCMALLOC_MINIMAL: Library = Library {
    file: "libtcmalloc_minimal.so.4",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-ltcmalloc_minimal"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-ltcmalloc_minimal"]),
    ..TCMALLOC
};

/// Debian's is compiled as C, and ends the program where it should throw.
const MIMALLOC: Library = Library {
    file: "libmimalloc.so.2",
    linked_c: RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-lmimalloc"]),
    linked_cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-DNO_EXCEPTIONS", "-lmimalloc"]),
    cpp: RANDOM_CPP.flags(&["-pthread", "-DOWN_OPERATORS", "-DNO_EXCEPTIONS"]),
    name: "mimalloc",
};

/// Asserts that the profile is the truth, that nothing was lost but what exceptions have left, and whose functions
/// were called.
#[track_caller]
fn assert_exact(recorded: Recorded, allocator: &str) {
    let truth = recorded.truth();
    let profile = recorded.expect_success().json();
    profile.assert_lost_only(&THROWN);
    profile.stacks().assert_sites(&truth);
    assert_allocator(&profile, allocator);
}

/// Asserts that most allocations were calls of `allocator`'s functions. Of the others, glibc's `reallocarray` hands its
/// calls on to the `realloc` that is in force.
#[track_caller]
fn assert_allocator(profile: &Profile, allocator: &str) {
    let by_allocator = profile.by_label("allocator");
    let its = by_allocator.get(allocator).map_or(0, |values| values.alloc_objects);
    let all = profile.stacks().sum().alloc_objects;
    assert!(its * 100 >= all * 75, "{allocator}: {by_allocator:?} of {all} objects");
}

fn exact() -> Recorder {
    Recorder::exact().output("out.json")
}

fn linked(program: Build, allocator: &str) {
    assert_exact(exact().alone().launch(&program.path(), &["run", "1", "8"]), allocator);
}

fn preloaded(recorder: Recorder, library: &Library, program: Build) {
    let preload = format!("LD_PRELOAD={LIBRARIES}/{}", library.file);
    let program = program.path();
    let arguments = [&preload, program.to_str().unwrap(), "run", "1", "8"];
    assert_exact(recorder.launch(Path::new("env"), &arguments), library.name);
}

fn in_each_way(library: &Library) {
    println!("{}", library.file);
    linked(library.linked_c, library.name);
    linked(library.linked_cpp, library.name);
    for mode in attach_modes() {
        preloaded(exact().alone().attach_mode(mode), library, C);
    }
    preloaded(exact().alone(), library, library.cpp);
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
            preloaded(exact().alone().attach_mode(mode), &library, library.cpp);
        }
    }
}

#[test]
fn glibc_is_exact() {
    linked(C, "glibc");
    linked(RANDOM_CPP, "glibc");
    linked(RANDOM_RUST, "glibc");
}

#[test]
fn musl_is_exact() {
    linked(C.with_musl(), "musl");
    linked(RANDOM_C.flags(&["-pthread", "-DPORTABLE", "-static"]).with_musl(), "musl");
}

#[test]
fn static_programs_are_exact() {
    linked(RANDOM_C.flags(&["-pthread", "-static"]), "glibc");
    linked(RANDOM_CPP.flags(&["-pthread", "-static"]), "glibc");
    let jemalloc = RANDOM_C.flags(&[
        "-pthread",
        "-DPORTABLE",
        "-static",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.a",
        "-lstdc++",
        "-lm",
    ]);
    linked(jemalloc, "jemalloc");
    let tcmalloc = RANDOM_C.flags(&[
        "-pthread",
        "-DPORTABLE",
        "-static",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.a",
        "-lstdc++",
        "-lm",
    ]);
    linked(tcmalloc, "tcmalloc");
}

#[test]
fn static_programs_in_rust_are_exact() {
    // The default allocator is code of Rust's own there, in front of glibc's.
    linked(RANDOM_RUST.flags(&["-Ctarget-feature=+crt-static"]), "rust");
    let jemalloc =
        RANDOM_RUST.flags(&["-Ctarget-feature=+crt-static", "--cfg=jemalloc", "-L/usr/lib/x86_64-linux-gnu"]);
    linked(jemalloc, "jemalloc");
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
    let mut target = Leak::serve(memtrace_tests::fixture::LEAK);
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
    let recorded = recording.stop(libc::SIGINT).expect_success();
    recorded.outcome.assert_says(&["growth_unseen_bytes", "no probe was hit"]);
    let grown = recorded.json().loss("growth_unseen_bytes");
    assert!(grown >= 4 << 20, "{grown}");
}

#[test]
fn a_stripped_static_program_is_told_why_it_cannot_be_traced() {
    let target = Leak::serve(LEAK_STATIC_STRIPPED);
    let outcome = exact().run(&["-p", &target.pid().to_string()]).outcome;
    outcome.assert_refused(&[1], &["statically linked and stripped", "strip --strip-debug", "VmRSS"]);
    let report = memtrace_tests::record::run(&["doctor", "-p", &target.pid().to_string()]).stdout;
    assert!(report.contains("statically linked and stripped"), "{report}");
}

#[test]
fn a_library_that_is_loaded_later_has_probes() {
    let library = format!("{LIBRARIES}/{}", MIMALLOC.file);
    for mode in attach_modes() {
        let recorded = exact().attach_mode(mode).launch(&PLUGIN.path(), &[&library, "run"]).expect_success();
        let profile = recorded.json();
        profile.assert_nothing_lost();
        profile.stacks().assert_books("plugin", &recorded.truth());
        let by_allocator = profile.by_label("allocator");
        assert_eq!(by_allocator.get("mimalloc"), recorded.truth().get("by_plugin"), "{by_allocator:?}");

        let mut target =
            Leak::start(tools::command(PLUGIN.path().to_str().unwrap()).args([&library, "serve"]));
        let mut recording = exact().attach_mode(mode).option("-v").attach(target.pid());
        assert_eq!(target.0.ask("load"), "loaded");
        // In this library, malloc and mi_malloc are names of the same code.
        recording
            .process
            .stderr_line(|line| line.contains("attached to malloc in") && line.contains(MIMALLOC.file));
        let books = truth(&target.0.ask("work"));
        let profile = recording.stop(libc::SIGINT).expect_success().json();
        profile.assert_nothing_lost();
        profile.stacks().assert_books("plugin", &books);
    }
}

#[test]
fn doctor_and_verbose_say_where_probes_are() {
    let library = format!("{LIBRARIES}/{}", TCMALLOC_MINIMAL.file);
    let mut command = tools::command("/usr/bin/env");
    command.arg(format!("LD_PRELOAD={library}")).arg(CPP.path()).arg("serve");
    let target = Leak::start(&mut command);
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
    let by_preload = "in force: LD_PRELOAD puts it before libc.so.6";
    let line = said.lines().find(|line| line.contains(" malloc in") && line.contains(by_preload));
    assert!(
        line.is_some_and(|line| line.contains("; probe site +") && line.ends_with(" calls seen")),
        "{said}"
    );
}

/// How often `doctor` says that a function was called.
fn calls(report: &str, function: &str) -> u64 {
    let lines = report.lines().filter(|line| line.trim().starts_with(&format!("{function} ")));
    let counts = lines.filter_map(|line| line.split_once(" times; ")?.0.rsplit_once(' '));
    counts.map(|(_, count)| count.replace(',', "").parse::<u64>().expect("a count is a number")).sum()
}

#[test]
fn calls_are_counted_by_function() {
    let redis = Redis::serve();
    let pid = redis.pid().to_string();
    let count = || memtrace_tests::record::run(&["doctor", "-p", &pid, "--count-calls", "500ms"]);
    let report = count().expect_success().stdout;
    assert!(calls(&report, "malloc") < 1000, "it does next to nothing\n{report}");
    let load = redis.benchmark();
    let report = count().expect_success().stdout;
    assert!(calls(&report, "malloc") > 1000 && calls(&report, "free") > 1000, "{report}");
    assert_eq!(calls(&report, "pvalloc"), 0, "{report}");
    drop(load);

    // Exactly: the fixture's own truth.
    let mut verbose = memtrace_tests::record::memtrace();
    verbose.args(["-v", "record", "-o", "/dev/null", "-s", "1GiB", "--"]).arg(CUSTOM.path());
    let outcome = Process::spawn(&mut verbose).finish().expect_success();
    // Each of 99 rounds takes one block above 1,000 bytes and resizes it once, and every third frees that.
    let seen = |function: &str| {
        let line = outcome
            .stderr
            .lines()
            .find(|line| line.contains(&format!(" {function} in")) && line.contains("calls seen"));
        let count = line.and_then(|line| line.rsplit("; ").next()?.split(' ').next()?.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("{function}: {}", outcome.stderr))
    };
    assert_eq!((seen("malloc"), seen("free"), seen("calloc")), (198, 99 + 33, 0));
}

/// Asserts that 95 % of the 20 stacks that have allocated most name most of their functions, and that what was
/// allocated is `allocator`'s. Of a stripped program the names of static functions are not known.
#[track_caller]
fn assert_named(profile: &Profile, allocator: &str) {
    assert_allocator(profile, allocator);
    let mut stacks = profile.stacks().0;
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.values.alloc_space));
    stacks.truncate(20);
    let is_named = |stack: &&Stack| {
        let named = stack.frames.iter().filter(|frame| !frame.function.is_empty()).count();
        named * 2 > stack.frames.len()
    };
    let named = stacks.iter().filter(is_named).count();
    assert!(named * 100 >= stacks.len() * 95, "{named} of {}: {stacks:#?}", stacks.len());
}

#[test]
fn redis_under_load_has_named_stacks() {
    let redis = Redis::serve();
    let _load = redis.benchmark();
    let recording = Recorder::new().interval("16KiB").output("out.json").attach(redis.pid());
    redis.wait_for_commands(20_000);
    redis.assert_serves();
    let profile = recording.stop(libc::SIGINT).expect_success().json();
    assert_named(&profile, "jemalloc");
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
    let of_request = |stack: &&Stack| {
        let names = stack.names();
        names.contains(&"ngx_create_pool") && names.contains(&"ngx_http_create_request")
    };
    let pools: i64 = stacks.0.iter().filter(of_request).map(|stack| stack.values.alloc_objects).sum();
    assert_eq!(pools, 50, "one pool for each request");
    assert_named(&profile, "glibc");
}
