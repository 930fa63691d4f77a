//! Why a recording cannot begin, or not go on.

use std::io;

use thiserror::Error;

use crate::{
    attach::AttachError,
    kernel::LoadError,
    symbolize,
    target::{LaunchError, TargetError},
};

/// A recording could not begin, or not go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its memory cannot be looked at.
    #[error(transparent)]
    AddressSpace(#[from] symbolize::Error),
    /// The command cannot be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A probe cannot be set.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel program is not as expected.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// There is no allocator that memtrace knows.
    #[error(
        "found no allocator in {comm} (process {pid}): none of its {modules} mapped files defines malloc or \
         another function that memtrace knows. It may be a static program without symbols, or use an \
         allocator of its own; `memtrace doctor -p {pid}` lists what was looked at"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// How many files were looked at.
        modules: usize,
    },
    /// There is nothing to record.
    #[error("there is no process to record")]
    NoProcess,
    /// There can be no second process.
    #[error("cannot start a process that watches over those that memtrace stops")]
    Guardian(#[source] io::Error),
    /// The kernel's descriptors cannot be waited for.
    #[error("cannot watch process {0}")]
    Watch(u32, #[source] io::Error),
}
