//! Numbers of functions, under which the kernel program counts their calls and tells their stacks apart.

use aya::maps::{MapData, PerCpuArray};
use memtrace_common::{MAX_FUNCTIONS, OTHER_ALLOCATIONS, OTHER_FREES};

use super::{Kernel, LoadError};

/// Which functions have numbers: for each number, whether the function frees.
#[derive(Debug)]
pub(super) struct Functions(Vec<bool>);

impl Default for Functions {
    fn default() -> Self {
        // Those that have no number of their own.
        Self(vec![false, true])
    }
}

impl Functions {
    /// From calls by number: those of allocation functions, and those of free functions.
    pub(super) fn sums(&self, calls: &[u64]) -> (u64, u64) {
        let sum = |wanted: bool| {
            self.0.iter().zip(calls).filter(|(frees, _)| **frees == wanted).map(|(_, calls)| calls).sum()
        };
        (sum(false), sum(true))
    }
}

impl Kernel {
    /// A number for another function of a process, for its [probe](memtrace_common::Probe::function). When there is
    /// none left, one that it shares.
    pub fn number_function(&mut self, frees: bool) -> u16 {
        match u16::try_from(self.functions.0.len()) {
            Ok(number) if number < MAX_FUNCTIONS => {
                self.functions.0.push(frees);
                number
            }
            _ if frees => OTHER_FREES,
            _ => OTHER_ALLOCATIONS,
        }
    }

    /// How often each function was called while the books were open, by its number.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn calls(&self) -> Result<Vec<u64>, LoadError> {
        let map: PerCpuArray<&MapData, u64> = self.map("CALLS")?;
        let numbers = 0..self.functions.0.len() as u32;
        numbers.map(|number| Ok(map.get(&number, 0)?.iter().sum())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_summed_by_what_functions_do() {
        let functions = Functions(vec![false, true, false, true, true]);
        assert_eq!(functions.sums(&[1, 10, 100, 1_000, 10_000]), (101, 11_010));
        assert_eq!(Functions::default().sums(&[3, 4]), (3, 4));
    }
}
