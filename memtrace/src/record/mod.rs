//! Recording the heap of processes: from setting the probes to the finished [`Profile`].
//!
//! [`Profile`]: crate::profile::Profile

mod calls;
mod clock;
mod cost;
mod engine;
mod error;
mod events;
mod follow;
mod heap;
mod live;
mod losses;
mod newcomers;
mod observed;
mod options;
mod pause;
mod processes;
mod python;
mod recording;
mod session;
mod silence;
mod stacks;

pub use calls::count_calls;
pub use clock::monotonic_ns;
pub use cost::probe_time;
pub use engine::Engine;
pub use error::SessionError;
pub use events::{EventWriter, SCHEMA as EVENTS_SCHEMA, StackFrame};
pub use follow::Follow;
pub use heap::{Scope, profile};
pub use options::Options;
pub use python::PythonMode;
pub use recording::{Process, Recording};
pub use session::Session;
