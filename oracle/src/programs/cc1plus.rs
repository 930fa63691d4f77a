//! GCC's compiler proper, with a C++ source that is heavy on templates.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Load;
use super::service::{run, text};

const SOURCE: &str = include_str!("../../loads/templates.cpp");

pub(super) fn start(directory: &Path) -> Result<Load> {
    let (source, output) = (directory.join("templates.cpp"), directory.join("templates.s"));
    fs::write(&source, SOURCE).context("cannot write the source")?;
    // What the driver g++ would run; the driver itself does nothing but start it.
    let ask =
        |question| Ok::<_, anyhow::Error>(run(Command::new("/usr/bin/g++").arg(question))?.trim().to_owned());
    let (compiler, headers) = (ask("-print-prog-name=cc1plus")?, ask("-print-multiarch")?);
    Ok(Load::launch(&[
        &compiler,
        "-quiet",
        "-imultiarch",
        &headers,
        "-D_GNU_SOURCE",
        "-std=gnu++17",
        "-O2",
        text(&source)?,
        "-o",
        text(&output)?,
    ]))
}
