//! Stacks of real programs: do they reach their root, and does another unwinder find the same frames?
//!
//! ```text
//! programs -> recording --walks with copies of the stack--> reference (framehop) -> verdict -> report
//!                                                             ^
//!                                                            code (/proc/PID/maps, ELF sections)
//! ```
//!
//! Nothing of memtrace's own unwinding is used for the reference: framehop reads `.eh_frame` itself, from sections
//! that are found here. `cargo xtask unwinding` installs the programs and runs this.

mod code;
mod figures;
mod programs;
mod recording;
mod reference;
mod report;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use figures::Figures;
use programs::{Load, PROGRAMS, Program};

/// Walks stacks of real programs under load, and compares them with framehop's; needs root.
#[derive(Parser)]
#[command(name = "cargo xtask unwinding")]
struct Arguments {
    /// Only these programs
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    programs: Vec<String>,
    /// Put the tables into this file, between the lines that mark their place
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Instead of them this command, every allocation of it, to look into a program by hand
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unwinding: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let programs = chosen(&arguments.programs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    if !arguments.command.is_empty() {
        let load = Load::command(arguments.command.clone());
        let all = [runtime.block_on(recording::record(&arguments.command[0], 1, load))?];
        print!("{}{}", report::tables(&all), report::examples(&all));
        return Ok(());
    }
    let mut all = Vec::new();
    for program in programs {
        eprintln!("{}", program.name);
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
        let load = (program.start)(directory.path())
            .with_context(|| format!("cannot put {} under load", program.name))?;
        let figures = runtime.block_on(recording::record(program.name, program.interval, load));
        all.push(figures.with_context(|| format!("cannot record {}", program.name))?);
    }
    print!("{}", report::tables(&all));
    print!("{}", report::examples(&all));
    if let Some(path) = &arguments.write {
        report::write(path, &all)?;
    }
    judge(&all)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Program>> {
    if let Some(unknown) = names.iter().find(|name| PROGRAMS.iter().all(|program| program.name != **name)) {
        let known: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        bail!("there is no program {unknown:?} here; there are {}", known.join(", "));
    }
    let is_chosen = |program: &&Program| names.is_empty() || names.iter().any(|name| name == program.name);
    Ok(PROGRAMS.iter().filter(is_chosen).collect())
}

fn judge(all: &[Figures]) -> Result<()> {
    let faults: Vec<_> = all.iter().filter_map(Figures::fault).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}
