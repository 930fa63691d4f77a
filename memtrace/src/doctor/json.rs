//! The report for programs.

use std::io;

use serde::Serialize;

use super::{Check, KernelReport, Report, TargetReport};
use crate::kernel::object;

/// The name of the layout. Its number goes up when readers of the old layout would be misled; new fields
/// alone do not change it. Described in `docs/doctor.md`.
pub const SCHEMA: &str = "memtrace-doctor/1";

#[derive(Serialize)]
struct Root<'a> {
    schema: &'static str,
    memtrace: Memtrace,
    can_record: bool,
    kernel: &'a KernelReport,
    privileges: &'a [Check],
    features: &'a [Check],
    target: Option<&'a TargetReport>,
    remedies: Vec<&'a str>,
}

#[derive(Serialize)]
struct Memtrace {
    version: &'static str,
    kernel_program_digest: &'static str,
}

impl Report {
    /// Writes the report as one JSON object.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn json(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let memtrace =
            Memtrace { version: env!("CARGO_PKG_VERSION"), kernel_program_digest: object::source_digest() };
        let root = Root {
            schema: SCHEMA,
            memtrace,
            can_record: self.can_record(),
            kernel: &self.kernel,
            privileges: &self.privileges,
            features: &self.features,
            target: self.target.as_ref(),
            remedies: self.remedies(),
        };
        serde_json::to_writer_pretty(&mut *out, &root)?;
        out.write_all(b"\n")
    }
}
