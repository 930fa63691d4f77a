//! `cargo xtask bench`: what tracing costs, in nanoseconds per pair of malloc and free, and what memtrace
//! itself uses.
//!
//! All cases are measured in one run and in turn, round after round: machines drift, so only figures of
//! the same minutes can be compared, and only as ratios (see [`rows`]).

mod cases;
mod code;
mod goals;
mod machine;
mod own;
mod patience;
mod quantile;
mod report;
mod rows;
mod running;
mod target;
mod tracer;
mod walks;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::Repo;
use crate::setup::apt;
use cases::{CASES, Case, REFERENCES};
use machine::Machine;
use own::Own;
use report::Report;
use rows::{Row, Unmeasured};
use target::Pairs;
use tracer::{Bench, Place};
use walks::Walks;

pub(crate) use code::Code;
pub(crate) use running::Running;
pub(crate) use target::compile;

/// Measures malloc+free pairs untraced, with empty probes, and under memtrace; needs root.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often each case is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Figures per measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// Length of a batch in milliseconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    batch_ms: u32,
    /// Print JSON, with every figure, instead of the table
    #[arg(long)]
    json: bool,
    /// Measure only the cases whose names contain one of these; those that others are compared with stay
    cases: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(repo: &Repo, arguments: &Arguments) -> Result<()> {
    apt::install(apt::BENCH)?;
    process::run(repo.cargo().args(["build", "--quiet", "--release", "--package", "memtrace"]))?;

    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let directory = directory.path();
    let memtrace = repo.target.join("release/memtrace");
    let pairs = compile(&repo.root.join("xtask/bench/pairs.c"), directory)?;
    let load = compile(&repo.root.join("xtask/bench/load.c"), directory)?;

    let (cases, sites) = measure(arguments, &pairs, &memtrace, directory)?;
    let walks = if arguments.names(walks::NAME) {
        Some(Walks::measure(arguments, &repo.root.join("xtask/bench/pairs.c"), &memtrace, directory)?)
    } else {
        None
    };
    let own = Own::measure(&load, &memtrace, directory, |name| arguments.names(name));
    let goals = goals::judge(&cases, walks.as_ref(), &own);
    let report =
        Report { machine: Machine::now(), sites, batches: arguments.batches, cases, walks, own, goals };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).context("cannot write JSON")?);
    } else {
        print!("{}", report.text());
    }
    let failed = report.failed();
    if !failed.is_empty() {
        bail!("not all cases could be measured: {}", failed.join("; "));
    }
    Ok(())
}

/// Measures the chosen cases. Returns them, and in words where empty probes were set.
fn measure(
    arguments: &Arguments,
    program: &Path,
    memtrace: &Path,
    directory: &Path,
) -> Result<(Vec<Row>, Vec<String>)> {
    let command = [program.to_string_lossy().into_owned(), arguments.batch_ms.to_string()];
    let target = start(&command)?;
    let code = Code::of(target.pid())?;
    let bench = Bench { target: &target, code: &code, command: &command, memtrace, directory, round: 0 };
    let mut turns: Vec<_> =
        CASES.iter().filter(|case| arguments.chooses(case)).map(|case| Turn::new(case, bench)).collect();
    take_turns(arguments, &mut turns);
    let mut rows: Vec<_> = turns.into_iter().map(|turn| turn.row).collect();
    rows::summarise(&mut rows);
    Ok((rows, vec![Place::Good.describe(&code)?, Place::Entry.describe(&code)?]))
}

/// Starts a target.
fn start(command: &[String]) -> Result<Pairs> {
    let (program, arguments) = command.split_first().context("the target has no program")?;
    Pairs::start(Command::new(program).args(arguments))
}

/// A case, what it is measured on, and what was measured.
struct Turn<'a> {
    case: &'a Case,
    bench: Bench<'a>,
    row: Row,
}

impl<'a> Turn<'a> {
    fn new(case: &'a Case, bench: Bench<'a>) -> Self {
        let mut row = Row::new(case.name);
        row.unmeasured = case.tracer.missing().map(Unmeasured::NotInstalled);
        Self { case, bench, row }
    }
}

/// Measures all cases, in turn.
fn take_turns(arguments: &Arguments, turns: &mut [Turn<'_>]) {
    for round in 1..=arguments.rounds {
        for turn in 0..turns.len() {
            // Each round begins with another case, so that none is always the one after a heavy one.
            let index = (turn + round as usize * 5) % turns.len();
            let Turn { case, bench, row } = &mut turns[index];
            if row.unmeasured.is_some() {
                continue;
            }
            eprintln!("round {round} of {}: {}", arguments.rounds, case.name);
            bench.round = round;
            match case.tracer.around(bench, |pairs| pairs.measure(arguments.batches)) {
                Ok(costs) => row.rounds.push(costs),
                Err(error) => row.unmeasured = Some(Unmeasured::Failed(format!("{error:#}"))),
            }
        }
    }
}

impl Arguments {
    /// Whether a case of this name is wanted.
    fn names(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| case.contains(name.as_str()))
    }

    fn chooses(&self, case: &Case) -> bool {
        self.names(case.name) || REFERENCES.contains(&case.name)
    }
}
