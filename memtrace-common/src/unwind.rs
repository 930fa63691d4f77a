//! Unwind tables: how to get from a place in the code to its caller's frame.
//!
//! Userspace compiles the call frame information of every ELF file (DWARF 5, 6.4) into one [`Page`] array,
//! which is a BPF map of its own and is shared by all processes that map the file. It holds, in this order:
//!
//! - the index: for each block of 2^[`BLOCK_SHIFT`] bytes of code, where its rows are ([`BlockRows`]);
//! - the rows: for each block, sorted, from which byte of the block on which rule holds ([`Row`]). The first
//!   row of a block is at its first byte. A block's rows stand in one page;
//! - the rules, each once ([`Rule`]).
//!
//! The kernel program finds a frame's rule by four reads and a search among the rows of one block.

/// log2 of the number of bytes of code that one block covers. An offset in a block fits into a byte.
pub const BLOCK_SHIFT: u32 = 8;

/// log2 of the number of words of a page.
pub const PAGE_SHIFT: u32 = 8;

/// How many 32-bit words a page has: as many as a block has bytes, so that a block's rows always fit.
pub const PAGE_WORDS: usize = 1 << PAGE_SHIFT;

/// How many rules a page holds; a rule takes two words, the lower half first.
pub const PAGE_RULES: usize = PAGE_WORDS / 2;

/// The unit of a table: the value of its BPF map.
pub type Page = [u32; PAGE_WORDS];

/// Where a block's rows are, as the index holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRows {
    /// The page; at most 2^16 pages can be told apart.
    pub page: u32,
    /// The first row's word in it.
    pub first: u32,
    /// How many rows follow the first one.
    pub more: u32,
}

impl BlockRows {
    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.page << 16 | (self.first & 0xff) << 8 | (self.more & 0xff)
    }

    /// From one word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self { page: word >> 16, first: word >> 8 & 0xff, more: word & 0xff }
    }
}

/// A row: from a byte of its block on, until the next row, a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The byte's offset in the block, below 2^[`BLOCK_SHIFT`].
    pub offset: u32,
    /// The rule's number in its table, below 2^24.
    pub rule: u32,
}

impl Row {
    /// How many rules can be told apart.
    pub const MAX_RULES: u32 = 1 << 24;

    /// As one word. Words of one block have the order of their offsets.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.offset << 24 | (self.rule & 0xff_ffff)
    }

    /// From one word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self { offset: word >> 24, rule: word & 0xff_ffff }
    }
}

/// How a frame's canonical frame address (CFA) is found: the value of the stack pointer before the call.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CfaRule {
    /// There is no call frame information for this code.
    #[default]
    None = 0,
    /// This is the first function of its thread: it has no caller.
    Root = 1,
    /// There is, but it needs more than these rules can say.
    Unsupported = 2,
    /// Stack pointer + offset.
    StackPointer = 3,
    /// Frame pointer + offset.
    FramePointer = 4,
    /// Third register + offset.
    Third = 5,
    /// What stands at frame pointer + offset.
    AtFramePointer = 6,
    /// What stands at stack pointer + offset.
    AtStackPointer = 7,
    /// A stub of the procedure linkage table: stack pointer + offset, and one word more behind the push that
    /// is found by the lower four bits of the address.
    Plt = 8,
    /// The frame that the kernel makes for a signal handler: all registers are in memory.
    Signal = 9,
}

/// How the caller's value of a register is found.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RegisterRule {
    /// The register still holds it.
    #[default]
    Same = 0,
    /// It stands at CFA + offset.
    AtCfa = 1,
    /// It stands at frame pointer + offset.
    AtFramePointer = 2,
    /// It cannot be known.
    Undefined = 3,
}

/// How to get from a frame to its caller's. Offsets are in bytes and multiples of 8.
///
/// What the registers are is the architecture's matter. x86_64: stack pointer `rsp`, frame pointer `rbp`,
/// third `rbx`; the return address is always at CFA - 8. aarch64: `sp`, `x29`, and third `x30`, which holds
/// the return address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The canonical frame address...
    pub cfa: CfaRule,
    /// ...and its offset; for a stub of the procedure linkage table, the least value of the address's lower
    /// four bits behind the push is in [`third_offset`](Self::third_offset), times 8.
    pub cfa_offset: i32,
    /// The caller's frame pointer...
    pub frame_pointer: RegisterRule,
    /// ...and its offset.
    pub frame_pointer_offset: i32,
    /// The caller's third register...
    pub third: RegisterRule,
    /// ...and its offset.
    pub third_offset: i32,
}

/// Bits of a rule's parts, from the lowest: cfa 4, frame pointer 2, third 2, cfa offset / 8 in 24, frame
/// pointer offset / 8 in 16, third offset / 8 in 16.
const CFA_BITS: u32 = 24;
const REGISTER_BITS: u32 = 16;

/// `value`, a multiple of 8, in units of 8 in `bits` bits.
const fn packed(value: i32, bits: u32) -> Option<u64> {
    let units = value >> 3;
    if value & 7 != 0 || units < -(1 << (bits - 1)) || units >= 1 << (bits - 1) {
        return None;
    }
    Some(units as u32 as u64 & ((1 << bits) - 1))
}

/// The signed number of `bits` bits at `shift`, times 8.
#[inline(always)]
const fn unpacked(bits_of_rule: u64, shift: u32, bits: u32) -> i64 {
    ((bits_of_rule << (64 - shift - bits)) as i64 >> (64 - bits)) << 3
}

