//! x86_64 (System V ABI, AMD64 supplement, figure 3.36).

use gimli::X86_64;

use super::{Arch, ReturnAddress};

pub(super) const ARCH: Arch = Arch {
    stack_pointer: X86_64::RSP,
    frame_pointer: X86_64::RBP,
    third: X86_64::RBX,
    return_address: X86_64::RA,
    return_address_at: ReturnAddress::AtCfa(-8),
    plt_address: Some(X86_64::RA),
};
