//! What each shape of call frame information becomes.

use memtrace_common::unwind::{CfaRule, PackedRule, RegisterRule, Rule};
use object::Architecture;

use super::super::{Image, Rows, compile};
use super::synthetic::*;

fn packed(rule: Rule) -> PackedRule {
    PackedRule(rule.packed().unwrap())
}

fn rule(cfa: CfaRule, cfa_offset: i32) -> Rule {
    Rule { cfa, cfa_offset, ..Rule::default() }
}

/// The rule at the first byte of a function with these instructions, after those of the usual CIE.
fn x86_64(instructions: &[u8]) -> PackedRule {
    let mut builder = Builder::default();
    let cie = builder.cie("", 16, &[DEF_CFA, 7, 8, OFFSET | 16, 1]);
    builder.fde(cie, 0x2000..0x2010, instructions);
    first(&compile(&builder.cfi(Architecture::X86_64)).unwrap())
}

fn aarch64(instructions: &[u8]) -> PackedRule {
    let mut builder = Builder::default();
    let cie = builder.cie("", 30, &[DEF_CFA, 31, 0]);
    builder.fde(cie, 0x2000..0x2010, instructions);
    first(&compile(&builder.cfi(Architecture::Aarch64)).unwrap())
}

fn first(rows: &Rows) -> PackedRule {
    Image::new(rows).unwrap().lookup(0).unwrap()
}

#[test]
fn canonical_frame_addresses() {
    assert_eq!(x86_64(&[]), packed(rule(CfaRule::StackPointer, 8)));
    assert_eq!(x86_64(&[DEF_CFA, 6, 16]), packed(rule(CfaRule::FramePointer, 16)));
    assert_eq!(x86_64(&[DEF_CFA, 3, 24]), packed(rule(CfaRule::Third, 24)));
    assert_eq!(x86_64(&[DEF_CFA, 10, 8]), packed(rule(CfaRule::Unsupported, 0)));
    assert_eq!(x86_64(&[DEF_CFA, 7, 12]), packed(rule(CfaRule::Unsupported, 0)));
}

#[test]
fn expressions() {
    let at_frame_pointer = [DEF_CFA_EXPRESSION, 3, 0x76, 0x78, DEREF];
    assert_eq!(x86_64(&at_frame_pointer), packed(rule(CfaRule::AtFramePointer, -8)));
    let at_stack_pointer = [DEF_CFA_EXPRESSION, 3, 0x77, 16, DEREF];
    assert_eq!(x86_64(&at_stack_pointer), packed(rule(CfaRule::AtStackPointer, 16)));
    let at_another = [DEF_CFA_EXPRESSION, 3, 0x70, 16, DEREF];
    assert_eq!(x86_64(&at_another), packed(rule(CfaRule::Unsupported, 0)));
    let truncated = [DEF_CFA_EXPRESSION, 2, 0x77, 0x80];
    assert_eq!(x86_64(&truncated), packed(rule(CfaRule::Unsupported, 0)));
}

#[test]
fn stubs_of_the_procedure_linkage_table() {
    for behind_push in [10, 11] {
        let stub = [
            DEF_CFA_EXPRESSION,
            11,
            0x77,
            8,
            0x80,
            0,
            0x3f,
            0x1a,
            0x30 + behind_push,
            0x2a,
            0x33,
            0x24,
            0x22,
        ];
        let expected = Rule { third_offset: i32::from(behind_push) * 8, ..rule(CfaRule::Plt, 8) };
        assert_eq!(x86_64(&stub), packed(expected));
    }
    let other = [DEF_CFA_EXPRESSION, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x34, 0x24, 0x22];
    assert_eq!(x86_64(&other), packed(rule(CfaRule::Unsupported, 0)));
}

#[test]
fn saved_registers() {
    let saved = |frame_pointer, frame_pointer_offset, third, third_offset| {
        packed(Rule {
            frame_pointer,
            frame_pointer_offset,
            third,
            third_offset,
            ..rule(CfaRule::StackPointer, 8)
        })
    };
    use RegisterRule::{AtCfa, AtFramePointer, Same, Undefined};
    assert_eq!(x86_64(&[OFFSET | 6, 2, OFFSET | 3, 3]), saved(AtCfa, -16, AtCfa, -24));
    assert_eq!(x86_64(&[SAME, 6]), saved(Same, 0, Same, 0));
    assert_eq!(x86_64(&[UNDEFINED, 6]), saved(Undefined, 0, Same, 0));
    assert_eq!(x86_64(&[VAL_OFFSET, 6, 1]), saved(Undefined, 0, Same, 0));
    assert_eq!(x86_64(&[EXPRESSION, 6, 2, 0x76, 0]), saved(AtFramePointer, 0, Same, 0));
    assert_eq!(x86_64(&[EXPRESSION, 3, 2, 0x76, 0x68]), saved(Same, 0, AtFramePointer, -24));
    assert_eq!(x86_64(&[EXPRESSION, 3, 2, 0x77, 0x68]), saved(Same, 0, Undefined, 0));
    // Farther away than a rule can say.
    assert_eq!(x86_64(&[OFFSET | 6, 0x81, 0x80, 0x02]), saved(Undefined, 0, Same, 0));
}

