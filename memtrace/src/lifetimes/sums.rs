//! What the allocations of one stack add up to.

use memtrace_common::sampling;

use super::Histogram;
use super::event::Block;

/// Allocations and their bytes, scaled to the whole where they were sampled. Exact: in units of 1/65536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    objects: u128,
    bytes: u128,
}

impl Amount {
    /// What one recorded block stands for.
    pub(super) fn of(size: u64, weight: u64) -> Self {
        Self { objects: weight.into(), bytes: u128::from(weight) * u128::from(size) }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.objects = self.objects.saturating_sub(other.objects);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    pub(super) fn less(mut self, other: Self) -> Self {
        self.subtract(other);
        self
    }

    /// Whether `other` is a part of it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.objects >= other.objects && self.bytes >= other.bytes
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// How many allocations, rounded.
    pub fn objects(&self) -> i128 {
        rounded(self.objects)
    }

    /// How many bytes, rounded.
    pub fn bytes(&self) -> i128 {
        rounded(self.bytes)
    }

    /// By these, stacks are ranked.
    pub(super) fn exact(&self) -> (u128, u128) {
        (self.objects, self.bytes)
    }
}

pub(super) fn rounded(units: u128) -> i128 {
    let unit = u128::from(sampling::OBJECT_UNIT);
    // At most 2^112.
    (units / unit + u128::from(units % unit >= unit / 2)) as i128
}

/// The sums of one stack, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many allocations were recorded.
    pub samples: u64,
    /// What was allocated.
    pub allocated: Amount,
    /// What was freed.
    pub freed: Amount,
    /// What is no longer live although no line says when it was freed.
    pub gone: Amount,
    /// What was temporary: one or the other of the two below, or both.
    pub temporary: Amount,
    /// What was freed within the given time.
    pub short_lived: Amount,
    /// What was freed by the same thread as its next event.
    pub freed_next: Amount,
    /// How long what was freed had lived, in nanoseconds.
    pub lifetimes: Histogram,
    /// When the oldest block that is live was allocated: nanoseconds of `CLOCK_MONOTONIC`.
    pub oldest_ns: Option<u64>,
}

impl Sums {
    /// What is live at the end.
    pub fn live(&self) -> Amount {
        self.allocated.less(self.freed).less(self.gone)
    }

    pub(super) fn free(&mut self, block: &Block, age_ns: u64, is_short: bool, is_next: bool) {
        let amount = Amount::of(block.size, block.weight);
        self.freed.add(amount);
        self.lifetimes.add(age_ns, block.weight);
        if is_short {
            self.short_lived.add(amount);
        }
        if is_next {
            self.freed_next.add(amount);
        }
        if is_short || is_next {
            self.temporary.add(amount);
        }
    }

    pub(super) fn saw_live(&mut self, time_ns: u64) {
        self.oldest_ns = Some(self.oldest_ns.map_or(time_ns, |oldest| oldest.min(time_ns)));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.allocated.add(other.allocated);
        self.freed.add(other.freed);
        self.gone.add(other.gone);
        self.temporary.add(other.temporary);
        self.short_lived.add(other.short_lived);
        self.freed_next.add(other.freed_next);
        self.lifetimes.merge(&other.lifetimes);
        if let Some(oldest) = other.oldest_ns {
            self.saw_live(oldest);
        }
    }
}
