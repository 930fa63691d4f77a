//! `memtrace record --events FILE`: opening the file, and ending it.

use std::{fs::File, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use memtrace::{
    profile::{Frame, Profile},
    record::{EventWriter, StackFrame},
};

/// Opens the file. It is written as things happen, so it must not be the profile's, which is replaced.
/// Returns also whether there was one with something in it, of which nothing is left.
///
/// # Errors
/// When it cannot be written.
pub(super) fn create(path: &Path, profile: Option<&Path>) -> Result<(File, bool)> {
    const HINT: &str = "name another file with --events";
    if profile == Some(path) {
        bail!("the profile and the events cannot both go to {}: {HINT}", path.display());
    }
    let replaces = std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() > 0);
    let file =
        File::create(path).with_context(|| format!("cannot write events to {}: {HINT}", path.display()))?;
    Ok((file, replaces))
}

/// Ends the file: what the stack ids in it stand for comes last, and what was lost. `ids` are those of the
/// profile's samples, one by one; `ended_ns` is when the books were closed, in nanoseconds of
/// `CLOCK_MONOTONIC`.
///
/// # Errors
/// When anything could not be written since the recording began.
pub(super) async fn finish(
    out: EventWriter,
    path: &Path,
    profile: &Profile,
    ids: &[u64],
    ended_ns: u64,
) -> Result<()> {
    let samples = ids.iter().zip(&profile.samples);
    let stacks: Vec<_> =
        samples.map(|(&id, sample)| (id, profile.frames(sample).map(frame).collect())).collect();
    let losses = profile.losses.clone();
    // It may be a pipe that nobody empties: signals must be heard meanwhile.
    let writing = tokio::task::spawn_blocking(move || out.finish(stacks.into_iter(), ended_ns, losses));
    // As text: a pipe whose reader has left is a failure here, since events are missing.
    writing.await.context("cannot wait for the events")?.map_err(|error| {
        let path = path.display();
        anyhow!("failed to write the events to {path}, which end early ({error}); the profile is complete")
    })
}

fn frame(frame: Frame<'_>) -> StackFrame {
    let place = match frame.file() {
        Some(file) if frame.line > 0 => format!("{file}:{}", frame.line),
        Some(file) => file.to_owned(),
        None => String::new(),
    };
    StackFrame { name: frame.name().into_owned(), place }
}
