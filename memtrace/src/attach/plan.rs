//! Which probes a process needs, in the order in which they are to be set.

use std::collections::HashSet;

use memtrace_common::{CallerRange, InternalCallers, MAX_CALLER_RANGES};

use crate::{allocator::Discovered, symbolize::ModuleId};

/// A process's allocator functions, sorted for attaching.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Those that free. Their probes are set first: an allocation whose free is not seen would stay on
    /// the books for ever.
    pub frees: Vec<Discovered>,
    /// Those that allocate, with a return probe each, which is set before the one at the entry.
    pub allocations: Vec<Discovered>,
    /// Those that allocate and may throw, with probes on their `ret` instructions, which are set before the one at
    /// the entry.
    pub throwing: Vec<Discovered>,
    /// Statically defined probes by which a process tells that it has freed one of its own samples.
    pub usdt_frees: Vec<Discovered>,
    /// The same: that it has allocated one.
    pub usdt_allocations: Vec<Discovered>,
}

impl Plan {
    /// Makes a plan for those functions that are not at one of the `known` places.
    pub fn new(functions: &[Discovered], known: &HashSet<(ModuleId, u64)>) -> Self {
        let mut plan = Self::default();
        for found in functions.iter().filter(|found| !known.contains(&found.place())) {
            let part = match found.probe {
                probe if found.usdt.is_some() && probe.kind.frees() => &mut plan.usdt_frees,
                _ if found.usdt.is_some() => &mut plan.usdt_allocations,
                probe if probe.kind.frees() => &mut plan.frees,
                probe if probe.at_ret => &mut plan.throwing,
                _ => &mut plan.allocations,
            };
            part.push(found.clone());
        }
        plan
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Discovered> {
        [&self.frees, &self.allocations, &self.throwing, &self.usdt_frees, &self.usdt_allocations]
            .into_iter()
            .flatten()
    }

    /// Where the process's allocation functions stand, for telling calls that they make of each other.
    /// The second value is how many did not fit.
    pub fn internal_callers(functions: &[Discovered]) -> (InternalCallers, usize) {
        let allocations = functions.iter().filter(|found| !found.probe.kind.frees());
        let mut ranges: Vec<_> = allocations.map(Discovered::address_range).collect();
        ranges.sort_unstable();
        // The kernel program wants no overlaps. Functions that stand side by side become one range.
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.next_multiple_of(ALIGNMENT) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        let mut callers = InternalCallers::default();
        for (place, (start, end)) in callers.ranges.iter_mut().zip(&merged) {
            *place = CallerRange { start: *start, end: *end };
        }
        callers.len = merged.len().min(MAX_CALLER_RANGES) as u64;
        (callers, merged.len().saturating_sub(MAX_CALLER_RANGES))
    }
}

/// Compilers begin functions at multiples of 16; nothing but padding is before them.
const ALIGNMENT: u64 = 16;
