//! Where in a function a probe sits, which decides what it costs.
//!
//! The kernel replaces the probed instruction by a trap. Afterwards it emulates the instruction if it can,
//! and otherwise executes a copy of it with a single step, which is a second trap: three times the price
//! on bare metal, twenty times on some virtual machines. So a probe sits on the first instruction that the
//! kernel emulates, as long as the function's call looks there as it does at the entry:
//!
//! - it is on the straight line from the entry: nothing before it branches, and nothing branches into it;
//! - no argument that is needed has been overwritten;
//! - the stack pointer has not moved, if the return address is to be found.
//!
//! If there is none, the probe sits at the entry.

use std::sync::LazyLock;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use memtrace_common::FunctionKind;
use procfs::KernelVersion;

/// How far a site may be from the entry, in instructions.
const REACH: usize = 24;

/// The place of a probe in its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Distance from the function's entry, in bytes.
    pub offset: u64,
    /// How the kernel will deal with the instruction there.
    pub handling: Handling,
    /// The instruction there, in words such as `push` or `je`.
    pub instruction: String,
    /// Why the probe sits there.
    pub reason: &'static str,
}

/// How the kernel goes on after a probe was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handling {
    /// The probe is a call into the kernel, not a trap (Linux 6.18: arch/x86/kernel/uprobes.c,
    /// `arch_uprobe_optimize`, for the five-byte nop).
    Optimized,
    /// It emulates the instruction.
    Emulated,
    /// It single-steps a copy of the instruction.
    SingleStepped,
}

impl Handling {
    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::Emulated => "emulated",
            Self::SingleStepped => "single-stepped",
        }
    }
}

/// Whether this kernel makes probes on five-byte nops into calls.
static OPTIMIZES_NOPS: LazyLock<bool> =
    LazyLock::new(|| KernelVersion::current().is_ok_and(|version| (version.major, version.minor) >= (6, 18)));

/// What the kernel does with an instruction under a uprobe (arch/x86/kernel/uprobes.c):
/// `branch_setup_xol_ops` emulates jmp, jcc and call with a relative target and one-byte nops;
/// `push_setup_xol_ops` emulates pushing a general register.
fn handling(instruction: &Instruction) -> Handling {
    let relative = instruction.op0_kind() == OpKind::NearBranch64;
    let emulated = match instruction.mnemonic() {
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && instruction.len() <= 2,
        Mnemonic::Nop if instruction.len() == 5 && *OPTIMIZES_NOPS => return Handling::Optimized,
        Mnemonic::Nop => instruction.len() == 1,
        _ => {
            relative
                && (instruction.is_jcc_short_or_near()
                    || instruction.is_jmp_short_or_near()
                    || instruction.is_call_near())
        }
    };
    if emulated { Handling::Emulated } else { Handling::SingleStepped }
}

/// The registers in which a function of this kind gets what the kernel program reads (System V ABI for
/// x86-64, 3.2.3).
fn arguments(kind: FunctionKind) -> &'static [Register] {
    match kind {
        FunctionKind::Malloc | FunctionKind::Free => &[Register::RDI],
        FunctionKind::Calloc | FunctionKind::Realloc => &[Register::RDI, Register::RSI],
        FunctionKind::AlignedAlloc => &[Register::RSI],
        FunctionKind::ReallocArray => &[Register::RDI, Register::RSI, Register::RDX],
        FunctionKind::PosixMemalign => &[Register::RDI, Register::RDX],
        FunctionKind::Other | FunctionKind::OtherFree => {
            &[Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9]
        }
    }
}

/// Chooses the site in a function whose code begins with `code`.
///
/// `code` should be the whole function, so that jumps back to its beginning are seen.
pub fn choose(code: &[u8], kind: FunctionKind) -> Site {
    let decode = || Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter();
    let first = decode().next().unwrap_or_default();
    let entry = |reason| site(&first, reason);
    if handling(&first) != Handling::SingleStepped {
        return entry("the entry itself is cheap");
    }
    let targets: Vec<u64> = decode()
        .filter(|instruction| instruction.op0_kind() == OpKind::NearBranch64)
        .map(|instruction| instruction.near_branch_target())
        .collect();
    let mut factory = InstructionInfoFactory::new();
    for instruction in decode().take(REACH) {
        if instruction.is_invalid() {
            return entry("the code after the entry cannot be decoded");
        }
        if targets.iter().any(|target| *target > 0 && *target <= instruction.ip()) {
            return entry("code jumps back to before the next cheap instruction");
        }
        if handling(&instruction) != Handling::SingleStepped {
            return site(&instruction, "the first instruction that the kernel emulates");
        }
        if instruction.flow_control() != FlowControl::Next {
            return entry("the code branches before the next cheap instruction");
        }
        for used in factory.info(&instruction).used_registers() {
            let writes = !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead);
            let register = used.register().full_register();
            if writes && register == Register::RSP && !kind.frees() {
                return entry("the stack pointer moves before the next cheap instruction");
            }
            if writes && arguments(kind).contains(&register) {
                return entry("an argument is overwritten before the next cheap instruction");
            }
        }
    }
    entry("no cheap instruction is near the entry")
}

