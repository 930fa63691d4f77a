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
    /// The program has its allocator inside, and nothing says where.
    #[error(
        "{comm} (process {pid}) is statically linked and stripped: it has its allocator inside, and no symbol that says \
         where, so there is nothing to set a probe on. Keep its symbol table (link without -s, or `strip --strip-debug`, \
         which leaves it), or link it dynamically. Of the process as it is memtrace can record nothing; what is left is \
         to watch its size, as VmRSS in /proc/{pid}/status has it"
    )]
    StrippedStatic {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A function that the user has named is not there.
    #[error(
        "found no function {function} in {library} of process {pid}: give the file as /proc/{pid}/maps has it, or the \
         last part of that, or `exe`, and the function as `nm` or `nm -D` shows it; the file must not be stripped of it"
    )]
    NoSuchFunction {
        /// The process.
        pid: u32,
        /// The file, as the user has named it.
        library: String,
        /// The function.
        function: String,
    },
    /// The kernel's descriptors cannot be waited for.
    #[error("cannot watch process {0}")]
    Watch(u32, #[source] io::Error),
}
