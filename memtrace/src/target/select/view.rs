//! What is asked of each process, at one moment: what holds for all of them is looked up once.

use std::cell::OnceCell;

use super::{
    Labels, Selected, Selection,
    cgroup::Cgroup,
    known::{Known, Place},
    membership::{self, Meant},
    name,
    port::Listeners,
    process::{Process, Unseen},
    verdict::Verdict,
};

/// A process that matches, perhaps only by the beginning of a container's id.
pub(super) struct Candidate {
    pub(super) selected: Selected,
    /// The id, if it was given by its beginning.
    pub(super) beginning: Option<String>,
}

/// Whether a process is meant.
pub(super) enum Answer {
    /// It is.
    Selected(Candidate),
    /// It is not.
    Not,
    /// Not permitted to look.
    Unknown,
}

/// The processes at one moment.
pub(super) struct View<'a> {
    selection: &'a Selection,
    own: Option<u32>,
    known: Known<'a>,
    cgroup: Option<Cgroup>,
    listeners: OnceCell<Listeners>,
}

impl<'a> View<'a> {
    pub(super) fn new(selection: &'a Selection) -> Self {
        let cgroup = selection.criteria.cgroup.as_ref();
        Self {
            selection,
            own: selection.roots.own_pid(),
            known: Known::new(&selection.roots, &selection.cache),
            cgroup: cgroup.map(|path| Cgroup::new(path, &selection.mounts)),
            listeners: OnceCell::new(),
        }
    }

    /// Whether the process of this id is meant.
    pub(super) fn answer(&self, pid: u32) -> Answer {
        let criteria = &self.selection.criteria;
        if criteria.is_empty() || self.own == Some(pid) {
            return Answer::Not;
        }
        if !criteria.pids.is_empty() && !criteria.pids.contains(&pid) {
            return Answer::Not;
        }
        let process = match Process::open(&self.selection.roots, pid) {
            Ok(Some(process)) => process,
            Ok(None) | Err(Unseen::Gone) => return Answer::Not,
            Err(Unseen::NotPermitted) => return Answer::Unknown,
        };
        let mut beginning = None;
        match self.verdict(&process, &mut beginning) {
            Verdict::Yes(reasons) => {
                let selected = Selected { pid, labels: self.labels(&process), why: reasons.join(", ") };
                Answer::Selected(Candidate { selected, beginning })
            }
            Verdict::No => Answer::Not,
            Verdict::Unknown => Answer::Unknown,
        }
    }

    /// Whether a process meets all criteria; those that are cheap to look at come first.
    fn verdict(&self, process: &Process, beginning: &mut Option<String>) -> Verdict {
        let criteria = &self.selection.criteria;
        let mut verdict = match criteria.pids.is_empty() {
            true => Verdict::Yes(Vec::new()),
            false => Verdict::yes(format!("has the id {}", process.pid)),
        };
        if let Some(name) = &criteria.name {
            verdict = verdict.and(|| name::verdict(process, name));
        }
        if criteria.cgroup.is_some() || criteria.container.is_some() || criteria.pod.is_some() {
            verdict = verdict.and(|| match self.known.place(process) {
                Ok(place) => self.placed(&place, beginning),
                Err(unseen) => unseen.into(),
            });
        }
        if criteria.all {
            verdict = verdict.and(|| match process.executable() {
                Ok(_) => Verdict::Yes(Vec::new()),
                Err(unseen) => unseen.into(),
            });
        }
        if let Some(port) = criteria.port {
            let listeners = || self.listeners.get_or_init(|| Listeners::find(&self.selection.roots, port));
            verdict = verdict.and(|| listeners().verdict(process, port));
        }
        verdict
    }

    fn placed(&self, place: &Place, beginning: &mut Option<String>) -> Verdict {
        let criteria = &self.selection.criteria;
        let mut reasons = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            if !cgroup.contains(&place.groups) {
                return Verdict::No;
            }
            reasons.push(format!("is in the cgroup {}", cgroup.path.display()));
        }
        if let Some(wanted) = &criteria.container {
            reasons.push(match membership::container(place, wanted) {
                Some(Meant::Exactly(why)) => why,
                Some(Meant::Beginning(id)) => {
                    let why = format!("is in the container {id}");
                    *beginning = Some(id);
                    why
                }
                None => return Verdict::No,
            });
        }
        if let Some(wanted) = &criteria.pod {
            if !membership::pod(place, wanted) {
                return Verdict::No;
            }
            reasons.push(format!("is in the pod {wanted}"));
        }
        Verdict::Yes(reasons)
    }

    /// What a process is called in a profile.
    pub(super) fn labels(&self, process: &Process) -> Labels {
        let place = self.known.place(process).unwrap_or_default();
        Labels::new(process.pid, &process.comm, &place)
    }
}
