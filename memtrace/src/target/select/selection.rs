//! The processes that meet the criteria.

use std::collections::BTreeSet;

use procfs::process::MountInfo;

use super::{
    Criteria, Labels, PodKey, Roots, SelectError, cgroup,
    known::Cache,
    process::{self, Process},
    view::{Answer, Candidate, View},
};
use crate::target::{TargetError, process::is_proc_foreign};

/// Which processes are meant.
#[derive(Debug)]
pub struct Selection {
    pub(super) criteria: Criteria,
    pub(super) roots: Roots,
    pub(super) mounts: Vec<MountInfo>,
    pub(super) cache: Cache,
}

/// A process that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its id.
    pub pid: u32,
    /// What it is called in a profile.
    pub labels: Labels,
    /// Why: clauses that can follow "the process", with commas between them.
    pub why: String,
}

/// The processes that are meant, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Each of them.
    pub selected: Vec<Selected>,
    /// How many more there may be that memtrace is not permitted to look at.
    pub unreadable: usize,
}

impl Default for Selection {
    /// One that nothing meets, for the [`labels`](Selection::labels) of processes.
    fn default() -> Self {
        Self::new(Criteria::default())
    }
}

impl Selection {
    /// Those of this machine that meet the criteria.
    pub fn new(criteria: Criteria) -> Self {
        Self::with_roots(criteria, Roots::default())
    }

    /// The same, with other directories.
    pub fn with_roots(mut criteria: Criteria, roots: Roots) -> Self {
        for pid in &mut criteria.pids {
            *pid = process::of_thread(&roots, *pid);
        }
        let mounts = match criteria.cgroup {
            Some(_) => cgroup::mounts(&roots),
            None => Vec::new(),
        };
        Self { criteria, roots, mounts, cache: Cache::default() }
    }

    /// What was asked for. An id of a thread has become that of its process.
    pub fn criteria(&self) -> &Criteria {
        &self.criteria
    }

    /// Whether a process may come to match at another moment than when it is forked or executes a program, so that
    /// [`processes`](Self::processes) has to be asked again from time to time: a port is listened on later.
    pub fn matches_later(&self) -> bool {
        self.criteria.port.is_some()
    }

    /// The processes that match now. At least one. Where only ids were given, these are they: whoever opens them
    /// knows better what is wrong with one.
    ///
    /// # Errors
    /// When none matches, the beginning of a container's id is that of several, or `/proc` is of no use.
    pub fn processes(&self) -> Result<Found, SelectError> {
        let found = self.look()?;
        match found.selected.is_empty() {
            true => Err(self.nothing(found.unreadable)),
            false => Ok(found),
        }
    }

    /// Why this process, which is new or has executed another program, matches; none when it does not, or has ended.
    /// memtrace itself and kernel threads never do.
    pub fn matches(&self, pid: u32) -> Option<Selected> {
        let view = View::new(self);
        match view.answer(pid) {
            Answer::Selected(candidate) => Some(candidate.selected),
            Answer::Not | Answer::Unknown => None,
        }
    }

    /// The labels of a process, whether it matches or not.
    pub fn labels(&self, pid: u32) -> Labels {
        match Process::open(&self.roots, pid) {
            Ok(Some(process)) => View::new(self).labels(&process),
            _ => Labels { pid, ..Labels::default() },
        }
    }

    fn look(&self) -> Result<Found, SelectError> {
        if self.roots.is_real() && is_proc_foreign() {
            return Err(TargetError::ForeignProc.into());
        }
        if self.criteria.only_pids() {
            return Ok(self.named());
        }
        let view = View::new(self);
        let mut unreadable = 0;
        let mut candidates = Vec::new();
        for pid in self.roots.pids().map_err(SelectError::Proc)? {
            match view.answer(pid) {
                Answer::Selected(candidate) => candidates.push(candidate),
                Answer::Unknown => unreadable += 1,
                Answer::Not => {}
            }
        }
        let selected = self.without_ambiguity(candidates)?;
        Ok(Found { selected, unreadable })
    }

    fn named(&self) -> Found {
        let own = self.roots.own_pid();
        let mut pids = self.criteria.pids.clone();
        pids.sort_unstable();
        pids.dedup();
        let selected = pids.into_iter().filter(|&pid| Some(pid) != own).map(|pid| Selected {
            pid,
            labels: self.labels(pid),
            why: format!("has the id {pid}"),
        });
        Found { selected: selected.collect(), unreadable: 0 }
    }

    /// As docker does: a name or a whole id goes before the beginning of an id, and that must be of one container.
    fn without_ambiguity(&self, mut candidates: Vec<Candidate>) -> Result<Vec<Selected>, SelectError> {
        if candidates.iter().any(|candidate| candidate.beginning.is_none()) {
            candidates.retain(|candidate| candidate.beginning.is_none());
        }
        let ids: BTreeSet<_> =
            candidates.iter().filter_map(|candidate| candidate.beginning.clone()).collect();
        if ids.len() > 1 {
            let prefix = self.criteria.container.clone().unwrap_or_default();
            return Err(SelectError::AmbiguousContainer { prefix, ids: ids.into_iter().collect() });
        }
        Ok(candidates.into_iter().map(|candidate| candidate.selected).collect())
    }

    fn nothing(&self, unreadable: usize) -> SelectError {
        let only_uid = "; where the names of pods cannot be read (/var/log/pods, /var/lib/kubelet/pods), \
                        give the pod's uid instead";
        let only_id = "; where the names of containers cannot be read, give the container's id instead";
        let hint = match (&self.criteria.pod, &self.criteria.container) {
            (Some(PodKey::Name(_)), _) => Some(only_uid),
            (_, Some(_)) => Some(only_id),
            _ => None,
        };
        SelectError::NothingMatches {
            wanted: self.criteria.to_string(),
            unreadable,
            hint: hint.map(str::to_owned),
        }
    }
}
