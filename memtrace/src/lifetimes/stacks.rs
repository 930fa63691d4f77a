//! The stacks of a file, and what came of it all.

use std::borrow::Cow;
use std::collections::HashMap;

use indexmap::IndexSet;

use super::{Amount, Counts, Loss, Sums};

/// One stack.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Its identities in the file. Several where they differ only in addresses within a line.
    pub ids: Vec<u64>,
    /// What it adds up to.
    pub sums: Sums,
    /// Indices into the names: function and place.
    frames: Vec<(usize, usize)>,
}

/// What an events file says.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// The mean number of bytes between two samples, where the file says it.
    pub sample_interval: Option<u64>,
    /// Whether the recording was sampled, so that amounts are estimates.
    pub is_sampled: bool,
    /// What lives no longer than this is temporary.
    pub temporary_within_ns: u64,
    /// The first time in the file: nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// The last time in the file, which is the recording's end where that is in the file.
    pub last_ns: u64,
    /// The sums of all stacks.
    pub total: Sums,
    /// The stacks, in the order in which they were first seen.
    pub stacks: Vec<Stack>,
    /// What there was in the file.
    pub counts: Counts,
    /// What was lost while recording; `None` where the file has no end.
    pub losses: Option<Vec<Loss>>,
    pub(super) names: IndexSet<String>,
}

impl Lifetimes {
    /// A stack's frames, the leaf first: function, and `file:line` or nothing. A stack whose names are not in
    /// the file has none.
    pub fn frames<'a>(&'a self, stack: &'a Stack) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> {
        stack.frames.iter().map(|&(name, place)| (self.names[name].as_str(), self.names[place].as_str()))
    }

    /// How old the oldest live block is at the end, in nanoseconds.
    pub fn oldest_age(&self, sums: &Sums) -> Option<u64> {
        sums.oldest_ns.map(|oldest| self.last_ns.saturating_sub(oldest))
    }

    /// How many stacks have no names.
    pub fn unnamed(&self) -> usize {
        self.stacks.iter().filter(|stack| stack.frames.is_empty()).count()
    }

    /// The stacks with the most of what `amount` takes, the largest first; of two with the same number of objects
    /// or bytes, that with more of the other. Those without any are left out.
    pub(super) fn ranked<K: Ord>(&self, amount: fn(&Sums) -> Amount, key: fn(Amount) -> K) -> Vec<&Stack> {
        let some = |stack: &&Stack| !amount(&stack.sums).is_zero();
        let mut ranked: Vec<&Stack> = self.stacks.iter().filter(some).collect();
        ranked.sort_by_cached_key(|stack| std::cmp::Reverse(key(amount(&stack.sums))));
        ranked
    }

    /// By temporary allocations.
    pub fn by_temporary(&self) -> Vec<&Stack> {
        self.ranked(|sums| sums.temporary, |amount| amount.exact())
    }

    /// By allocated bytes.
    pub fn by_bytes(&self) -> Vec<&Stack> {
        let key = |amount: Amount| {
            let (objects, bytes) = amount.exact();
            (bytes, objects)
        };
        self.ranked(|sums| sums.allocated, key)
    }
}

#[derive(Default)]
struct Entry {
    id: Option<u64>,
    sums: Sums,
    /// What of it is in the live table.
    tracked: Amount,
    frames: Vec<(usize, usize)>,
}

/// The stacks while the file is read.
pub(super) struct Stacks {
    entries: Vec<Entry>,
    by_id: HashMap<u64, usize>,
    /// What is above the limit.
    further: Option<usize>,
    names: IndexSet<String>,
    limit: usize,
}

impl Stacks {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), by_id: HashMap::new(), further: None, names: IndexSet::new(), limit }
    }

    /// The stack of this id, and whether there was room for it.
    pub(super) fn index(&mut self, id: u64) -> (usize, bool) {
        if let Some(&index) = self.by_id.get(&id) {
            return (index, true);
        }
        let next = self.entries.len();
        if self.by_id.len() < self.limit {
            self.entries.push(Entry { id: Some(id), ..Entry::default() });
            self.by_id.insert(id, next);
            return (next, true);
        }
        if self.further.is_none() {
            let name = (self.name_index("[further stacks]"), self.name_index(""));
            self.entries.push(Entry { frames: vec![name], ..Entry::default() });
        }
        (*self.further.get_or_insert(next), false)
    }

    pub(super) fn sums(&mut self, stack: usize) -> &mut Sums {
        &mut self.entries[stack].sums
    }

    pub(super) fn tracked(&self, stack: usize) -> Amount {
        self.entries[stack].tracked
    }

    pub(super) fn track(&mut self, stack: usize, amount: Amount) {
        self.entries[stack].tracked.add(amount);
    }

    pub(super) fn untrack(&mut self, stack: usize, amount: Amount) {
        self.entries[stack].tracked.subtract(amount);
    }

    /// Gives a stack its names. One that nothing was seen of stays unknown.
    pub(super) fn name(&mut self, id: u64, frames: &[Cow<'_, str>], places: &[Cow<'_, str>]) {
        let Some(&index) = self.by_id.get(&id) else { return };
        let places = places.iter().map(|place| &**place).chain(std::iter::repeat(""));
        let named = frames.iter().zip(places);
        let frames = named.map(|(name, place)| (self.name_index(name), self.name_index(place))).collect();
        self.entries[index].frames = frames;
    }

    fn name_index(&mut self, name: &str) -> usize {
        self.names.get_index_of(name).unwrap_or_else(|| self.names.insert_full(name.to_owned()).0)
    }

    /// The sum of all, the stacks with those of the same names and places as one, and the names.
    pub(super) fn merged(self) -> (Sums, Vec<Stack>, IndexSet<String>) {
        let mut total = Sums::default();
        let mut stacks: Vec<Stack> = Vec::new();
        let mut at: HashMap<Vec<(usize, usize)>, usize> = HashMap::new();
        for Entry { id, sums, frames, .. } in self.entries {
            total.merge(&sums);
            let position = match frames.is_empty() {
                true => stacks.len(),
                false => *at.entry(frames.clone()).or_insert(stacks.len()),
            };
            match stacks.get_mut(position) {
                Some(stack) => {
                    stack.ids.extend(id);
                    stack.sums.merge(&sums);
                }
                None => stacks.push(Stack { ids: id.into_iter().collect(), sums, frames }),
            }
        }
        (total, stacks, self.names)
    }
}
