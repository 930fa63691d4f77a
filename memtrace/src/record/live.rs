//! What the live blocks say beyond the totals: the standard error of the in-use numbers, and whether the
//! books balance.

use std::collections::HashMap;

use memtrace_common::{Block, InFlight, StackTotals, sampling};

/// What the live blocks of one stack add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LiveSums {
    /// In 1/65536.
    objects: u64,
    /// In 1/16.
    bytes: u64,
    /// Variance of the estimated number of objects.
    pub(super) objects_variance: f64,
    /// Variance of the estimated number of bytes, in square bytes.
    pub(super) bytes_variance: f64,
}

impl LiveSums {
    /// Each block was drawn for itself with probability p and stands for w = 1/p. An unbiased estimate of
    /// the variance of the sum of w*y is then the sum of w*(w-1)*y^2 over the blocks that were drawn
    /// (Horvitz and Thompson, 1952, for independent draws).
    fn add(&mut self, block: &Block) {
        let weight = block.objects as f64 / sampling::OBJECT_UNIT as f64;
        let variance = weight * (weight - 1.0);
        self.objects += block.objects;
        self.bytes += block.bytes;
        self.objects_variance += variance;
        self.bytes_variance += variance * (block.size as f64).powi(2);
    }
}

/// The sums by stack id. Blocks that a `realloc` holds at the moment are live, too.
pub(super) fn sums<'a>(
    live: impl IntoIterator<Item = &'a Block>,
    in_flight: impl IntoIterator<Item = &'a InFlight>,
) -> HashMap<u64, LiveSums> {
    let held = in_flight.into_iter().map(|call| &call.old).filter(|block| block.present != 0);
    let mut sums: HashMap<u64, LiveSums> = HashMap::new();
    for block in live.into_iter().chain(held) {
        sums.entry(block.stack_id).or_default().add(block);
    }
    sums
}

/// In how many stacks allocated - freed - untracked is not what the live blocks add up to. Always 0 while
/// the books are closed, unless memtrace has a bug.
pub(super) fn unbalanced(totals: &[(u64, StackTotals)], sums: &HashMap<u64, LiveSums>) -> u64 {
    let in_use =
        |allocated: u64, freed: u64, untracked: u64| allocated.wrapping_sub(freed).wrapping_sub(untracked);
    let balanced = |(stack_id, stack): &&(u64, StackTotals)| {
        let live = sums.get(stack_id).copied().unwrap_or_default();
        in_use(stack.allocated_objects, stack.freed_objects, stack.untracked_objects) == live.objects
            && in_use(stack.allocated_bytes, stack.freed_bytes, stack.untracked_bytes) == live.bytes
    };
    totals.iter().filter(|stack| !balanced(stack)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u64, weight: f64) -> Block {
        let objects = (weight * sampling::OBJECT_UNIT as f64) as u64;
        let bytes = size * objects / (sampling::OBJECT_UNIT / sampling::BYTE_UNIT);
        Block { stack_id: 7, size, objects, bytes, present: 1, ..Block::default() }
    }

    #[test]
    fn exact_blocks_have_no_error() {
        let sums = sums(&[block(100, 1.0), block(50, 1.0)], []);
        assert_eq!((sums[&7].objects_variance, sums[&7].bytes_variance), (0.0, 0.0));
    }

    #[test]
    fn a_block_that_stands_for_many_brings_its_variance() {
        let sums = sums(&[block(10, 4.0)], []);
        assert_eq!(sums[&7].objects_variance, 12.0);
        assert_eq!(sums[&7].bytes_variance, 1200.0);
    }

    #[test]
    fn books_balance_or_are_said_not_to() {
        let live = [block(10, 4.0), block(20, 1.0)];
        let (objects, bytes) = (5 * sampling::OBJECT_UNIT, 60 * sampling::BYTE_UNIT);
        let held = InFlight { old: block(30, 1.0), ..InFlight::default() };
        let totals = |objects, bytes| {
            let stack = StackTotals {
                allocated_objects: objects + 9,
                freed_objects: 9,
                allocated_bytes: bytes,
                ..Default::default()
            };
            [(7, stack)]
        };
        assert_eq!(unbalanced(&totals(objects, bytes), &sums(&live, [])), 0);
        assert_eq!(unbalanced(&totals(objects, bytes), &sums(&live, [&held])), 1);
        assert_eq!(unbalanced(&totals(objects, bytes + 1), &sums(&live, [])), 1);
    }
}
