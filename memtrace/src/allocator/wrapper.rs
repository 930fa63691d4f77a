//! Wrappers: functions such as `operator new` in libstdc++ that call another allocation function.
//!
//! A wrapper gets no probe. A return probe replaces the return address on the stack, and an exception that
//! passes through such a frame ends the program (libgcc's unwinder finds no caller); `operator new` throws.
//! Nor is one needed: the call that the wrapper makes is seen. But the reader of a profile wants to see the
//! wrapper's caller, so the kernel program is told how to get from a wrapper's frame to its caller's: the
//! rows of the wrapper's unwind table (`.eh_frame`).

use std::collections::HashSet;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, NativeEndian, RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, OpKind};
use memtrace_common::WrapperRow;

use super::elf::{ElfSymbols, FunctionSymbol};

/// Whether the function with this code calls, or jumps to, one of these addresses (all of them virtual
/// addresses in the file).
pub(super) fn calls_one_of(function: &FunctionSymbol, code: &[u8], addresses: &HashSet<u64>) -> bool {
    let size = if function.size == 0 { code.len() as u64 } else { function.size };
    Decoder::with_ip(64, code, function.address, DecoderOptions::NONE)
        .into_iter()
        .take_while(|instruction| instruction.ip() < function.address + size)
        .filter(|instruction| instruction.op0_kind() == OpKind::NearBranch64)
        .any(|instruction| addresses.contains(&instruction.near_branch_target()))
}

/// The rows of the function's unwind table. `bias` is what the process adds to the file's virtual
/// addresses. Rows that the kernel program could not use are left out: where the canonical frame address
/// is not counted from the stack pointer.
pub(super) fn rows(elf: &ElfSymbols, function: &FunctionSymbol, bias: u64) -> Vec<WrapperRow> {
    let Some(section) = &elf.eh_frame else { return Vec::new() };
    let eh_frame = EhFrame::new(&section.data, NativeEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address);
    let find = |section: &EhFrame<_>, bases: &_, offset| section.cie_from_offset(bases, offset);
    let Ok(entry) = eh_frame.fde_for_address(&bases, function.address, find) else { return Vec::new() };
    let mut context = UnwindContext::new();
    let Ok(mut table) = entry.rows(&eh_frame, &bases, &mut context) else { return Vec::new() };
    let mut rows = Vec::new();
    while let Ok(Some(row)) = table.next_row() {
        let CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } = *row.cfa() else { continue };
        let below = match row.register(X86_64::RBP) {
            Some(RegisterRule::Offset(offset)) => u32::try_from(-offset).unwrap_or(0),
            _ => 0,
        };
        let Ok(frame_size) = u32::try_from(offset) else { continue };
        rows.push(WrapperRow {
            start: row.start_address().wrapping_add(bias),
            end: row.end_address().wrapping_add(bias),
            frame_size,
            frame_pointer_below: below,
        });
    }
    rows
}
