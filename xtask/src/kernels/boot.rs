//! Running a kernel in an emulator.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The longest that a kernel may take, in seconds. The emulator translates every instruction, so this is not about
/// a time that any real machine would take.
const SECONDS: &str = "600";

/// Boots `image` with `system`, which records in `modes`, and unpacks what it sends into the directory `out`.
///
/// # Errors
/// With the end of its console, when the machine sends nothing.
pub(super) fn boot(image: &Path, system: &Path, modes: &[&str], out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let (console, archive) = (out.join("console"), out.join("archive.tar"));
    let mut qemu = Command::new("timeout");
    qemu.args([SECONDS, "qemu-system-x86_64", "-accel", "tcg", "-smp", "2", "-m", "1024"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    for file in [&console, &archive] {
        qemu.arg("-serial").arg(format!("file:{}", file.display()));
    }
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(system);
    qemu.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 modes={}", modes.join(",")));
    let ran = process::output(&mut qemu);
    let unpacked = ran.and_then(|_| {
        process::output(Command::new("tar").arg("--extract").arg("--file").arg(&archive).current_dir(out))
    });
    if let Err(error) = unpacked {
        let console = fs::read(&console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console).into_owned();
        let lines: Vec<_> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("the machine did not come to its end: {error:#}\n{end}");
    }
    Ok(())
}
