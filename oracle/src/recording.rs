//! Recording one program with memtrace, and comparing each of its walks.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use memtrace::collect::CapturedWalk;
use memtrace::kernel::{Kernel, Limits, Settings};
use memtrace::record::{Engine, Options, Recording, Session};
use memtrace::target::{Labels, Launched, Target, launch};
use memtrace_common::{Counter, MAX_FRAMES, StackEnd};
use tokio::time::{Instant, sleep_until};

use crate::code::Code;
use crate::figures::{Figures, Verdicts};
use crate::programs::{Load, Traced};
use crate::reference::Framehop;
use crate::verdict::{Reference, Verdict, compare};

/// A recording ends when so many walks were compared...
const ENOUGH: u64 = 100_000;

/// ...or after this time.
const TIME: Duration = Duration::from_secs(20);

/// Room for about a thousand copied stacks, in bytes.
const RING: u32 = 64 << 20;

/// Records a program under load, with this mean number of bytes between two samples.
///
/// # Errors
/// When it cannot be recorded.
pub(crate) async fn record(name: &str, interval: u64, load: Load) -> Result<Figures> {
    let settings = Settings {
        limits: Limits { ring: RING, ..Limits::for_interval(interval) },
        max_frames: MAX_FRAMES as u32,
        captures: true,
        ..Settings::new(interval)
    };
    let engine = Engine::new(Kernel::load(&settings)?)?;
    let options = Options::default();
    let session = match &load.traced {
        Traced::Running(pid) => {
            Session::attach(engine, vec![(Target::open(*pid)?, Labels::default())], options)
        }
        Traced::Command(command) => Session::launch(engine, launch(&command[0], &command[1..])?, options),
    };
    let (recording, oracle) = follow(session?).await?;
    let (counters, tables) = (&recording.counters, &recording.unwind);
    let ends = StackEnd::ALL.into_iter().map(|end| (end, counters.get(Counter::of_walks(end))));
    Ok(Figures {
        name: name.to_owned(),
        ends: ends.collect(),
        time: recording.duration,
        stacks: recording.processes.iter().map(|process| process.stacks.len()).sum(),
        frames: oracle.frames,
        deepest: oracle.deepest,
        tables: (tables.tables, tables.bytes, tables.time),
        tables_from_cache: tables.cache_hits,
        lost: counters.get(Counter::CapturesLost) + oracle.code_gone,
        verdicts: oracle.verdicts,
    })
}

async fn follow(mut session: Session) -> Result<(Recording, Oracle)> {
    let (sender, walks) = mpsc::channel();
    session.send_captures(sender);
    let mut oracle = Oracle::default();
    let deadline = Instant::now() + TIME;
    while oracle.verdicts.compared() < ENOUGH && !session.is_over() {
        tokio::select! {
            biased;
            () = sleep_until(deadline) => break,
            result = session.process_events() => result?,
        }
        oracle.take(&walks)?;
    }
    session.close_books()?;
    session.process_pending()?;
    let (recording, launched) = session.finish()?;
    oracle.take(&walks)?;
    if let Some(launched) = launched {
        end(launched)?;
    }
    Ok((recording, oracle))
}

/// The launched program may have more to do than was recorded.
fn end(mut launched: Launched) -> Result<()> {
    launched.signal(libc::SIGKILL);
    launched.wait().context("cannot wait for the program")?;
    Ok(())
}

/// One walk of so many is made again from wrong registers, which must not give the same stack.
const CONTROL: u64 = 50;

/// Compares walks as they come, while the process is there.
#[derive(Default)]
struct Oracle {
    code: Code,
    framehop: Framehop,
    frames: u64,
    deepest: u64,
    /// Walks in code that was gone when it was to be looked at.
    code_gone: u64,
    verdicts: Verdicts,
}

impl Oracle {
    fn take(&mut self, walks: &mpsc::Receiver<CapturedWalk>) -> Result<()> {
        walks.try_iter().try_for_each(|walk| self.compare(&walk))
    }

    fn compare(&mut self, walk: &CapturedWalk) -> Result<()> {
        if !walk.frames.iter().all(|address| self.code.holds(*address)) {
            self.code.update(walk.tgid, &mut self.framehop)?;
        }
        if !self.code.holds(walk.address) {
            self.code_gone += 1;
            return Ok(());
        }
        if self.verdicts.compared().is_multiple_of(CONTROL) {
            let wrong = CapturedWalk {
                stack_pointer: walk.stack_pointer.wrapping_add(8),
                frame_pointer: walk.frame_pointer.wrapping_add(8),
                ..walk.clone()
            };
            self.verdicts.controls += 1;
            self.verdicts.controls_equal += u64::from(self.verdict(&wrong).1 == Verdict::Equal);
        }
        let (reference, verdict) = self.verdict(walk);
        self.frames += walk.frames.len() as u64;
        self.deepest = self.deepest.max(walk.frames.len() as u64);
        let code = &self.code;
        self.verdicts.add(verdict, || {
            let lines = |frames: &[u64]| {
                let frames = frames.iter().map(|address| code.in_file(*address));
                frames.collect::<Vec<_>>().join(" ")
            };
            format!(
                "memtrace ({:?}): {}\n  framehop ({:?}): {}",
                walk.end,
                lines(&walk.frames),
                reference.end,
                lines(&reference.frames)
            )
        });
        Ok(())
    }

    /// What framehop finds, and what comes of the comparison.
    fn verdict(&mut self, walk: &CapturedWalk) -> (Reference, Verdict) {
        let mut reference = self.framehop.unwind(walk);
        // memtrace leaves out the frames of wrappers that have called the allocation function.
        let wrappers =
            reference.frames.iter().take_while(|address| self.code.is_operator_new(**address)).count();
        if walk.frames.first() != Some(&walk.address) && wrappers < reference.frames.len() {
            reference.frames.drain(..wrappers);
            reference.beyond_copy_at = reference.beyond_copy_at.map(|at| at.saturating_sub(wrappers));
        }
        let verdict = compare(&walk.frames, walk.end, &reference, |address| self.code.place(address));
        (reference, verdict)
    }
}
