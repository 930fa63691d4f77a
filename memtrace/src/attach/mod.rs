//! Setting probes on a process's allocator functions, and taking them off again.

mod links;
mod plan;
mod presence;
mod probes;
mod remover;
mod traced;

pub use plan::Plan;
pub use presence::is_set;
pub use probes::{AttachError, Probes};
pub use remover::Remover;
pub use traced::{Traced, TracedFunction};
