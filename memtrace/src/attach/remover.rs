//! Taking probes off beside everything else.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use super::{Probes, links};

/// A thread that takes probes off. The kernel waits for a grace period at each link, while processes come and go.
#[derive(Debug)]
pub struct Remover {
    queue: Option<Sender<Probes>>,
    thread: Option<JoinHandle<()>>,
}

impl Remover {
    /// Starts the thread.
    pub fn start() -> Self {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("remover".to_owned()).spawn(move || run(&receiver));
        // Without a thread the other end of the queue is gone.
        Self { queue: Some(sender), thread: thread.ok() }
    }

    /// Has probes taken off, at some time soon. Does not wait.
    pub fn remove(&self, probes: Probes) {
        if !probes.is_empty()
            && let Some(queue) = &self.queue
        {
            // Without the thread, what cannot be sent is dropped here, which takes it off.
            drop(queue.send(probes));
        }
    }

    /// Waits until all probes are off that were to be.
    pub fn finish(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has left nothing undone: what it held was dropped.
            let _ = thread.join();
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.finish();
    }
}

/// All that wait are taken off together, side by side.
fn run(queue: &Receiver<Probes>) {
    while let Ok(first) = queue.recv() {
        let all = std::iter::once(first).chain(queue.try_iter());
        links::close(all.flat_map(Probes::into_links).collect());
    }
}