/// The site of a statically defined probe, which stands at the beginning of `code`; `None` where there is no `nop`.
pub fn at_nop(code: &[u8]) -> Option<Site> {
    let first = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    (first.mnemonic() == Mnemonic::Nop).then(|| site(&first, "the program has a probe there"))
}

fn site(instruction: &Instruction, reason: &'static str) -> Site {
    Site {
        offset: instruction.ip(),
        handling: handling(instruction),
        instruction: format!("{:?}", instruction.mnemonic()).to_ascii_lowercase(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(code: &[u8], kind: FunctionKind) -> (u64, Handling) {
        let site = choose(code, kind);
        (site.offset, site.handling)
    }

    #[test]
    fn a_push_at_the_entry_is_best() {
        // push r12; push rbp
        assert_eq!(offset(&[0x41, 0x54, 0x55], FunctionKind::Malloc), (0, Handling::Emulated));
    }

    #[test]
    fn a_branch_after_a_test_is_taken() {
        // test rdi,rdi; je +0xb0: glibc's free
        let code = [0x48, 0x85, 0xff, 0x0f, 0x84, 0xb0, 0, 0, 0];
        assert_eq!(offset(&code, FunctionKind::Free), (3, Handling::Emulated));
    }

    #[test]
    fn endbr_is_passed_over() {
        // endbr64; push rbx
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x53];
        assert_eq!(offset(&code, FunctionKind::Malloc), (4, Handling::Emulated));
    }

    #[test]
    fn an_overwritten_argument_forbids_it() {
        // mov rdi,rsi; push rbx
        let code = [0x48, 0x89, 0xf7, 0x53];
        assert_eq!(offset(&code, FunctionKind::Malloc), (0, Handling::SingleStepped));
        // ... but memalign's size is the second argument
        assert_eq!(offset(&code, FunctionKind::AlignedAlloc), (3, Handling::Emulated));
        // xor edi,edi writes all of rdi; je
        assert_eq!(offset(&[0x31, 0xff, 0x74, 0x01], FunctionKind::Malloc), (0, Handling::SingleStepped));
    }

    #[test]
    fn a_moved_stack_pointer_forbids_it_where_the_return_is_needed() {
        // sub rsp,8; je
        let code = [0x48, 0x83, 0xec, 0x08, 0x74, 0x01];
        assert_eq!(offset(&code, FunctionKind::Malloc), (0, Handling::SingleStepped));
        assert_eq!(offset(&code, FunctionKind::Free), (4, Handling::Emulated));
    }

    #[test]
    fn a_jump_back_to_between_forbids_it() {
        // test rdi,rdi; mov rax,rdi; je +0; jmp -8 (to the mov)
        let code = [0x48, 0x85, 0xff, 0x48, 0x89, 0xf8, 0x74, 0x00, 0xeb, 0xf9];
        assert_eq!(offset(&code, FunctionKind::Free), (0, Handling::SingleStepped));
        // Back to the entry itself does no harm: that is a new call.
        let code = [0x48, 0x85, 0xff, 0x48, 0x89, 0xf8, 0x74, 0x00, 0xeb, 0xf6];
        assert_eq!(offset(&code, FunctionKind::Free), (6, Handling::Emulated));
    }

    #[test]
    fn statically_defined_probes_are_nops() {
        assert_eq!(at_nop(&[0x90, 0x53]).map(|site| site.handling), Some(Handling::Emulated));
        assert!(at_nop(&[0x0f, 0x1f, 0x44, 0, 0]).is_some());
        assert_eq!(at_nop(&[0x53, 0x90]), None);
        assert_eq!(at_nop(&[]), None);
    }

    #[test]
    fn nothing_to_decode_is_the_entry() {
        assert_eq!(offset(&[], FunctionKind::Malloc).0, 0);
        assert_eq!(offset(&[0x06, 0x53], FunctionKind::Malloc).0, 0);
    }
}
