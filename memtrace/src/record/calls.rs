//! Counting calls for a moment, without recording anything.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Engine, Follow, Options, PythonMode, Session, SessionError};
use crate::{
    attach::TracedFunction,
    kernel::{AttachMode, Kernel, Limits, Newcomers, Settings},
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
    let mode = if target.has_lost_main_thread() { AttachMode::Perf } else { AttachMode::best() };
    let settings = Settings {
        interval: NEVER,
        limits: Limits { live: 1, stacks: 2, ..Limits::for_interval(NEVER) },
        mode,
        max_frames: 1,
        events: false,
        captures: false,
        log: false,
        newcomers: Newcomers::default(),
        threads: false,
        loop_helper: true,
    };
    let engine = Engine::new(Kernel::load(&settings)?)?;
    let options = Options { python: PythonMode::Off, follow: Follow::Nobody, allocators: Arc::default() };
    let mut session = Session::attach(engine, vec![(target, Labels::default())], options)?;
    let deadline = Instant::now() + time;
    while !session.is_over() {
        tokio::select! {
            () = sleep_until(deadline) => break,
            result = session.process_events() => result?,
        }
    }
    Ok(session.finish()?.0.functions)
}
