//! From events to sums per stack.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Serialize;

use super::event::{Block, Event};
use super::stacks::{Lifetimes, Stacks};
use super::{Amount, Options};

/// How much is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live blocks, of which the time of allocation is kept (about 80 bytes each). Default: 1,048,576, four times as
    /// many as `record` keeps by default.
    pub live: usize,
    /// Distinct stacks (about a kilobyte each). Default: 1,048,576.
    pub stacks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { live: 1 << 20, stacks: 1 << 20 }
    }
}

/// What there was in the file, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines of allocations.
    pub allocations: u64,
    /// Lines of frees.
    pub frees: u64,
    /// Times the process executed another program.
    pub execs: u64,
    /// Lines of a kind that this version does not know.
    pub unknown_events: u64,
    /// Lines that are no events.
    pub malformed_lines: u64,
    /// 1 where the last line was cut off.
    pub cut_lines: u64,
    /// Frees whose allocation is not in the file. They count as allocations, too.
    pub frees_without_allocation: u64,
    /// Allocations whose address was handed out again without a free in the file.
    pub allocations_without_free: u64,
    /// Allocations that were not kept track of because too many were live ([`Limits::live`]): their free may be seen, but
    /// not how old they are if not.
    pub live_over_limit: u64,
    /// Allocations and frees that were put under `[further stacks]` ([`Limits::stacks`]).
    pub stacks_over_limit: u64,
}

/// What was lost while recording, as the file's end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// A stable name, see docs/losses.md.
    pub name: String,
    /// How often it happened.
    pub count: u64,
    /// What follows from it.
    pub meaning: String,
}

/// A block that is live.
struct Live {
    time_ns: u64,
    stack: usize,
    amount: Amount,
}

/// The state between two lines.
pub(super) struct Books {
    pub(super) counts: Counts,
    temporary_within_ns: u64,
    most_live: usize,
    stacks: Stacks,
    /// By process and address.
    live: HashMap<(u32, u64), Live>,
    /// By thread: address and time of what it has allocated, where that was the last thing it did. Thread ids are
    /// bounded, and so is this.
    last: HashMap<u32, (u64, u64)>,
    /// By process: when it last executed another program.
    executed: HashMap<u32, u64>,
    sample_interval: Option<u64>,
    /// Whether a block stood for more than itself.
    is_weighted: bool,
    first_ns: u64,
    last_ns: u64,
    /// What the last line says.
    losses: Option<Vec<Loss>>,
}

