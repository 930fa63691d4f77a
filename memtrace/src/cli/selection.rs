//! Which processes: the options for it, and what is said of those that were found.

use std::{path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Result, bail};
use clap::{builder::NonEmptyStringValueParser, error::ErrorKind};
use memtrace::target::{Criteria, PodKey, SelectError, Selected, Selection};
use regex::Regex;

/// The group of all options that say which processes are meant.
const GROUP: &str = "selection";

/// Which processes are meant.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct SelectionArgs {
    #[command(flatten)]
    criteria: CriteriaArgs,

    /// Wait until a process matches, instead of giving up
    #[arg(long, requires = GROUP, help_heading = HEADING)]
    wait: bool,
}

const HEADING: &str = "Which processes (all that is given must hold)";

#[derive(Debug, clap::Args)]
#[group(id = GROUP, multiple = true)]
struct CriteriaArgs {
    /// Processes by their ids
    #[arg(short, long, value_name = "PID[,PID…]", value_delimiter = ',', help_heading = HEADING,
        value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,

    /// Processes with a name that has a match of this regular expression in it: the name that `ps -o comm` shows, the
    /// base name of the executable, or that of the first argument
    #[arg(long, value_name = "REGEX", help_heading = HEADING)]
    name: Option<Regex>,

    /// Processes that listen on this TCP port or are bound to this UDP port, in any network namespace
    #[arg(long, value_name = "N", help_heading = HEADING, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Processes in this cgroup or below: a path under /sys/fs/cgroup, or one as in /proc/PID/cgroup
    #[arg(long, value_name = "PATH", help_heading = HEADING)]
    cgroup: Option<PathBuf>,

    /// Processes in the container of this name, of this id, or of the only id that begins so (docker, podman,
    /// containerd, CRI-O, runc)
    #[arg(long, value_name = "ID|NAME", help_heading = HEADING, value_parser = NonEmptyStringValueParser::new())]
    container: Option<String>,

    /// Processes in this Kubernetes pod, or in the one of this uid
    #[arg(long, value_name = "NAMESPACE/NAME", help_heading = HEADING)]
    pod: Option<PodKey>,

    /// Every process that memtrace may look into
    #[arg(long, help_heading = HEADING)]
    all: bool,
}

/// How often is looked when one is waited for. A look reads a few files of each process.
const PAUSE: Duration = Duration::from_millis(100);

impl SelectionArgs {
    /// Checks that there is either a selection or a command. clap's own words for that would list every option.
    ///
    /// # Errors
    /// A usage error.
    pub(super) fn check(&self, command: &[String]) -> Result<(), clap::Error> {
        match (self.selection().is_some(), command.is_empty()) {
            (true, true) | (false, false) => Ok(()),
            (false, true) => Err(clap::Error::raw(
                ErrorKind::MissingRequiredArgument,
                "say what to record: a process (-p PID, --name, --port, --container and others, see --help) or a \
                 command (-- CMD)\n",
            )),
            (true, false) => Err(clap::Error::raw(
                ErrorKind::ArgumentConflict,
                "either processes that run are recorded (-p PID, --name, --port and others) or a command (-- CMD): \
                 leave out one of both\n",
            )),
        }
    }

    /// The selection; none where no process was asked for.
    pub(super) fn selection(&self) -> Option<Selection> {
        let args = &self.criteria;
        let criteria = Criteria {
            pids: args.pid.clone(),
            name: args.name.clone(),
            port: args.port,
            cgroup: args.cgroup.clone(),
            container: args.container.clone(),
            pod: args.pod.clone(),
            all: args.all,
        };
        (!criteria.is_empty()).then(|| Selection::new(criteria))
    }

    /// The processes that match now, at least one, and the selection to ask about others; none where no process was
    /// asked for. `say` is told what the user should know. With `--wait`, blocks until there is one.
    ///
    /// # Errors
    /// When none matches; see [`SelectError`].
    pub(super) fn find(&self, say: impl Fn(&str)) -> Result<Option<(Selection, Vec<Selected>)>, SelectError> {
        let Some(selection) = self.selection() else { return Ok(None) };
        let mut waiting = false;
        let found = loop {
            match selection.processes() {
                Err(SelectError::NothingMatches { .. }) if self.wait => {
                    if !waiting {
                        say(&format!("waiting for a process that {}", selection.criteria()));
                    }
                    waiting = true;
                    sleep(PAUSE);
                }
                found => break found?,
            }
        };
        match found.unreadable {
            0 => {}
            1 => say("one more process could not be looked at, and may be meant, too"),
            more => say(&format!("{more} more processes could not be looked at, and may be meant, too")),
        }
        for process in &found.selected {
            tracing::info!("pid {} ({}) {}", process.pid, process.labels.comm, process.why);
        }
        Ok(Some((selection, found.selected)))
    }
}

/// The only process that was found.
///
/// # Errors
/// When there are several: a sentence that names them.
pub(super) fn only(found: &[Selected]) -> Result<u32> {
    /// How many are named: enough to choose from.
    const NAMED: usize = 20;
    let [process] = found else {
        let named: Vec<_> = found
            .iter()
            .take(NAMED)
            .map(|process| {
                let place = process.labels.container.iter().map(|container| format!(" in {container}"));
                format!("{} ({}{})", process.pid, process.labels.comm, place.collect::<String>())
            })
            .collect();
        let more = match found.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        bail!("{} processes match, choose one by -p: {}{more}", found.len(), named.join(", "));
    };
    Ok(process.pid)
}
