//! Waiting, with an end.

use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The longest that anything here may take to attach, to end, or to have its probes removed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `condition` until it holds; whether it did within [`PATIENCE`].
pub(crate) fn wait_until(mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        if condition()? {
            return Ok(true);
        }
        sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// Waits for the end of `child`; `None` when it does not end within [`PATIENCE`].
pub(crate) fn wait_for(child: &mut Child) -> Result<Option<ExitStatus>> {
    let mut status = None;
    wait_until(|| {
        status = child.try_wait().context("cannot wait for a process")?;
        Ok(status.is_some())
    })?;
    Ok(status)
}
