//! Wrappers: functions such as `operator new` in libstdc++ that call another allocation function.
//!
//! A wrapper gets no probe. A return probe replaces the return address on the stack, and an exception that
//! passes through such a frame ends the program (libgcc's unwinder finds no caller); `operator new` throws.
//! Nor is one needed: the call that the wrapper makes is seen. But the reader of a profile wants to see the
//! wrapper's caller, so the kernel program is told where wrappers stand, and leaves their frames out.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, OpKind};

use super::elf::FunctionSymbol;

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
