//! Taking probes off beside everything else.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use super::{Probes, links};

/// How many links may wait: each is an open descriptor, of which a process has a thousand at most where nobody has
/// said otherwise. Processes that end faster than their probes can be taken off have others wait for that.
const MOST_WAITING: usize = 400;

/// A thread that takes probes off. The kernel waits for a grace period at each link, while processes come and go.
#[derive(Debug)]
pub struct Remover {
    queue: Option<Sender<Probes>>,
    thread: Option<JoinHandle<()>>,
    waiting: Arc<Waiting>,
}

/// How many links wait.
#[derive(Debug, Default)]
struct Waiting {
    links: Mutex<usize>,
    less: Condvar,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for some more.
    fn add(&self, links: usize) {
        let has_none = |waiting: &mut usize| *waiting >= MOST_WAITING;
        let waiting = self.less.wait_while(self.lock(), has_none);
        *waiting.unwrap_or_else(PoisonError::into_inner) += links;
    }

    fn subtract(&self, links: usize) {
        *self.lock() -= links;
        self.less.notify_all();
    }
}

impl Remover {
    /// Starts the thread.
    pub fn start() -> Self {
        let (sender, receiver) = channel();
        let waiting = Arc::<Waiting>::default();
        let run = {
            let waiting = Arc::clone(&waiting);
            move || run(&receiver, &waiting)
        };
        let thread = std::thread::Builder::new().name("remover".to_owned()).spawn(run);
        // Without a thread the other end of the queue is gone.
        Self { queue: Some(sender), thread: thread.ok(), waiting }
    }

    /// Has probes taken off, at some time soon. Waits only if too many others are to be, too.
    pub fn remove(&self, probes: Probes) {
        let links = probes.links();
        if links > 0
            && let Some(queue) = &self.queue
        {
            self.waiting.add(links);
            if queue.send(probes).is_err() {
                // Without the thread, what cannot be sent is dropped here, which takes it off.
                self.waiting.subtract(links);
            }
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
fn run(queue: &Receiver<Probes>, waiting: &Waiting) {
    while let Ok(first) = queue.recv() {
        let all = std::iter::once(first).chain(queue.try_iter());
        let links: Vec<_> = all.flat_map(Probes::into_links).collect();
        let count = links.len();
        links::close(links);
        waiting.subtract(count);
    }
}
