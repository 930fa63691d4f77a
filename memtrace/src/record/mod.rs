//! Recording the heap of one process: from setting the probes to the finished [`Profile`].
//!
//! [`Profile`]: crate::profile::Profile

mod calls;
mod cost;
mod engine;
mod error;
mod events;
mod heap;
mod live;
mod losses;
mod observed;
mod pause;
mod python;
mod session;
mod silence;
mod stacks;

pub use calls::count_calls;
pub use cost::probe_time;
pub use engine::Engine;
pub use error::SessionError;
pub use events::{EventWriter, SCHEMA as EVENTS_SCHEMA, StackFrame};
pub use heap::{Recording, profile};
pub use python::PythonMode;
pub use session::{Session, monotonic_ns};
