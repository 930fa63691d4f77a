//! Reading the kernel program's counters.

use aya::maps::{MapData, MapError, PerCpuArray};
use memtrace_common::Counter;

/// The counters at one moment, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    values: [u64; Counter::COUNT],
}

impl Counters {
    pub(super) fn read(map: &PerCpuArray<&MapData, u64>) -> Result<Self, MapError> {
        let mut counters = Self::default();
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
        self
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}