#[test]
fn return_addresses() {
    assert_eq!(x86_64(&[UNDEFINED, 16]), packed(rule(CfaRule::Root, 0)));
    assert_eq!(x86_64(&[OFFSET | 16, 2]), packed(rule(CfaRule::Unsupported, 0)));
    assert_eq!(x86_64(&[SAME, 16]), packed(rule(CfaRule::Unsupported, 0)));
    assert_eq!(aarch64(&[UNDEFINED, 30]), packed(rule(CfaRule::Root, 0)));
}

#[test]
fn the_frame_that_the_kernel_makes_for_a_signal() {
    let mut builder = Builder::default();
    let cie = builder.cie("zS", 16, &[]);
    builder.fde(cie, 0x2000..0x2010, &[DEF_CFA_EXPRESSION, 4, 0x77, 0xa0, 1, DEREF]);
    let rows = compile(&builder.cfi(Architecture::X86_64)).unwrap();
    assert_eq!(first(&rows), packed(rule(CfaRule::Signal, 0)));
}

#[test]
fn the_other_architecture() {
    assert_eq!(aarch64(&[]), packed(rule(CfaRule::StackPointer, 0)));
    let saved = Rule {
        frame_pointer: RegisterRule::AtCfa,
        frame_pointer_offset: -32,
        third: RegisterRule::AtCfa,
        third_offset: -24,
        ..rule(CfaRule::FramePointer, 32)
    };
    assert_eq!(aarch64(&[DEF_CFA, 29, 32, OFFSET | 29, 4, OFFSET | 30, 3]), packed(saved));
    // DW_CFA_AARCH64_negate_ra_state: the return address is signed, which the kernel program strips.
    assert_eq!(aarch64(&[0x2d]), packed(rule(CfaRule::StackPointer, 0)));
}

#[test]
fn rows_are_in_order_and_gaps_have_no_rule() {
    let mut builder = Builder::default();
    let cie = builder.cie("", 16, &[DEF_CFA, 7, 8, OFFSET | 16, 1]);
    builder.fde(cie, 0x3000..0x3004, &[]);
    // The second row says the same, and the third one is its own.
    builder.fde(cie, 0x2000..0x2010, &[ADVANCE | 4, DEF_CFA, 7, 8, ADVANCE | 4, DEF_CFA, 7, 16]);
    builder.fde(cie, 0x2010..0x2020, &[DEF_CFA, 7, 16]);
    // Overlaps: only its end is new.
    builder.fde(cie, 0x2018..0x2024, &[DEF_CFA, 7, 24]);
    // The linker dropped it.
    builder.fde(cie, 0..0x10, &[]);
    // It has no instructions.
    builder.fde(cie, 0x2500..0x2500, &[]);
    let rows = compile(&builder.cfi(Architecture::X86_64)).unwrap();
    let seen: Vec<_> = rows
        .rows
        .iter()
        .map(|&(address, rule)| (address, PackedRule(rows.rules[rule as usize]).cfa_offset()))
        .collect();
    assert_eq!(seen, [(0x2000, 8), (0x2008, 16), (0x2020, 24), (0x2024, 0), (0x3000, 8), (0x3004, 0)]);
    assert_eq!((rows.counts.functions, rows.counts.outside, rows.counts.malformed), (4, 2, 0));
}

#[test]
fn debug_frame_fills_in_where_eh_frame_is_silent() {
    let mut builder = Builder::default();
    let cie = builder.cie("", 16, &[DEF_CFA, 7, 8, OFFSET | 16, 1]);
    builder.fde(cie, 0x2000..0x2010, &[]);
    let mut cfi = builder.cfi(Architecture::X86_64);
    // The same in the form of the other section: references are counted from its start.
    let mut data = Vec::new();
    data.extend(16_u32.to_le_bytes());
    data.extend([0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, 16, DEF_CFA, 7, 16, OFFSET | 16, 1, 0, 0]);
    data.extend(20_u32.to_le_bytes());
    data.extend(0_u32.to_le_bytes());
    data.extend(0x2008_u64.to_le_bytes());
    data.extend(0x10_u64.to_le_bytes());
    let mut section = cfi.eh_frame.clone().unwrap();
    section.data = data.into();
    cfi.debug_frame = Some(section);
    let image = Image::new(&compile(&cfi).unwrap()).unwrap();
    let offset = |address: u64| image.lookup(address - image.base).unwrap().cfa_offset();
    assert_eq!((offset(0x2008), offset(0x200f), offset(0x2010), offset(0x2017)), (8, 8, 16, 16));
    assert_eq!(offset(0x2018), 0);
}
