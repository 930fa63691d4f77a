//! python3, with a script that takes many of its modules through their work.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Load;
use super::service::text;

const SCRIPT: &str = include_str!("../../loads/work.py");

pub(super) fn start(directory: &Path) -> Result<Load> {
    let script = directory.join("work.py");
    fs::write(&script, SCRIPT).context("cannot write the script")?;
    Ok(Load::launch(&["/usr/bin/python3", text(&script)?]))
}
