//! The ways to trace the target, and how each is switched on and off around a measurement.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::code::{Code, FUNCTIONS};
use super::running::Running;
use super::target::Pairs;
use crate::probe::site::{self, Site};
use crate::probe::{Leg, Link, Probe, Program, naive, walk};
use crate::process;

/// What is attached to the target. In the words of a command, `{pid}` stands for the target, `{libc}` for
/// its C library, `{directory}` for a place for its output, `{round}` for the round's number, `{memtrace}`
/// for the binary of this checkout.
pub(crate) enum Tracer {
    /// Nothing.
    None,
    /// Probes with an empty program.
    Empty(Place, Link, &'static [(&'static str, Leg)]),
    /// A tracer as they are mostly written ([`naive`]).
    Naive,
    /// The kernel's walk of so many frames at each return of malloc ([`walk`]).
    KernelWalk(u32),
    /// A program that attaches probes by itself, and ends at SIGINT.
    Attached { program: &'static str, arguments: &'static [&'static str], options: &'static [&'static str] },
    /// A program that starts the target itself: the target's command comes after the arguments.
    Starting { program: &'static str, arguments: &'static [&'static str] },
}

/// The entries of a pair's functions.
pub(crate) const CALLS: &[(&str, Leg)] = &[("malloc", Leg::Entry), ("free", Leg::Entry)];

/// These, and the return of the one whose result a profiler has to know.
pub(crate) const CALLS_AND_RETURNS: &[(&str, Leg)] =
    &[("malloc", Leg::Entry), ("malloc", Leg::Return), ("free", Leg::Entry)];

/// Which instruction of a function a probe replaces.
pub(crate) enum Place {
    /// The first, as most tools do.
    Entry,
    /// The first that the kernel emulates.
    Good,
}

/// What a tracer may need.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    /// The process to trace.
    pub(crate) target: &'a Pairs,
    /// That process's code.
    pub(crate) code: &'a Code,
    /// The target's command: its program and its arguments.
    pub(crate) command: &'a [String],
    /// The `memtrace` binary.
    pub(crate) memtrace: &'a Path,
    /// A directory for what tracers write.
    pub(crate) directory: &'a Path,
    /// The number of this round.
    pub(crate) round: u32,
}

impl Tracer {
    /// The program that has to be installed for this, if it is not.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let (Self::Attached { program, .. } | Self::Starting { program, .. }) = self else { return None };
        (!program.starts_with('{') && process::find_program(program).is_none()).then_some(program)
    }

    /// Runs `measure` while this is attached to the target. When it returns, nothing is attached.
    ///
    /// # Errors
    /// When the tracer does not attach, ends early, fails, or leaves a probe behind.
    pub(crate) fn around<T>(
        &self,
        bench: &Bench<'_>,
        measure: impl FnOnce(&Pairs) -> Result<T>,
    ) -> Result<T> {
        if let Some(function) = bench.code.probed()?.first() {
            bail!(
                "something else has a probe on `{function}`: end it first (`bpftool link`, `bpftool perf`)"
            );
        }
        let result = match self {
            Self::None => measure(bench.target)?,
            Self::Empty(place, link, legs) => {
                let _probes = attach_empty(bench, place, *link, legs)?;
                measure(bench.target)?
            }
            Self::Naive => {
                let _probes = naive::attach(&bench.code.libc.path, bench.target.pid())?;
                measure(bench.target)?
            }
            Self::KernelWalk(frames) => {
                let _probe = walk::attach(&bench.code.libc.path, bench.target.pid(), *frames)?;
                measure(bench.target)?
            }
            Self::Attached { program, arguments, options } => {
                let words: Vec<_> = arguments.iter().chain(*options).map(|word| bench.fill(word)).collect();
                let running = Running::start(bench.code, bench.directory, &bench.fill(program), &words)?;
                let result = measure(bench.target)?;
                running.stop()?;
                result
            }
            Self::Starting { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments.iter().map(|word| bench.fill(word))).args(bench.command);
                let pairs = Pairs::start(command.stderr(Stdio::null()))
                    .with_context(|| format!("cannot run the target under {program}"))?;
                let result = measure(&pairs)?;
                pairs.end()?;
                result
            }
        };
        bench.code.wait_for_no_probe()?;
        Ok(result)
    }
}

impl Bench<'_> {
    fn fill(&self, word: &str) -> String {
        word.replace("{pid}", &self.target.pid().to_string())
            .replace("{libc}", &self.code.libc.path.to_string_lossy())
            .replace("{directory}", &self.directory.to_string_lossy())
            .replace("{round}", &self.round.to_string())
            .replace("{memtrace}", &self.memtrace.to_string_lossy())
    }
}

impl Place {
    fn find(&self, path: &Path, function: &str) -> Result<Site> {
        match self {
            Self::Entry => site::entry(path, function),
            Self::Good => site::good(path, function),
        }
    }

    /// Where such a probe on each function sits, as one line for the report.
    pub(crate) fn describe(&self, code: &Code) -> Result<String> {
        let mut places = Vec::new();
        for function in FUNCTIONS {
            let site = self.find(&code.libc.path, function)?;
            places.push(format!("{function}+{} `{}`", site.after_entry, site.instruction));
        }
        let kind = match self {
            Self::Entry => "first instructions",
            Self::Good => "good sites",
        };
        Ok(format!("{kind} in {}: {}", code.libc.path.display(), places.join(", ")))
    }
}

fn attach_empty(bench: &Bench<'_>, place: &Place, link: Link, legs: &[(&str, Leg)]) -> Result<Vec<Probe>> {
    let program = Program::empty(link)?;
    let (path, pid) = (&bench.code.libc.path, bench.target.pid());
    let mut probes = Vec::new();
    for leg in [Leg::Return, Leg::Entry] {
        let sites = legs.iter().filter(|(_, of)| *of == leg).map(|(function, _)| place.find(path, function));
        let offsets: Vec<_> = sites.map(|site| Ok(site?.offset)).collect::<Result<_>>()?;
        match link {
            _ if offsets.is_empty() => {}
            Link::Multi => probes.push(Probe::attach_multi(&program, path, &offsets, leg, pid)?),
            Link::Perf => {
                for offset in offsets {
                    probes.push(Probe::attach(&program, path, offset, leg, pid)?);
                }
            }
        }
    }
    Ok(probes)
}
