//! Reading the kernel program's counters.

use aya::maps::{MapData, MapError, PerCpuArray};
use memtrace_common::Counter;

/// The counters at one moment, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    values: [u64; Counter::COUNT],
    allocation_calls: u64,
    free_calls: u64,
}

impl Counters {
    /// `calls` are those of allocation functions and those of free functions.
    pub(super) fn read(map: &PerCpuArray<&MapData, u64>, calls: (u64, u64)) -> Result<Self, MapError> {
        let (allocation_calls, free_calls) = calls;
        let mut counters = Self { allocation_calls, free_calls, ..Self::default() };
        for (slot, value) in counters.values.iter_mut().enumerate() {
            *value = map.get(&(slot as u32), 0)?.iter().sum();
        }
        Ok(counters)
    }

    /// What was counted since `earlier`.
    pub(super) fn since(mut self, earlier: &Self) -> Self {
        for (value, before) in self.values.iter_mut().zip(earlier.values) {
            *value = value.saturating_sub(before);
        }
        self.allocation_calls = self.allocation_calls.saturating_sub(earlier.allocation_calls);
        self.free_calls = self.free_calls.saturating_sub(earlier.free_calls);
        self
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Calls of allocation functions, sampled or not.
    pub fn allocation_calls(&self) -> u64 {
        self.allocation_calls
    }

    /// Calls of free functions.
    pub fn free_calls(&self) -> u64 {
        self.free_calls
    }
}
