//! A process that is, or is to be, traced.

mod exit;
mod launch;
mod process;

pub use exit::ExitWatch;
pub use launch::{LaunchError, Launched, launch, shell_status};
pub use process::{Target, TargetError};
