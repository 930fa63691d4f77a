//! The processes of a recording: those under observation, and those that were.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{engine::Engine, observed::Observed};
use crate::kernel::LoadError;

/// All processes of a recording.
#[derive(Default)]
pub(super) struct Processes {
    living: BTreeMap<u32, Observed>,
    /// In the order in which their ends were noticed. Numbers may occur twice.
    ended: Vec<Observed>,
    /// How many have ended without a sample, of which nothing is kept.
    without_samples: WithoutSamples,
}

/// What is known of processes that have ended without a sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WithoutSamples {
    /// How many there were.
    pub(super) count: u64,
    /// How many of them were [late](super::Process::late).
    pub(super) late: u64,
    /// For how long in all.
    pub(super) lateness: Duration,
}

impl WithoutSamples {
    fn add(&mut self, process: &Observed) {
        self.count += 1;
        self.late += u64::from(!process.late.is_zero());
        self.lateness += process.late;
    }
}

impl Processes {
    pub(super) fn insert(&mut self, process: Observed) {
        self.living.insert(process.target.pid, process);
    }

    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Observed> {
        self.living.get_mut(&pid)
    }

    /// Those that have not ended, as far as is known.
    pub(super) fn living(&self) -> impl Iterator<Item = &Observed> {
        self.living.values()
    }

    /// The same.
    pub(super) fn living_mut(&mut self) -> impl Iterator<Item = &mut Observed> {
        self.living.values_mut()
    }

    /// Every process, the living ones first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Observed> {
        self.living.values().chain(&self.ended)
    }

    /// The same.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Observed> {
        self.living.values_mut().chain(&mut self.ended)
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.living.len() as u64 + self.ended.len() as u64 + self.without_samples.count
    }

    /// A process has ended.
    pub(super) fn end(&mut self, engine: &mut Engine, pid: u32) -> Result<(), LoadError> {
        if let Some(mut process) = self.living.remove(&pid) {
            process.ended(engine)?;
            self.ended.push(process);
        }
        Ok(())
    }

    /// Whether the kernel program still has the books of an ended process of this number.
    pub(super) fn has_untaken(&self, pid: u32) -> bool {
        self.untaken().any(|process| process.target.pid == pid)
    }

    fn untaken(&self) -> impl Iterator<Item = &Observed> {
        self.ended.iter().filter(|process| process.books.is_none())
    }

    /// Takes the books of those that have ended.
    pub(super) fn take_books(&mut self, engine: &mut Engine) -> Result<(), LoadError> {
        let pids: BTreeSet<u32> = self.untaken().map(|process| process.target.pid).collect();
        if pids.is_empty() {
            return Ok(());
        }
        let mut books = engine.kernel.take_books(&pids)?;
        for process in self.ended.iter_mut().filter(|process| process.books.is_none()) {
            process.books = Some(books.remove(&process.target.pid).unwrap_or_default());
        }
        let without_samples = &mut self.without_samples;
        self.ended.retain(|process| {
            let keeps = process.is_worth_keeping();
            if !keeps {
                without_samples.add(process);
            }
            keeps
        });
        Ok(())
    }

    /// All of them, in order of their numbers, and how many more there were.
    pub(super) fn into_all(self) -> (Vec<Observed>, WithoutSamples) {
        let mut all: Vec<_> = self.living.into_values().chain(self.ended).collect();
        all.sort_by_key(|process| process.order);
        (all, self.without_samples)
    }
}
