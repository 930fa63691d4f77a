//! Where the registers stand, per architecture. The files have the same functions in each.

/// The registers that a walk of the stack needs, at one place of it.
pub(crate) struct Registers {
    /// Where the code goes on.
    pub(crate) address: u64,
    /// The stack pointer there.
    pub(crate) stack_pointer: u64,
    /// The frame pointer.
    pub(crate) frame_pointer: u64,
    /// What [`Rule`](memtrace_common::unwind::Rule) calls the third register.
    pub(crate) third: u64,
    /// 0 where a call returns to the address; 1 where the code was interrupted at it.
    pub(crate) interrupted: u64,
}

/// Where a function finds the address that it returns to.
pub(crate) enum ReturnAddress {
    /// At this distance from the canonical frame address.
    AtCfa(i64),
    /// In the third register, which is saved like others.
    #[expect(dead_code, reason = "so it is on aarch64")]
    Third,
}

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) use x86_64::{
    RETURN_ADDRESS, argument, entry_stack_pointer, entry_stack_pointer_of, here, interrupted, is_entry,
    plt_stub_has_pushed, register, return_address, returned_to, returning_to,
};
