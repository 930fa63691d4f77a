//! Which processes are meant: by id, name, port, cgroup, container or pod.
//!
//! A [`Selection`] is made of [`Criteria`], and a process is selected when it meets all that are given, as with
//! pgrep and kubectl. It answers two questions:
//!
//! - [`Selection::processes`]: which processes match now, and why;
//! - [`Selection::matches`]: does this process, which is new or has executed another program.
//!
//! | module | what it knows |
//! |---|---|
//! | [`criteria`] | what can be asked for |
//! | [`process`] | one process's directory in `/proc` |
//! | [`name`] | the names that a process has |
//! | [`port`] | who listens on a port |
//! | [`cgroup`] | cgroups of version 1 and 2, and where they are mounted |
//! | [`container`] | the containers that a process is in, from its cgroups |
//! | [`runtime`] | what container runtimes write down about a container |
//! | [`pod`] | Kubernetes pods |
//! | [`known`], [`membership`] | the containers and pods of a process, and whether these are meant |
//! | [`view`], [`verdict`] | whether one process meets everything that is asked for |
//! | [`labels`] | what a process is called in a profile |
//!
//! All numbers of processes are those of `/proc`, so they belong to the PID namespace in which memtrace runs. Processes
//! that end while they are looked at are left out in silence; those that memtrace may not look at are counted.
//!
//! ```no_run
//! use memtrace::target::{Criteria, Selection};
//! let selection = Selection::new(Criteria { port: Some(6379), ..Criteria::default() });
//! for process in selection.processes()?.selected {
//!     println!("{} ({}): {}", process.pid, process.labels.comm, process.why);
//! }
//! # Ok::<(), memtrace::target::SelectError>(())
//! ```

mod cgroup;
mod container;
mod criteria;
mod error;
mod known;
mod labels;
mod membership;
mod name;
mod pod;
mod port;
mod process;
mod roots;
mod runtime;
mod selection;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

pub use criteria::Criteria;
pub use error::SelectError;
pub use labels::Labels;
pub use pod::{PodKey, PodName};
pub use roots::Roots;
pub use selection::{Found, Selected, Selection};
