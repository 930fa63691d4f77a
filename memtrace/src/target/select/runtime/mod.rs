//! What container runtimes write down about a container, each in files of its own.

mod containerd;
mod docker;
mod oci;
mod runc;
mod storage;

pub(super) use runc::{Running, running};

use super::{Roots, pod::PodName};

/// A container, as far as its runtime's files can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// Its id.
    pub(super) id: String,
    /// What it is called; with a pod the same name may be there more than once.
    pub(super) names: Vec<String>,
    /// The pod that it belongs to.
    pub(super) pod: Option<PodName>,
}

impl Container {
    /// Short and clear: its name, or else the 12 digits of its id that `docker ps` shows.
    pub(super) fn label(&self) -> &str {
        let id = self.id.get(..12).filter(|_| self.id.len() == 64).unwrap_or(&self.id);
        self.names.first().map_or(id, String::as_str)
    }

    fn learn(&mut self, names: impl IntoIterator<Item = String>, pod: Option<PodName>) {
        for name in names {
            if !name.is_empty() && !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        self.pod = self.pod.take().or(pod);
    }
}

/// Asks every runtime for the container of this id.
pub(super) fn describe(roots: &Roots, id: &str) -> Container {
    let mut container = Container { id: id.to_owned(), ..Container::default() };
    docker::describe(roots, &mut container);
    containerd::describe(roots, &mut container);
    storage::describe(roots, &mut container);
    container
}
