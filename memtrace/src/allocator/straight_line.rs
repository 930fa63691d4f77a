//! Reading a function's first instructions.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind};

/// Whether the function does nothing but jump to another one. `operator new[]` in libstdc++ does so, and
/// `operator delete(void*, size_t)`. There is no point in a probe there: the other function sees the same
/// call, with the same caller.
///
/// `code` are the bytes from its first instruction on.
pub(super) fn only_jumps(code: &[u8]) -> bool {
    let decoder = Decoder::new(64, code, DecoderOptions::NONE);
    for instruction in decoder {
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                // A jump inside of the bytes at hand is part of the function.
                let target = instruction.near_branch_target();
                let near = matches!(instruction.op0_kind(), OpKind::NearBranch64);
                return !(near && target < code.len() as u64);
            }
            FlowControl::Next if matches!(instruction.mnemonic(), Mnemonic::Endbr64 | Mnemonic::Nop) => {}
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_after_endbr_is_all() {
        // endbr64; jmp +0x1000
        assert!(only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0x00, 0x10, 0x00, 0x00]));
        // endbr64; bnd jmp *0x1000(%rip)
        assert!(only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0x00, 0x10, 0x00, 0x00]));
    }

    #[test]
    fn anything_else_is_a_function() {
        // endbr64; test %rdi,%rdi
        assert!(!only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff]));
        // push %rbx
        assert!(!only_jumps(&[0x53]));
        // jmp +0, within the bytes
        assert!(!only_jumps(&[0xeb, 0x00, 0x90, 0xc3]));
        assert!(!only_jumps(&[]));
    }
}
