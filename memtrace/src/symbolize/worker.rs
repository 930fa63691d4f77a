//! The symbolizer's thread, and the handle to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::oneshot;

use super::debuginfod::Debuginfod;
use super::engine::Engine;
use super::failure::Failure;
use super::module::Module;
use super::quiet;
use crate::profile::Losses;

/// How to symbolize.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to read debug information (files, lines, inlined functions, debug files), or symbol
    /// tables alone.
    pub debug_info: bool,
    /// Directories of debug files on the host, in the order in which they are searched.
    pub debug_directories: Vec<PathBuf>,
    /// Where to ask for debug files that are not on this machine; `None` asks nobody.
    pub debuginfod: Option<Arc<Debuginfod>>,
    /// How many modules are kept parsed. Each costs up to three descriptors.
    pub max_cached_modules: usize,
    /// How large the files of these modules may be together, in bytes; the last one used is kept in
    /// any case. Parsed, they take several times as much if they are compressed.
    pub max_cached_bytes: u64,
    /// After this time without a request everything parsed is given back.
    pub idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_info: true,
            debug_directories: vec!["/usr/lib/debug".into()],
            debuginfod: None,
            max_cached_modules: 64,
            max_cached_bytes: 256 << 20,
            idle: Duration::from_secs(5),
        }
    }
}

/// A function and the line that is executing in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLine {
    /// The demangled name.
    pub name: String,
    /// The name as it is in the file.
    pub system_name: String,
    /// The source file: directory and name as the compiler wrote them, or empty.
    pub file: String,
    /// The line in `file`, or 0. Where a function was inlined it is the line of the call in the
    /// function around it.
    pub line: u32,
    /// The line in `file` at which the function's code begins, or 0. Always 0 for an inlined function.
    pub start_line: u32,
}

/// The lines at an address, innermost inlined function first and never empty, or why there are none.
pub type Resolution = Result<Arc<[NamedLine]>, Failure>;

/// Addresses of one module, as offsets in its file.
pub type Query = (Arc<Module>, Vec<u64>);

/// The symbolizer: a handle to the thread that owns blazesym, which is neither `Send` nor quick.
///
/// The thread ends when the handle is dropped, after the query that it is at.
#[derive(Debug)]
pub struct Symbolizer {
    requests: Sender<Request>,
    counts: Arc<SharedCounts>,
    debuginfod: Option<Arc<Debuginfod>>,
}

#[derive(Debug, Default)]
struct SharedCounts {
    restarts: AtomicU64,
    bad_sources: AtomicU64,
}

/// What went wrong beside single addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SymbolizerCounts {
    /// How often the symbolizer panicked on a file and was started anew.
    pub restarts: u64,
    /// How many times symbols or debug information could not be read; the names came from elsewhere
    /// or are missing.
    pub bad_sources: u64,
    /// How many files debuginfod servers could not give, although they may have them.
    pub debuginfod_failures: u64,
    /// How many files no debuginfod server has.
    pub debuginfod_missing: u64,
}

impl SymbolizerCounts {
    /// Adds them to the losses of a profile.
    pub(crate) fn add_to(self, losses: &mut Losses) {
        losses.add(
            "symbolizer_restarts",
            self.restarts,
            "times the symbolizer failed on a file and was started anew; some names or lines may be missing",
        );
        losses.add(
            "symbol_sources_unusable",
            self.bad_sources,
            "times symbols or debug information could not be read; some names or lines may be missing",
        );
        losses.add(
            "debuginfod_failures",
            self.debuginfod_failures,
            "debug files could not be had from a debuginfod server (warnings say why); some names or lines may be missing",
        );
        losses.add(
            "debuginfod_missing",
            self.debuginfod_missing,
            "files have debug information neither on this machine nor on a debuginfod server; their names or lines may be missing",
        );
    }
}

struct Request {
    queries: Vec<Query>,
    reply: oneshot::Sender<Vec<Vec<Resolution>>>,
}

impl Symbolizer {
    /// Starts the thread. Fails only if the system refuses another one.
    pub fn start(options: Options) -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel();
        let counts = Arc::new(SharedCounts::default());
        let shared = Arc::clone(&counts);
        let debuginfod = options.debuginfod.clone();
        let thread = std::thread::Builder::new().name("symbolizer".to_owned());
        thread.spawn(move || run(options, &receiver, &shared))?;
        Ok(Self { requests, counts, debuginfod })
    }

    /// Resolves each query's addresses, in their order. The thread works on one call after the other;
    /// the caller's runtime is not blocked (the reply is a tokio oneshot, which needs no runtime).
    pub async fn resolve(&self, queries: Vec<Query>) -> Vec<Vec<Resolution>> {
        let shape = shape(&queries);
        self.send(queries).await.unwrap_or_else(|_| stopped(&shape))
    }

    /// The same for callers that are not async. Panics in an async context, as tokio's blocking calls
    /// do.
    pub fn resolve_blocking(&self, queries: Vec<Query>) -> Vec<Vec<Resolution>> {
        let shape = shape(&queries);
        self.send(queries).blocking_recv().unwrap_or_else(|_| stopped(&shape))
    }

    /// What went wrong so far.
    pub fn counts(&self) -> SymbolizerCounts {
        SymbolizerCounts {
            restarts: self.counts.restarts.load(Ordering::Relaxed),
            bad_sources: self.counts.bad_sources.load(Ordering::Relaxed),
            debuginfod_failures: self.debuginfod.as_ref().map_or(0, |servers| servers.failures()),
            debuginfod_missing: self.debuginfod.as_ref().map_or(0, |servers| servers.missing()),
        }
    }

    fn send(&self, queries: Vec<Query>) -> oneshot::Receiver<Vec<Vec<Resolution>>> {
        let (reply, receiver) = oneshot::channel();
        // If the thread is gone the reply is dropped with the request, which the receiver reports.
        let _ = self.requests.send(Request { queries, reply });
        receiver
    }
}

fn shape(queries: &[Query]) -> Vec<usize> {
    queries.iter().map(|(_, offsets)| offsets.len()).collect()
}

fn stopped(shape: &[usize]) -> Vec<Vec<Resolution>> {
    shape.iter().map(|&length| vec![Err(Failure::Stopped); length]).collect()
}

fn run(options: Options, requests: &Receiver<Request>, counts: &SharedCounts) {
    quiet::panics_of_this_thread();
    let idle = options.idle;
    let mut engine = Engine::new(options);
    loop {
        let request = match requests.recv_timeout(idle) {
            Err(RecvTimeoutError::Timeout) => {
                engine.rest();
                // There is nothing more to give back until there is something to do.
                requests.recv().ok()
            }
            request => request.ok(),
        };
        let Some(Request { queries, reply }) = request else { return };
        let answer = queries.iter().map(|(module, offsets)| engine.resolve(module, offsets)).collect();
        counts.restarts.store(engine.restarts, Ordering::Relaxed);
        counts.bad_sources.store(engine.bad_sources, Ordering::Relaxed);
        // What the request kept alive is let go before the caller goes on.
        drop(queries);
        // Nobody waits any more if the caller was cancelled.
        let _ = reply.send(answer);
    }
}
