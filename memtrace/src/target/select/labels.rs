//! What a process is called in a profile.

use super::known::Place;

/// Labels of a process, read once: they tell the processes of one profile apart (`pprof -tagfocus container=web`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Its id.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` has it. Empty where it may not be read.
    pub comm: String,
    /// The name of the innermost container that it is in, or the first 12 digits of that one's id.
    pub container: Option<String>,
    /// The name of its pod, or the pod's uid where the name cannot be read.
    pub pod: Option<String>,
    /// The Kubernetes namespace of its pod.
    pub namespace: Option<String>,
}

impl Labels {
    pub(super) fn new(pid: u32, comm: &str, place: &Place) -> Self {
        let pod = place.pod.as_ref();
        Self {
            pid,
            comm: comm.to_owned(),
            container: place.containers.last().map(|container| container.label().to_owned()),
            pod: pod.map(|pod| pod.name.clone()).or_else(|| place.pod_uid.clone()),
            namespace: pod.map(|pod| pod.namespace.clone()),
        }
    }

    /// Each label that is known, under its key.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("pid", Some(self.pid.to_string())),
            ("comm", Some(self.comm.clone())),
            ("container", self.container.clone()),
            ("pod", self.pod.clone()),
            ("namespace", self.namespace.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)))
    }
}
