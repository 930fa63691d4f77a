//! What can be traced here: this kernel, these privileges, and one process.
//!
//! ```no_run
//! # use memtrace::doctor::Report;
//! let report = Report::new(Some(1234))?;
//! if !report.can_record() {
//!     print!("{}", report.text(&Default::default()));
//! }
//! # Ok::<(), memtrace::target::TargetError>(())
//! ```
//!
//! What can be tried is tried, and not guessed from a version: maps and programs are loaded, and probes
//! are set on a function of memtrace's own, which is then called. Of the target, too, one probe is set
//! in each file that has allocation functions, on the function that is called most rarely, and taken off
//! at once. Nothing stays behind.
//!
//! A [`Report`] is data. [`Report::text`] and [`Report::json`] show the same facts.

mod check;
mod features;
mod json;
mod kernel;
mod privileges;
mod report;
mod target;
mod text;
mod trial;

pub use check::{Check, Need, Outcome};
pub use json::SCHEMA;
pub use kernel::KernelReport;
pub use report::Report;
pub use target::{FileReport, FunctionReport, LeftOut, TargetReport};
pub use text::TextOptions;
