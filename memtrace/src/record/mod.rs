//! Recording the heap of one process: from setting the probes to the finished [`Profile`].
//!
//! [`Profile`]: crate::profile::Profile

mod cost;
mod events;
mod heap;
mod live;
mod losses;
mod python;
mod session;
mod silence;
mod stacks;

pub use cost::probe_time;
pub use events::{EventWriter, SCHEMA as EVENTS_SCHEMA, StackFrame};
pub use heap::{Recording, profile};
pub use python::PythonMode;
pub use session::{Session, SessionError, monotonic_ns};
pub use silence::Silence;
