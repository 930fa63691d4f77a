//! aarch64 (DWARF for the Arm 64-bit Architecture, 4.1).

use gimli::AArch64;

use super::{Arch, ReturnAddress};

pub(super) const ARCH: Arch = Arch {
    stack_pointer: AArch64::SP,
    frame_pointer: AArch64::X29,
    third: AArch64::X30,
    return_address: AArch64::X30,
    return_address_at: ReturnAddress::Third,
    plt_address: None,
};
