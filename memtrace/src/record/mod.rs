//! Recording the heap of processes: from setting the probes to the finished [`Profile`].
//!
//! [`Profile`]: crate::profile::Profile

mod cost;
mod engine;
mod error;
mod events;
mod follow;
mod guardian;
mod heap;
mod live;
mod losses;
mod observed;
mod pause;
mod processes;
mod python;
mod recording;
mod session;
mod stacks;

pub use cost::probe_time;
pub use engine::Engine;
pub use error::SessionError;
pub use events::{EventWriter, SCHEMA as EVENTS_SCHEMA, StackFrame};
pub use follow::Follow;
pub use heap::{Scope, profile};
pub use python::PythonMode;
pub use recording::{Process, Recording};
pub use session::{Options, Session, monotonic_ns};