impl Books {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            counts: Counts::default(),
            temporary_within_ns: u64::try_from(options.temporary_within.as_nanos()).unwrap_or(u64::MAX),
            most_live: options.limits.live,
            stacks: Stacks::new(options.limits.stacks),
            live: HashMap::new(),
            last: HashMap::new(),
            executed: HashMap::new(),
            sample_interval: None,
            is_weighted: false,
            first_ns: u64::MAX,
            last_ns: 0,
            losses: None,
        }
    }

    pub(super) fn enter(&mut self, event: Event<'_>) {
        match event {
            Event::Begin { sample_interval, .. } => self.sample_interval = sample_interval,
            Event::Alloc(block) => self.allocated(&block),
            Event::Free { block, age_ns } => self.freed(&block, age_ns),
            Event::Exec { time_ns, pid } => self.execed(time_ns, pid),
            Event::Stack { stack, frames, places } => self.stacks.name(stack, &frames, &places),
            Event::End { time_ns, losses } => {
                self.saw(time_ns);
                let losses = losses.into_iter().map(|loss| Loss {
                    name: loss.name.into_owned(),
                    count: loss.count,
                    meaning: loss.meaning.into_owned(),
                });
                self.losses = Some(losses.collect());
            }
            Event::Unknown => self.counts.unknown_events += 1,
        }
    }

    fn saw(&mut self, time_ns: u64) {
        self.first_ns = self.first_ns.min(time_ns);
        self.last_ns = self.last_ns.max(time_ns);
    }

    fn allocated(&mut self, block: &Block) {
        self.counts.allocations += 1;
        self.saw(block.time_ns);
        self.is_weighted |= block.weight != memtrace_common::sampling::OBJECT_UNIT;
        let amount = Amount::of(block.size, block.weight);
        let stack = self.stack(block);
        let sums = self.stacks.sums(stack);
        sums.samples += 1;
        sums.allocated.add(amount);
        self.last.insert(block.tid, (block.address, block.time_ns));
        if self.executed.get(&block.pid).is_some_and(|&time| block.time_ns < time) {
            sums.gone.add(amount);
            return;
        }
        let is_full = self.live.len() >= self.most_live;
        let live = Live { time_ns: block.time_ns, stack, amount };
        match self.live.entry((block.pid, block.address)) {
            Entry::Occupied(mut entry) => {
                // Its free was lost, or comes late: that of a `realloc` comes when the call returns, and
                // another thread may have been given the address before.
                let old = entry.insert(live);
                self.stacks.untrack(old.stack, old.amount);
                self.stacks.sums(old.stack).gone.add(old.amount);
                self.stacks.track(stack, amount);
                self.counts.allocations_without_free += 1;
            }
            Entry::Vacant(_) if is_full => self.counts.live_over_limit += 1,
            Entry::Vacant(entry) => {
                self.stacks.track(stack, amount);
                entry.insert(live);
            }
        }
    }

    fn freed(&mut self, block: &Block, age_ns: u64) {
        self.counts.frees += 1;
        self.saw(block.time_ns);
        let allocated_ns = block.time_ns - age_ns;
        self.saw(allocated_ns);
        let is_next = self.last.remove(&block.tid) == Some((block.address, allocated_ns));
        let is_short = age_ns <= self.temporary_within_ns;
        let amount = Amount::of(block.size, block.weight);
        let stack = self.stack(block);
        match self.live.entry((block.pid, block.address)) {
            Entry::Occupied(entry) if entry.get().time_ns == allocated_ns => {
                let live = entry.remove();
                self.stacks.untrack(live.stack, live.amount);
            }
            _ => self.freed_untracked(stack, amount),
        }
        self.stacks.sums(stack).free(block, age_ns, is_short, is_next);
    }

    /// A block that is not in the live table.
    fn freed_untracked(&mut self, stack: usize, amount: Amount) {
        let tracked = self.stacks.tracked(stack);
        let sums = self.stacks.sums(stack);
        if sums.gone.holds(&amount) {
            // It comes late.
            sums.gone.subtract(amount);
            self.counts.allocations_without_free = self.counts.allocations_without_free.saturating_sub(1);
        } else if !sums.live().less(tracked).holds(&amount) {
            sums.allocated.add(amount);
            self.counts.frees_without_allocation += 1;
        }
    }

    /// What the process had is gone. Allocations from before that moment may still follow in the file.
    fn execed(&mut self, time_ns: u64, pid: u32) {
        self.counts.execs += 1;
        self.saw(time_ns);
        self.executed.insert(pid, time_ns);
        let stacks = &mut self.stacks;
        self.live.retain(|&(of, _), live| {
            let stays = of != pid || live.time_ns >= time_ns;
            if !stays {
                stacks.untrack(live.stack, live.amount);
                stacks.sums(live.stack).gone.add(live.amount);
            }
            stays
        });
    }

    fn stack(&mut self, block: &Block) -> usize {
        let (stack, has_room) = self.stacks.index(block.stack);
        if !has_room {
            self.counts.stacks_over_limit += 1;
        }
        stack
    }

    /// Ends the books: what is live now is so at the end of the recording.
    pub(super) fn close(mut self) -> Lifetimes {
        for live in self.live.into_values() {
            self.stacks.sums(live.stack).saw_live(live.time_ns);
        }
        let (total, stacks, names) = self.stacks.merged();
        Lifetimes {
            sample_interval: self.sample_interval,
            is_sampled: self.is_weighted || self.sample_interval.is_some_and(|interval| interval > 1),
            temporary_within_ns: self.temporary_within_ns,
            first_ns: self.first_ns.min(self.last_ns),
            last_ns: self.last_ns,
            total,
            stacks,
            counts: self.counts,
            losses: self.losses,
            names,
        }
    }
}
