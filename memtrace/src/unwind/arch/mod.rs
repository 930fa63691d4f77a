//! What is different between architectures: which DWARF registers play which part.

mod aarch64;
mod x86_64;

use gimli::{Operation, Reader, Register};

/// An architecture's part in unwinding, as data. The architecture's own file fills it in.
#[derive(Clone, Copy, Debug)]
pub struct Arch {
    /// The stack pointer.
    pub stack_pointer: Register,
    /// The frame pointer.
    pub frame_pointer: Register,
    /// The third register that rules can speak of.
    pub third: Register,
    /// The column of the table that stands for the return address.
    pub return_address: Register,
    /// Where the return address has to be.
    pub return_address_at: ReturnAddress,
    /// The column of the code's own address, by which stubs of the procedure linkage table are described where
    /// their frames grow by a push.
    pub plt_address: Option<Register>,
}

/// Where a frame's return address is. The kernel program has no more than this one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnAddress {
    /// At this distance from the canonical frame address.
    AtCfa(i64),
    /// In the third register, or where that is saved.
    Third,
}

impl Arch {
    /// That of an ELF file, or `None` if memtrace cannot unwind it.
    pub fn of(architecture: object::Architecture) -> Option<&'static Self> {
        match architecture {
            object::Architecture::X86_64 => Some(&x86_64::ARCH),
            object::Architecture::Aarch64 => Some(&aarch64::ARCH),
            _ => None,
        }
    }

    /// `behind_push`, if these operations are the canonical frame address that linkers give to a stub of the
    /// procedure linkage table: `stack pointer + 8 + (((address & 15) >= behind_push) << 3)`.
    pub(super) fn plt_behind_push<R: Reader>(&self, operations: &[Operation<R>]) -> Option<u64> {
        use Operation::{And, Ge, Plus, RegisterOffset, Shl, UnsignedConstant};
        match operations {
            [
                RegisterOffset { register: base, offset: 8, .. },
                RegisterOffset { register: address, offset: 0, .. },
                UnsignedConstant { value: 15 },
                And,
                UnsignedConstant { value: behind_push @ 0..=15 },
                Ge,
                UnsignedConstant { value: 3 },
                Shl,
                Plus,
            ] if *base == self.stack_pointer && Some(*address) == self.plt_address => Some(*behind_push),
            _ => None,
        }
    }
}
