//! x86-64, System V calling convention.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{bpf_probe_read_user, generated::bpf_get_func_ip},
    programs::ProbeContext,
};

/// In a program that runs at a function's entry and at its return: which of the two this is. At the entry
/// the instruction pointer is at the probe; at the return it is where the function returns to, while the
/// kernel still gives the probe's address as that of the function (kernel/trace/bpf_trace.c,
/// `bpf_uprobe_multi_entry_ip`).
#[inline(always)]
pub(crate) fn is_entry(ctx: &ProbeContext) -> bool {
    // SAFETY: the context and its registers are those this program was called with.
    unsafe { (*ctx.regs).rip == bpf_get_func_ip(ctx.as_ptr()) }
}

/// The stack pointer as it is at a function's first instruction: the return address stands there.
#[inline(always)]
pub(crate) fn entry_stack_pointer(regs: &pt_regs) -> u64 {
    regs.rsp
}

/// The address that the function will return to. To be asked at its entry. Without it, where the stack
/// cannot be read, `None`.
#[inline(always)]
pub(crate) fn return_address(regs: &pt_regs) -> Option<u64> {
    // SAFETY: a read of user memory through the helper, which checks the address.
    unsafe { bpf_probe_read_user(regs.rsp as *const u64) }.ok()
}

/// At a return probe: the stack pointer that the function had at its entry, and the address that it
/// returns to. `ret` has taken the return address off the stack, and the kernel sets the instruction
/// pointer to the real one before it calls return probes (kernel/events/uprobes.c,
/// `uprobe_handle_trampoline`).
#[inline(always)]
pub(crate) fn returned_to(regs: &pt_regs) -> (u64, u64) {
    (regs.rsp.wrapping_sub(8), regs.rip)
}

/// The frame pointer register.
#[inline(always)]
pub(crate) fn frame_pointer(regs: &pt_regs) -> u64 {
    regs.rbp
}
