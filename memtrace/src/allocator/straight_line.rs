//! Reading a function's first instructions.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind};

/// Where a function jumps to that does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// To this address of the same file.
    To(u64),
    /// To where a pointer leads, which mostly is another file's function.
    ByPointer,
}

/// What the function jumps to, if that is all that it does. `operator new[]` in libstdc++ does so, and
/// `operator delete(void*, size_t)`, and in musl `malloc` and `free`.
///
/// `code` are the bytes from its first instruction on, which stands at `address`.
pub(super) fn only_jumps(code: &[u8], address: u64) -> Option<Jump> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    for instruction in decoder {
        match instruction.flow_control() {
            FlowControl::IndirectBranch => return Some(Jump::ByPointer),
            FlowControl::UnconditionalBranch if instruction.op0_kind() == OpKind::NearBranch64 => {
                // A jump inside of the bytes at hand is part of the function.
                let target = instruction.near_branch_target();
                let within = target.wrapping_sub(address) < code.len() as u64;
                return (!within).then_some(Jump::To(target));
            }
            FlowControl::Next if matches!(instruction.mnemonic(), Mnemonic::Endbr64 | Mnemonic::Nop) => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_after_endbr_is_all() {
        // endbr64; jmp +0x1000
        let jump = only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0x00, 0x10, 0x00, 0x00], 0x40_0000);
        assert_eq!(jump, Some(Jump::To(0x40_1009)));
        // endbr64; bnd jmp *0x1000(%rip)
        let jump = only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0x00, 0x10, 0x00, 0x00], 0x40_0000);
        assert_eq!(jump, Some(Jump::ByPointer));
        // jmp -0x1000
        assert_eq!(only_jumps(&[0xe9, 0x00, 0xf0, 0xff, 0xff], 0x40_0000), Some(Jump::To(0x3f_f005)));
    }

    #[test]
    fn anything_else_is_a_function() {
        // endbr64; test %rdi,%rdi
        assert_eq!(only_jumps(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff], 0), None);
        // push %rbx
        assert_eq!(only_jumps(&[0x53], 0), None);
        // jmp +0, within the bytes
        assert_eq!(only_jumps(&[0xeb, 0x00, 0x90, 0xc3], 0x40_0000), None);
        assert_eq!(only_jumps(&[], 0), None);
    }
}
