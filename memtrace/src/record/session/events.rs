//! Taking in what the kernel program sends, and the ends of processes.

use aya::maps::{MapData, RingBuf};

use super::Session;
use crate::{
    collect::{Announced, Event, ImageChange},
    record::SessionError,
};

impl Session {
    /// Waits until the kernel program has sent something, or a process has ended, and takes it in.
    ///
    /// # Errors
    /// When the command that was to be launched could not be executed.
    pub async fn process_events(&mut self) -> Result<(), SessionError> {
        let batch = tokio::select! {
            biased;
            Some(pid) = self.ends.1.recv() => return self.process_ended(pid),
            guard = self.events.readable_mut() => {
                let Ok(mut guard) = guard else { return Ok(()) };
                let batch = take_events(guard.get_inner_mut());
                // With more to come, the descriptor stays ready, and the caller looks at all else first.
                if batch.len() < BATCH {
                    guard.clear_ready();
                }
                batch
            }
        };
        let more = batch.len() == BATCH;
        self.take_in(batch)?;
        if more {
            // Signals and timers are seen when the event loop gets to look.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn process_ended(&mut self, pid: u32) -> Result<(), SessionError> {
        // What it has sent before, its children among that.
        self.process_pending()?;
        if self.processes.get_mut(pid).is_some_and(|process| process.has_ended()) {
            self.processes.end(&mut self.engine, pid)?;
        }
        Ok(())
    }

    fn take_in(&mut self, batch: Vec<Option<Event>>) -> Result<(), SessionError> {
        // The process runs on, and may let go of Python code at any time; native code stays longer.
        for event in batch.iter().flatten() {
            if let Event::NewStack { tgid, python: Some(python), .. } = event
                && let Some(process) = self.processes.get_mut(*tgid)
            {
                process.read_python(python);
            }
        }
        batch.into_iter().try_for_each(|event| self.handle(event))
    }

    fn handle(&mut self, event: Option<Event>) -> Result<(), SessionError> {
        match event {
            Some(Event::NewStack { tgid, stack_id, tid, end, frames, python }) => {
                // The measurement of prices has left some of memtrace's own.
                if let Some(process) = self.processes.get_mut(tgid) {
                    let announced =
                        Announced { stack_id, tid, end, frames: &frames, python: python.as_ref() };
                    process.add_stack(&mut self.engine, &announced);
                }
            }
            Some(Event::Block(change)) => {
                if let Some(out) = &mut self.events_out
                    && self.processes.get_mut(change.pid).is_some()
                {
                    out.write(&change);
                }
            }
            Some(Event::Captured(walk)) => {
                if let Some(out) = &self.captures_out
                    && self.processes.get_mut(walk.tgid).is_some()
                {
                    // An error means that nobody wants them any more.
                    let _ = out.send(walk);
                }
            }
            Some(Event::ImageChanged { tgid, change, time_ns }) => {
                let paused = self.pauses.is_paused();
                if change == ImageChange::Exec && self.is_another_program(tgid) {
                    self.leave(tgid, time_ns)?;
                } else if let Some(process) = self.processes.get_mut(tgid) {
                    let events_out = self.events_out.as_mut();
                    process.image_changed(&mut self.engine, change, time_ns, paused, events_out)?;
                }
            }
            Some(Event::Newcomer { tgid, parent, time_ns, comm }) => {
                self.newcomer(tgid, parent, time_ns, &comm)?;
            }
            None => self.unknown_events += 1,
        }
        Ok(())
    }

    /// Takes in what the kernel program has sent so far, without waiting. The books are closed, or what is sent
    /// meanwhile is taken in, too, as far as the ring buffer is long.
    ///
    /// # Errors
    /// As [`process_events`](Self::process_events).
    pub fn process_pending(&mut self) -> Result<(), SessionError> {
        self.drain(|_| true)
    }

    /// Takes in those pending events that are `wanted`. At the most as many as the ring can hold, so that it comes
    /// to an end beside a process that sends more all the time.
    pub(super) fn drain(&mut self, wanted: impl Fn(&Option<Event>) -> bool) -> Result<(), SessionError> {
        let most = self.engine.kernel.most_pending_events();
        let mut seen = 0;
        while seen < most {
            let batch = take_events(self.events.get_mut());
            if batch.is_empty() {
                break;
            }
            seen += batch.len();
            self.take_in(batch.into_iter().filter(&wanted).collect())?;
        }
        Ok(())
    }
}

/// How many events are taken in before the caller looks at all else: a few milliseconds of work.
const BATCH: usize = 4096;

/// Takes a batch out of the ring buffer; one that is not full has emptied it.
fn take_events(ring: &mut RingBuf<MapData>) -> Vec<Option<Event>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(record) = ring.next()
    {
        batch.push(Event::parse(&record));
    }
    batch
}
