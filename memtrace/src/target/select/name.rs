//! The names that a process has.

use std::path::Path;

use regex::Regex;

use super::{process::Process, verdict::Verdict};

/// Whether one of the process's names matches. The name that the kernel has is cut after 15 bytes and is a thread's to
/// change; that of the executable is an interpreter's for a script; the first argument is what the process says of
/// itself (`nginx: worker process`, `postgres: checkpointer`).
pub(super) fn verdict(process: &Process, name: &Regex) -> Verdict {
    if name.is_match(&process.comm) {
        return Verdict::yes(format!("is called {:?}", process.comm));
    }
    // A process without arguments has none that could match.
    if let Some(argument) = process.first_argument().ok().map(|path| base_name(Path::new(&path)))
        && name.is_match(&argument)
    {
        return Verdict::yes(format!("is started as {argument:?}"));
    }
    match process.executable() {
        Ok(path) => {
            let executable = base_name(&path);
            // A file that was replaced by an update (proc(5)).
            let executable = executable.strip_suffix(" (deleted)").unwrap_or(&executable);
            match name.is_match(executable) {
                true => Verdict::yes(format!("runs {executable:?}")),
                false => Verdict::No,
            }
        }
        Err(unseen) => unseen.into(),
    }
}

/// What follows the last slash of the first word that has one: a title such as `postgres: a/b` is no path.
fn base_name(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.starts_with(['/', '.']) {
        true => text.rsplit('/').next().unwrap_or_default().to_owned(),
        false => text.into_owned(),
    }
}
