//! Writes a made-up profile in the format that the file's name asks for, and prints its summary:
//!
//! ```text
//! cargo run --example sample_profile -- sample.pb.gz
//! go tool pprof -top sample.pb.gz
//! ```
//!
//! It shows the whole way from a [`Profile`](memtrace::profile::Profile) to an output, and gives other
//! tools something to be tried on.

mod sample;

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use memtrace::output::{self, Format};
use memtrace::report::{SummaryOptions, summary};

fn main() -> anyhow::Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("usage: sample_profile FILE")?.into();
    let format = Format::for_path(&path).context("end the name in .pb.gz, .folded, .json or .svg")?;
    let profile = sample::profile();
    let mut file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    output::write(&profile, format, &mut file).context("failed to write the profile")?;
    eprint!("{}", summary(&profile, &SummaryOptions::default()));
    Ok(())
}
