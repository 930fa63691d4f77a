//! What processes had on the books when they executed another program: that memory is gone.
//!
//! The kernel program goes on adding to a stack's totals while userspace takes old blocks off the live table, so
//! userspace never writes into the totals. It keeps sums of its own, which are added when totals are read.

use std::collections::HashMap;

use memtrace_common::{Block, InFlight, StackTotals};

/// The sums, and the calls that an exec has cut off.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    by_stack: HashMap<u64, Freed>,
    sampled_calls: u64,
}

/// What counts as freed, as [`StackTotals`] counts it.
#[derive(Clone, Copy, Debug, Default)]
struct Freed {
    objects: u64,
    bytes: u64,
    samples: u64,
}

impl Forgotten {
    /// A block that was taken off the live table.
    pub(super) fn block(&mut self, block: &Block) {
        let freed = self.by_stack.entry(block.stack_id).or_default();
        freed.objects += block.objects;
        freed.bytes += block.bytes;
        freed.samples += 1;
    }

    /// A call whose thread the exec has ended. The block that it was to resize is gone, too.
    pub(super) fn call(&mut self, call: &InFlight) {
        if call.old.present != 0 {
            self.block(&call.old);
        }
        self.sampled_calls += u64::from(call.threshold != 0);
    }

    /// How many sampled calls an exec has cut off.
    pub(super) fn sampled_calls(&self) -> u64 {
        self.sampled_calls
    }

    /// The same as [`add_to`](Self::add_to), for a stack that is itself taken off the books.
    pub(super) fn take_to(&mut self, stack_id: u64, totals: &mut StackTotals) {
        self.add_to(stack_id, totals);
        self.by_stack.remove(&stack_id);
    }

    /// Adds the sums to the totals that the kernel program keeps.
    pub(super) fn add_to(&self, stack_id: u64, totals: &mut StackTotals) {
        if let Some(freed) = self.by_stack.get(&stack_id) {
            totals.freed_objects += freed.objects;
            totals.freed_bytes += freed.bytes;
            totals.freed_samples += freed.samples;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_as_freed_by_their_stack() {
        let block = Block { stack_id: 7, objects: 65536, bytes: 1600, present: 1, ..Block::default() };
        let mut forgotten = Forgotten::default();
        forgotten.block(&block);
        forgotten.call(&InFlight { old: block, threshold: 1, ..InFlight::default() });
        forgotten.call(&InFlight::default());
        let mut totals = StackTotals { freed_objects: 1, freed_samples: 5, ..StackTotals::default() };
        forgotten.add_to(8, &mut totals);
        assert_eq!((totals.freed_objects, totals.freed_bytes, totals.freed_samples), (1, 0, 5));
        forgotten.add_to(7, &mut totals);
        assert_eq!((totals.freed_objects, totals.freed_bytes, totals.freed_samples), (131_073, 3200, 7));
        assert_eq!(forgotten.sampled_calls(), 1);
    }
}
