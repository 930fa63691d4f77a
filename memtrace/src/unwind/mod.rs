//! Unwind tables: from an ELF file's call frame information to what the kernel program walks stacks by.
//!
//! ```text
//! ELF file --Cfi--> sections --compile--> rows --Image--> pages --Unwinder--> the kernel's maps
//!                                                  |  ^
//!                                                  v  |
//!                                                 Cache (files)
//! ```
//!
//! 1. [`compile()`] reads `.eh_frame` and `.debug_frame` (DWARF 5, 6.4) and says for every address of the code
//!    how to get from a frame there to its caller's, as a [`Rule`](memtrace_common::unwind::Rule). What
//!    registers there are, and which expressions are understood, says an architecture's file in `arch`.
//! 2. An [`Image`] is that in the form that the kernel program reads, see [`memtrace_common::unwind`].
//! 3. The [`Cache`](cache::Cache) keeps images on disk.
//! 4. The [`Unwinder`] loads them for processes, each once however many processes map the file, and tells
//!    the kernel program what is mapped where.
//!
//! Files belong to the target, which may have written anything into them: none can make memtrace panic, loop
//! or take unbounded memory, and what could not be used is counted.
//!
//! # What is not attempted
//! 32-bit code, `.gnu_debugdata`, separate debug files, and DWARF expressions other than those that compilers
//! and the C library really have in their unwind tables.

pub mod arch;
pub mod cache;
mod compile;
mod decompress;
mod expression;
pub mod image;
mod image_file;
mod load;
mod mappings;
mod ranges;
mod rule;
mod runs;
pub mod sections;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
mod unwinder;

pub use compile::{CompileError, Counts, Rows, compile};
pub use image::{Image, TooLarge};
pub use load::LeftOut;
pub use stats::{LeftOutCounts, Stats};
pub use unwinder::{DEFAULT_LIMIT, Unwinder, UpdateError};
