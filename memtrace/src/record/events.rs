//! Recorded allocations and frees as they happen, one JSON object per line. docs/events.md has the format.
//!
//! A thread of its own formats and writes. Whoever reads the ring buffer only puts events into a queue, and
//! never waits: not for a busy disk, and not for a pipe that nobody empties. What does not fit into the queue
//! is dropped and counted.

mod lines;

use std::{
    io::{self, BufWriter, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lines::Line;
pub use lines::{SCHEMA, StackFrame};

use crate::{collect::BlockChange, profile::Losses};

/// How many events wait for the writer at most: 6 MiB.
const QUEUE: usize = 1 << 16;

/// How many bytes are written at a time.
const BUFFER: usize = 1 << 18;

/// Lines wait no longer than this before they are written, so that others can follow the file.
const PATIENCE: Duration = Duration::from_millis(500);

/// Writes events to a file.
pub struct EventWriter {
    queue: SyncSender<Line>,
    thread: JoinHandle<io::Result<()>>,
    dropped: u64,
}

impl EventWriter {
    /// Writes to `out`, which needs no buffer. The first line says how far apart samples are.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(out: impl Write + Send + 'static, sample_interval: u64) -> io::Result<Self> {
        Self::with_queue(out, sample_interval, QUEUE)
    }

    fn with_queue(out: impl Write + Send + 'static, sample_interval: u64, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let out = BufWriter::with_capacity(BUFFER, out);
        let write = move || {
            let result = write_lines(out, sample_interval, &receiver);
            if let Err(error) = &result {
                tracing::warn!("no more events are written: {error}; the recording goes on");
            }
            result
        };
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn(write)?;
        Ok(Self { queue: sender, thread, dropped: 0 })
    }

    /// Has one event written. Never waits: where the queue is full, the event is dropped and counted. After a
    /// failure nothing more is written; [`finish`](Self::finish) reports it.
    pub fn write(&mut self, change: &BlockChange) {
        self.offer(Line::Block(*change));
    }

    /// Says that the process has executed another program: what it had allocated before `time_ns`
    /// (nanoseconds of `CLOCK_MONOTONIC`) is gone.
    pub fn write_exec(&mut self, pid: u32, time_ns: u64) {
        self.offer(Line::Exec { pid, time_ns });
    }

    fn offer(&mut self, line: Line) {
        match self.queue.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.dropped += 1,
        }
    }

    /// How many events were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends the file: what each stack id stands for, and what was lost until the end of the recording at
    /// `time_ns` (nanoseconds of `CLOCK_MONOTONIC`). Waits until all is written.
    ///
    /// # Errors
    /// The first failure of any write.
    pub fn finish(
        self,
        stacks: impl Iterator<Item = (u64, Vec<StackFrame>)>,
        time_ns: u64,
        losses: Losses,
    ) -> io::Result<()> {
        let stacks = stacks.map(|(stack_id, frames)| Line::Stack { stack_id, frames });
        for line in stacks.chain([Line::End { time_ns, losses }]) {
            // The thread has ended early: it says why.
            if self.queue.send(line).is_err() {
                break;
            }
        }
        drop(self.queue);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))
    }
}

/// Writes what comes through the queue, until its other end is dropped.
fn write_lines(mut out: impl Write, sample_interval: u64, queue: &Receiver<Line>) -> io::Result<()> {
    lines::write_begin(&mut out, sample_interval)?;
    out.flush()?;
    let mut flushed = Instant::now();
    loop {
        let line = match queue.try_recv() {
            Ok(line) => line,
            // There is time.
            Err(_) => {
                if flushed.elapsed() >= PATIENCE {
                    out.flush()?;
                    flushed = Instant::now();
                }
                match queue.recv_timeout(PATIENCE) {
                    Ok(line) => line,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return out.flush(),
                }
            }
        };
        line.write(&mut out)?;
    }
}

#[cfg(test)]
mod tests;
