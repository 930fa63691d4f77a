//! Where the registers stand, per architecture. The files have the same functions in each.

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) use x86_64::{entry_stack_pointer, frame_pointer, is_entry, return_address, returned_to};
