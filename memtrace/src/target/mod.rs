//! A process that is, or is to be, traced.

mod elf_class;
mod exit;
mod launch;
mod process;
mod select;
mod stop;
mod thread;

pub use exit::ExitWatch;
pub use launch::{LaunchError, Launched, launch, shell_status};
pub use process::{Target, TargetError};
pub use select::{Criteria, Found, Labels, PodKey, PodName, Roots, SelectError, Selected, Selection};
pub(crate) use stop::wait_stopped;
pub(crate) use thread::living as living_thread;
