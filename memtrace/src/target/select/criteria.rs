//! What can be asked for.

use std::{fmt, path::PathBuf};

use regex::Regex;

use super::PodKey;

/// What a process must be to be selected: all that is given here. Nothing given selects nothing.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    /// One of these ids, if there are any.
    pub pids: Vec<u32>,
    /// One of its names contains a match: `/proc/PID/comm`, the base name of its executable, or that of its first
    /// argument.
    pub name: Option<Regex>,
    /// It holds a socket that listens on this TCP port, or one that is bound to this UDP port.
    pub port: Option<u16>,
    /// It is in this cgroup or in one below: a path in a mounted hierarchy, or one as in `/proc/PID/cgroup`.
    pub cgroup: Option<PathBuf>,
    /// It is in the container of this name or id, or of the only id that begins so.
    pub container: Option<String>,
    /// It is in this pod.
    pub pod: Option<PodKey>,
    /// Any process that memtrace may look into.
    pub all: bool,
}

impl Criteria {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty() && !self.all && !self.describes()
    }

    /// Whether only ids were given.
    pub fn only_pids(&self) -> bool {
        !self.pids.is_empty() && !self.all && !self.describes()
    }

    /// The name, if nothing else was given.
    pub fn only_name(&self) -> Option<&Regex> {
        let others = Self { name: None, ..self.clone() };
        self.name.as_ref().filter(|_| others.is_empty())
    }

    /// Whether anything is asked for that has to be looked up in the process.
    fn describes(&self) -> bool {
        self.name.is_some()
            || self.port.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || self.pod.is_some()
    }
}

/// A clause that can follow "a process that".
impl fmt::Display for Criteria {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        if !self.pids.is_empty() {
            let pids: Vec<_> = self.pids.iter().map(u32::to_string).collect();
            clauses.push(format!("has the id {}", pids.join(" or ")));
        }
        if let Some(name) = &self.name {
            clauses.push(format!("has a name that matches {:?}", name.as_str()));
        }
        if let Some(port) = self.port {
            clauses.push(format!("listens on port {port}"));
        }
        if let Some(cgroup) = &self.cgroup {
            clauses.push(format!("is in the cgroup {}", cgroup.display()));
        }
        if let Some(container) = &self.container {
            clauses.push(format!("is in a container {container:?}"));
        }
        if let Some(pod) = &self.pod {
            clauses.push(format!("is in the pod {pod}"));
        }
        if self.all && clauses.is_empty() {
            clauses.push("memtrace may look into".to_owned());
        }
        out.write_str(&clauses.join(" and "))
    }
}
