//! Whether a table may hold a key, told without looking it up: a counting Bloom filter with one hash
//! function (Fan et al., "Summary Cache", IEEE/ACM Transactions on Networking 8(3), 2000).
//!
//! Nearly every call asks a table for something that is not there. A look-up that finds nothing hashes the
//! key, walks a bucket, and takes a call or two; this is one load.
//!
//! Each slot counts those entries of the table whose keys fall into it. An entry is counted before it is
//! inserted, and counted off after its removal by whoever has removed it. So a slot may be too high: for a
//! moment, or for good where an entry goes by another way (an LRU table makes room, userspace takes a block
//! off). That costs look-ups in vain. It is never too low, which would hide an entry.

use aya_ebpf::maps::Array;

use crate::atomic;

/// The filter of one table.
pub(crate) struct Filter {
    slots: &'static Array<u64>,
    /// Binary logarithm of the number of slots.
    bits: u32,
}

impl Filter {
    /// One with 2^`bits` slots, which are those of `slots`.
    pub(crate) const fn new(slots: &'static Array<u64>, bits: u32) -> Self {
        Self { slots, bits }
    }

    /// The slot of `key`: Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
    #[inline(always)]
    fn slot(&self, key: u64) -> Option<*mut u64> {
        self.slots.get_ptr_mut((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.bits)) as u32)
    }

    /// Whether the table may hold `key`.
    #[inline(always)]
    pub(crate) fn may_hold(&self, key: u64) -> bool {
        // SAFETY: the address of a map value; other CPUs change it by whole words only. Volatile, so that it
        // is read when it is asked for.
        self.slot(key).is_none_or(|slot| unsafe { slot.read_volatile() } != 0)
    }

    /// Counts an entry that is about to be inserted.
    #[inline(always)]
    pub(crate) fn add(&self, key: u64) {
        if let Some(slot) = self.slot(key) {
            atomic::add(slot, 1);
        }
    }

    /// Counts an entry off that this program has removed, or could not insert.
    #[inline(always)]
    pub(crate) fn subtract(&self, key: u64) {
        if let Some(slot) = self.slot(key) {
            atomic::add(slot, u64::MAX);
        }
    }
}
