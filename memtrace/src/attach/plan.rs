//! Which probes a process needs, in the order in which they are to be set.

use std::collections::HashSet;

use memtrace_common::{CallerRange, FunctionKind, InternalCallers, MAX_CALLER_RANGES};

use crate::{allocator::Discovered, symbolize::ModuleId};

/// A process's allocator functions, sorted for attaching.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Those that free. Their probes are set first: an allocation whose free is not seen would stay on
    /// the books for ever.
    pub frees: Vec<Discovered>,
    /// Those that allocate, with a return probe each, which is set before the one at the entry.
    pub allocations: Vec<Discovered>,
}

impl Plan {
    /// Makes a plan for those functions that are not at one of the `known` places.
    pub fn new(functions: &[Discovered], known: &HashSet<(ModuleId, u64)>) -> Self {
        let (frees, allocations) = functions
            .iter()
            .filter(|found| !known.contains(&found.place()))
            .cloned()
            .partition(|found| found.probe.kind == FunctionKind::Free);
        Self { frees, allocations }
    }

    /// Where the process's allocation functions stand, for telling calls that they make of each other.
    /// The second value is how many did not fit.
    pub fn internal_callers(functions: &[Discovered]) -> (InternalCallers, usize) {
        let mut callers = InternalCallers::default();
        let ranges = functions.iter().filter(|found| found.probe.kind != FunctionKind::Free);
        let count = ranges.clone().count();
        for (place, found) in callers.ranges.iter_mut().zip(ranges) {
            let (start, end) = found.address_range();
            *place = CallerRange { start, end };
        }
        callers.len = count.min(MAX_CALLER_RANGES) as u64;
        (callers, count.saturating_sub(MAX_CALLER_RANGES))
    }
}
