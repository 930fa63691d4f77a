//! memtrace: heap profiles of unmodified Linux processes.
//!
//! Data goes one way, and each step is a module:
//!
//! ```text
//! target -> allocator -> attach -> [kernel: sample -> live] -> collect -> symbolize -> profile -> output
//! ```
//!
//! [`python`] stands beside `symbolize`: it finds what a Python interpreter runs.

// The unit tests share a made-up profile with the examples, for which this crate is `memtrace`.
#[cfg(test)]
extern crate self as memtrace;

pub mod allocator;
pub mod attach;
pub mod collect;
pub mod descriptors;
pub mod doctor;
pub mod kernel;
pub mod lifetimes;
pub mod offline;
pub mod output;
pub mod profile;
pub mod python;
mod readable;
pub mod record;
pub mod report;
pub mod symbolize;
pub mod target;
pub mod unwind;
