//! Counting calls for a moment, without recording anything.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Engine, PythonMode, Session, SessionError};
use crate::{
    attach::TracedFunction,
    kernel::{AttachMode, Kernel, Limits, Settings},
    target::Target,
};

/// So that nothing is sampled.
const NEVER: u64 = u64::MAX;

/// Sets all probes on a process that `record` would set, counts for `time` how often each function is called, and takes
/// the probes off again.
///
/// # Errors
/// As [`Session::attach`].
pub async fn count_calls(target: Target, time: Duration) -> Result<Vec<(TracedFunction, u64)>, SessionError> {
    let mode = if target.has_lost_main_thread() { AttachMode::Perf } else { AttachMode::best() };
    let settings = Settings {
        interval: NEVER,
        limits: Limits { live: 1, stacks: 2, ..Limits::for_interval(NEVER) },
        mode,
        max_frames: 1,
        events: false,
        captures: false,
        log: false,
        loop_helper: true,
    };
    let engine = Engine::new(Kernel::load(&settings)?)?;
    let mut session = Session::attach(engine, target, PythonMode::Off, Arc::default())?;
    let deadline = Instant::now() + time;
    let exit = session.exit_watch();
    loop {
        tokio::select! {
            () = sleep_until(deadline) => break,
            () = exit.ended() => break,
            result = session.process_events() => result?,
        }
    }
    Ok(session.finish()?.0.functions)
}
