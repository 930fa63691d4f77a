//! Debug information from debuginfod servers (debuginfod(8), <https://sourceware.org/elfutils/Debuginfod.html>).
//!
//! A server is asked for `URL/buildid/ID/debuginfo`, or for `.../executable`. Nothing is asked unless the
//! user wants it: a request tells the server which programs run here. What comes back is believed only if
//! it is a whole ELF file with the build-id that was asked for, and is kept in the cache that elfutils
//! and gdb use, too.

mod cache;
mod download;
mod settings;

pub use settings::{Settings, SettingsError};

use std::collections::HashSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::elf::Elf;
use cache::Cache;
use download::{Answer, Limit, Server};

/// Build-ids have 20 bytes, or 8 to 32 with other linkers. A target may have written anything there.
const BUILD_ID_BYTES: std::ops::RangeInclusive<usize> = 4..=64;

/// A server that has failed so many times in a row is not asked again.
const PATIENCE: u32 = 2;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The file with the debug information.
    DebugInfo,
    /// The program or library itself.
    Executable,
}

impl Kind {
    /// In the request and in the cache.
    fn name(self) -> &'static str {
        match self {
            Self::DebugInfo => "debuginfo",
            Self::Executable => "executable",
        }
    }
}

/// The servers, the cache, and what became of the requests so far.
#[derive(Debug)]
pub struct Debuginfod {
    cache: Cache,
    state: Mutex<State>,
    max_bytes: u64,
    cancelled: Arc<AtomicBool>,
    failures: AtomicU64,
    missing: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Each with how often it has failed in a row.
    servers: Vec<(Server, u32)>,
    /// What no server has, or could not give: not asked for again in this run.
    in_vain: HashSet<(Vec<u8>, Kind)>,
}

impl Debuginfod {
    /// Servers that are asked in their order.
    pub fn new(settings: Settings) -> Self {
        let servers = Server::all(&settings).into_iter().map(|server| (server, 0)).collect();
        Self {
            cache: Cache::new(settings.cache),
            state: Mutex::new(State { servers, in_vain: HashSet::new() }),
            max_bytes: settings.max_bytes,
            cancelled: Arc::default(),
            failures: AtomicU64::new(0),
            missing: AtomicU64::new(0),
        }
    }

    /// From now on nothing is asked or downloaded; what is in the cache is still used.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// How many files could not be had: no server could be asked, or what it sent was no good.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How many files no server has.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// The file with this build-id, from the cache or from a server. `what` is for the log.
    pub(super) fn find(&self, build_id: &[u8], kind: Kind, what: &str) -> Option<File> {
        if !BUILD_ID_BYTES.contains(&build_id.len()) {
            return None;
        }
        let usable = |file: &File| is_file_of(file, build_id);
        if let Some(file) = self.cache.open(build_id, kind).filter(usable) {
            return Some(file);
        }
        // One file after the other: the symbolizer's thread is the only one that asks.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_vain.contains(&(build_id.to_vec(), kind)) {
            return None;
        }
        let mut failed = false;
        for (server, failures) in &mut state.servers {
            if self.cancelled.load(Ordering::Relaxed) || *failures >= PATIENCE {
                failed = true;
                continue;
            }
            match self.ask(server, build_id, kind, what) {
                Ok(Some(file)) => {
                    *failures = 0;
                    return Some(file);
                }
                Ok(None) => *failures = 0,
                Err(error) => {
                    failed = true;
                    *failures += 1;
                    tracing::warn!("no {} of {what} from {server}: {error:#}", kind.name());
                    if *failures == PATIENCE {
                        tracing::warn!(
                            "{server} has failed {PATIENCE} times in a row and is not asked again"
                        );
                    }
                }
            }
        }
        self.cache.tidy(build_id);
        let count = if failed { &self.failures } else { &self.missing };
        count.fetch_add(1, Ordering::Relaxed);
        state.in_vain.insert((build_id.to_vec(), kind));
        None
    }

    fn ask(&self, server: &Server, build_id: &[u8], kind: Kind, what: &str) -> anyhow::Result<Option<File>> {
        tracing::info!("asking {server} for the {} of {what}", kind.name());
        let place = self.cache.create(build_id, kind)?;
        let limit = Limit { bytes: self.max_bytes, cancelled: Arc::clone(&self.cancelled) };
        let bytes = match server.start(build_id, kind, place.reopen()?, limit)?.wait()? {
            Answer::NotFound => return Ok(None),
            Answer::Found { bytes } => bytes,
        };
        let file = place.reopen()?;
        anyhow::ensure!(
            is_file_of(&file, build_id),
            "the answer is not a whole ELF file with this build-id, and was thrown away"
        );
        self.cache.keep(place, build_id, kind)?;
        tracing::info!("got the {} of {what}: {bytes} bytes", kind.name());
        Ok(Some(file))
    }
}

/// Whether `file` is complete and has this build-id: neither a server nor the cache is taken at its word.
fn is_file_of(file: &File, build_id: &[u8]) -> bool {
    Elf::read(file).is_ok_and(|elf| elf.build_id == build_id) && Elf::is_whole(file)
}

/// In lower-case hex, as the protocol has it.
fn hex(build_id: &[u8]) -> String {
    build_id.iter().map(|byte| format!("{byte:02x}")).collect()
}
