//! Counting calls for a moment, without recording anything.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Engine, Options, Session, SessionError};
use crate::{
    attach::TracedFunction,
    kernel::{AttachMode, Kernel, Settings},
    target::{Labels, Target},
};

/// So that nothing is sampled.
const NEVER: u64 = u64::MAX;

/// Sets all probes on a process that `record` would set, counts for `time` how often each function is called, and takes
/// the probes off again.
///
/// # Errors
/// As [`Session::attach`].
pub async fn count_calls(target: Target, time: Duration) -> Result<Vec<(TracedFunction, u64)>, SessionError> {
    let mut settings = Settings { max_frames: 1, ..Settings::new(NEVER) };
    (settings.limits.live, settings.limits.stacks) = (1, 2);
    if target.has_lost_main_thread() {
        settings.mode = AttachMode::Perf;
    }
    let engine = Engine::new(Kernel::load(&settings)?)?;
    let targets = vec![(target, Labels::default())];
    let mut session = Session::attach(engine, targets, Options::default())?;
    let deadline = Instant::now() + time;
    while !session.is_over() {
        tokio::select! {
            () = sleep_until(deadline) => break,
            result = session.process_events() => result?,
        }
    }
    Ok(session.finish()?.0.functions)
}
