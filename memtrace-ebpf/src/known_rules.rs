//! The unwind rules that were found last, by address. Programs return to the same addresses over and over, and
//! what is known here need not be looked up in the tables.

use aya_ebpf::{macros::map, maps::Array};
use memtrace_common::unwind::PackedRule;

const BITS: u32 = 14;

/// A rule that was found for an address.
#[repr(C)]
struct Known {
    /// [`check`] of what the rule was found for, and of the rule.
    check: u64,
    /// The rule.
    rule: u64,
}

#[map]
static KNOWN_RULES: Array<Known> = Array::with_max_entries(1 << BITS, 0);

/// An odd number without pattern: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// For which address in which [generation](memtrace_common::unwind::MappingsOf::generation) of mappings a rule was
/// asked.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    address: u64,
    generation: u32,
}

impl Question {
    /// What is the rule for `address` in the mappings of this generation?
    #[inline(always)]
    pub(crate) fn new(address: u64, generation: u32) -> Self {
        Self { address, generation }
    }

    /// Where the answer stands, if it is known.
    #[inline(always)]
    fn place(self) -> u32 {
        ((self.address ^ u64::from(self.generation) << 32).wrapping_mul(MULTIPLIER) >> (64 - BITS)) as u32
    }

    /// Other questions with the same place, and other rules, have another one: the rule is another CPU's when two
    /// write at once, and the question is. For addresses below 2^47 it takes an accident of 1 in 2^64, as
    /// for the identity of a stack.
    #[inline(always)]
    fn check(self, rule: u64) -> u64 {
        let generation = u64::from(self.generation).wrapping_mul(MULTIPLIER);
        self.address ^ generation ^ rule.wrapping_mul(MULTIPLIER).rotate_left(32)
    }

    /// The answer, if it is known.
    #[inline(always)]
    pub(crate) fn answer(self) -> Option<PackedRule> {
        let known = KNOWN_RULES.get_ptr(self.place())?;
        // SAFETY: a pointer to a map value; its fields are aligned.
        let (check, rule) = unsafe {
            ((&raw const (*known).check).read_volatile(), (&raw const (*known).rule).read_volatile())
        };
        (check == self.check(rule)).then_some(PackedRule(rule))
    }

    /// Remembers the answer.
    #[inline(always)]
    pub(crate) fn remember(self, rule: PackedRule) {
        let Some(known) = KNOWN_RULES.get_ptr_mut(self.place()) else { return };
        // SAFETY: as above.
        unsafe {
            (&raw mut (*known).check).write_volatile(self.check(rule.0));
            (&raw mut (*known).rule).write_volatile(rule.0);
        }
    }
}