impl Rule {
    /// As two words; `None` where an offset is too large or no multiple of 8.
    pub const fn packed(self) -> Option<u64> {
        let (Some(cfa), Some(frame_pointer), Some(third)) = (
            packed(self.cfa_offset, CFA_BITS),
            packed(self.frame_pointer_offset, REGISTER_BITS),
            packed(self.third_offset, REGISTER_BITS),
        ) else {
            return None;
        };
        let kinds = self.cfa as u64 | (self.frame_pointer as u64) << 4 | (self.third as u64) << 6;
        Some(kinds | cfa << 8 | frame_pointer << 32 | third << 48)
    }
}

/// A packed [`Rule`], for whoever reads its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedRule(pub u64);

impl PackedRule {
    /// A [`CfaRule`] as a number.
    #[inline(always)]
    pub const fn cfa(self) -> u64 {
        self.0 & 15
    }

    /// In bytes.
    #[inline(always)]
    pub const fn cfa_offset(self) -> i64 {
        unpacked(self.0, 8, CFA_BITS)
    }

    /// A [`RegisterRule`] as a number.
    #[inline(always)]
    pub const fn frame_pointer(self) -> u64 {
        self.0 >> 4 & 3
    }

    /// In bytes.
    #[inline(always)]
    pub const fn frame_pointer_offset(self) -> i64 {
        unpacked(self.0, 32, REGISTER_BITS)
    }

    /// A [`RegisterRule`] as a number.
    #[inline(always)]
    pub const fn third(self) -> u64 {
        self.0 >> 6 & 3
    }

    /// In bytes.
    #[inline(always)]
    pub const fn third_offset(self) -> i64 {
        unpacked(self.0, 48, REGISTER_BITS)
    }
}

/// How many tables there can be at a time: one for each distinct ELF file.
pub const MAX_TABLES: usize = 4096;

/// In a [`Mapping`]: code for which there is no table, only frame pointers.
pub const NO_TABLE: u32 = u32::MAX;

/// An executable mapping of a process. The kernel program searches them by address, so a process's mappings
/// stand next to each other in the map `MAPPINGS`, sorted and without overlaps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address; below 2^63.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What to take off an address to get the byte of the table's code that it is.
    pub bias: u64,
    /// The table's place in the map `UNWIND_TABLES`, or [`NO_TABLE`].
    pub table: u32,
    /// The table's first page of rules.
    pub rules: u32,
}

/// Which of the map `MAPPINGS` are a process's: the value of the map `MAPPINGS_OF`, by process id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingsOf {
    /// The first one's place.
    pub first: u32,
    /// A number above 0 that no other mappings of any process have or had.
    pub generation: u32,
    /// How many there are, at most 2^[`MAPPING_STEPS`] - 1.
    pub len: u32,
    /// The same number again. The kernel may give the memory of a map's value to another one while it is read;
    /// where the two differ that has happened.
    pub generation_again: u32,
}

impl MappingsOf {
    /// These mappings, with this number.
    pub const fn new(first: u32, len: u32, generation: u32) -> Self {
        Self { first, generation, len, generation_again: generation }
    }
}

/// How many steps a search for a mapping takes at the most.
pub const MAPPING_STEPS: u32 = 14;

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
unsafe impl aya::Pod for Mapping {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for MappingsOf {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<Page>(), 1024);
        assert_eq!(size_of::<Mapping>(), 32);
        assert_eq!(size_of::<MappingsOf>(), 16);
    }

    #[test]
    fn words_are_read_as_they_were_written() {
        let rows = BlockRows { page: 0xffff, first: 0x12, more: 0xfe };
        assert_eq!(BlockRows::from_word(rows.word()), rows);
        let row = Row { offset: 255, rule: Row::MAX_RULES - 1 };
        assert_eq!(Row::from_word(row.word()), row);
        assert!(Row { offset: 1, rule: 5 }.word() < Row { offset: 2, rule: 0 }.word());
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for cfa_offset in [0, 8, -8, 0x3ff_fff8, -0x400_0000] {
            for offset in [0, -16, 8, 0x3_fff8, -0x4_0000] {
                let rule = Rule {
                    cfa: CfaRule::AtFramePointer,
                    cfa_offset,
                    frame_pointer: RegisterRule::AtCfa,
                    frame_pointer_offset: offset,
                    third: RegisterRule::AtFramePointer,
                    third_offset: -offset.max(-0x3_fff8),
                };
                let packed = PackedRule(rule.packed().expect("the offsets are in range"));
                assert_eq!(packed.cfa(), rule.cfa as u64);
                assert_eq!(packed.cfa_offset(), i64::from(rule.cfa_offset));
                assert_eq!(packed.frame_pointer(), rule.frame_pointer as u64);
                assert_eq!(packed.frame_pointer_offset(), i64::from(rule.frame_pointer_offset));
                assert_eq!(packed.third(), rule.third as u64);
                assert_eq!(packed.third_offset(), i64::from(rule.third_offset));
            }
        }
    }

    #[test]
    fn offsets_that_do_not_fit_are_refused() {
        let rule = Rule { cfa_offset: 0x400_0000, ..Rule::default() };
        assert_eq!(rule.packed(), None);
        assert_eq!(Rule { cfa_offset: 4, ..Rule::default() }.packed(), None);
        assert_eq!(Rule { third_offset: 0x4_0000, ..Rule::default() }.packed(), None);
    }
}
