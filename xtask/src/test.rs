//! `cargo xtask test`: sets up what is missing, then checks and tests everything, on the real kernel.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::setup::{apt, bpf_linker, go};
use crate::{build_ebpf, probe, process, soak, tests_run};

/// How many tests attach probes at a time: few enough that timings in them stay meaningful.
const THREADS: &str = "2";

/// How long memtrace runs beside a busy program; `cargo xtask soak` does it for longer.
const SOAK: Duration = Duration::from_secs(60);

/// Sets up what is missing, then checks and tests everything; needs root and Debian.
///
/// The kernel program is compiled from source and everything runs with that object; the committed one
/// must be of the same sources. A missing capability is a failure, never a skipped test.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only what needs neither root nor Debian, with the committed object
    #[arg(long)]
    unit: bool,
    /// Run only the tests whose names contain one of these, and no format, lint or documentation check
    filters: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    let whole = arguments.filters.is_empty();
    if whole {
        stages.run("format", || format(repo))?;
    }
    let mut environment = Environment::default();
    if !arguments.unit {
        environment.go = Some(stages.run("set-up", || set_up(repo))?);
        environment.object = Some(stages.run("kernel object", || kernel_object(repo))?);
    }
    if whole {
        stages.run("clippy", || clippy(repo, &environment))?;
        stages.run("documentation", || documentation(repo, &environment))?;
    }
    let mut tests = stages.run("unit tests", || unit_tests(repo, &environment, &arguments.filters))?;
    if !arguments.unit {
        stages.run("release build", || release_build(repo, &environment))?;
        let kernel =
            stages.run("tests on the kernel", || kernel_tests(repo, &environment, &arguments.filters))?;
        if whole && kernel.count == 0 {
            bail!("there are no tests on the kernel in the package memtrace-tests");
        }
        tests.count += kernel.count;
        tests.unsteady.extend(kernel.unsteady);
        if whole {
            stages.run("soak", || soak::soak(repo, SOAK))?;
        }
    }
    if tests.count == 0 {
        bail!("no test's name contains {}", arguments.filters.join(" or "));
    }
    stages.print();
    let left_out = match (whole, arguments.unit) {
        (true, false) => "",
        (true, true) => " (without the tests on the kernel)",
        (false, false) => " (those that were named; no format, clippy and documentation)",
        (false, true) => " (the unit tests that were named)",
    };
    for test in &tests.unsteady {
        println!("unsteady: {test} failed, and passed when it ran once more, alone: please mend it");
    }
    println!("cargo xtask test: passed, {} tests{left_out}", tests.count);
    Ok(())
}

/// What the stages tell the programs that they run.
#[derive(Default)]
struct Environment {
    go: Option<go::Go>,
    object: Option<std::path::PathBuf>,
}

impl Environment {
    /// `cargo <arguments>`, which embeds the fresh object and takes the lock file as it is.
    fn cargo(&self, repo: &Repo, arguments: &[&str]) -> Command {
        let mut cargo = repo.cargo();
        cargo.args(arguments).arg("--locked");
        if let Some(object) = &self.object {
            cargo.env("MEMTRACE_BPF_OBJECT", object);
        }
        cargo
    }
}

fn format(repo: &Repo) -> Result<()> {
    process::run(repo.cargo().args(["fmt", "--all", "--check"]))?;
    process::run(repo.cargo().args(["fmt", "--check", "--manifest-path", "memtrace-ebpf/Cargo.toml"]))
}

fn set_up(repo: &Repo) -> Result<go::Go> {
    apt::install(apt::EBPF)?;
    apt::install(apt::TESTS)?;
    probe::preflight()?;
    bpf_linker::ensure(repo)?;
    go::ensure(repo)
}

fn kernel_object(repo: &Repo) -> Result<std::path::PathBuf> {
    build_ebpf::check_committed(repo, std::env::consts::ARCH)?;
    build_ebpf::build(repo, std::env::consts::ARCH)
}

fn clippy(repo: &Repo, environment: &Environment) -> Result<()> {
    let mut clippy = environment.cargo(repo, &["clippy", "--quiet", "--workspace", "--all-targets"]);
    process::run(clippy.args(["--", "--deny", "warnings"]))
}

fn documentation(repo: &Repo, environment: &Environment) -> Result<()> {
    let mut doc =
        environment.cargo(repo, &["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    process::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// The tests that ran.
struct Ran {
    count: usize,
    /// Those that failed at first, but not when they ran once more.
    unsteady: Vec<String>,
}

/// Runs the tests that attach nothing.
fn unit_tests(repo: &Repo, environment: &Environment, filters: &[String]) -> Result<Ran> {
    let all = ["test", "--quiet", "--workspace", "--exclude", "memtrace-tests"];
    // A few of them take root. Without the fresh object, which takes it too, the harness says that it ignores them.
    let ignored: &[&str] = if environment.object.is_some() { &AS_ROOT } else { &[] };
    run_tests(ignored, filters, || environment.cargo(repo, &all))
}

/// Has tests run that are ignored because they take root; those that are ignored for other reasons are a measurement,
/// and a part of another test.
const AS_ROOT: [&str; 5] =
    ["--include-ignored", "--skip", "measure::measure", "--skip", "lifetimes::probe_as_another_user"];

/// The tests on the kernel run what users run; overflow checks and debug assertions are the unit tests'.
fn release_build(repo: &Repo, environment: &Environment) -> Result<()> {
    process::run(&mut environment.cargo(repo, &["build", "--quiet", "--release", "--package", "memtrace"]))
}

/// Runs the tests that attach probes.
fn kernel_tests(repo: &Repo, environment: &Environment, filters: &[String]) -> Result<Ran> {
    run_tests(&[], filters, || {
        let mut test = environment.cargo(repo, &["test", "--package", "memtrace-tests"]);
        test.env("MEMTRACE_BIN", repo.target.join("release/memtrace")).env("RUST_TEST_THREADS", THREADS);
        if let Some(go) = &environment.go {
            go.configure(&mut test);
        }
        test
    })
}

/// Counts the tests that `cargo_test` has for `filters`, so that "none" cannot pass for success, and
/// runs them. `options` are the test harness's.
fn run_tests(options: &[&str], filters: &[String], cargo_test: impl Fn() -> Command) -> Result<Ran> {
    let list = process::output(cargo_test().args(["--", "--list"]).args(options).args(filters))?;
    let count = list.lines().filter(|line| line.ends_with(": test")).count();
    let unsteady = match count {
        0 => Vec::new(),
        _ => tests_run::run(cargo_test, options, filters)?,
    };
    Ok(Ran { count, unsteady })
}

/// What was done, and how long each took.
#[derive(Default)]
struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name}");
        let start = Instant::now();
        let result = stage().with_context(|| format!("{name} failed"));
        self.0.push((name, start.elapsed()));
        if result.is_err() {
            self.print();
        }
        result
    }

    fn print(&self) {
        println!();
        for (name, time) in &self.0 {
            println!("{name:<20} {:>7.1} s", time.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, time)| *time).sum();
        println!("{:<20} {:>7.1} s", "total", total.as_secs_f64());
    }
}
