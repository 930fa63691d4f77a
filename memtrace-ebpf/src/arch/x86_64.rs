//! x86-64, System V calling convention.

use core::{arch::asm, mem::offset_of};

use super::{Registers, ReturnAddress};
use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_user, generated::bpf_get_func_ip},
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

/// The argument of a function that has this number, from 0 (System V ABI, AMD64, 3.2.3). For numbers that the
/// compiler does not know.
///
/// In assembly, because the compiler would make one load at a variable distance of these, and the verifier allows
/// only constant ones from the context.
#[inline(always)]
pub(crate) fn argument(ctx: &ProbeContext, number: u8) -> u64 {
    macro_rules! load {
        ($register:ident) => {{
            let value: u64;
            // SAFETY: it reads a member of the registers, which are the context of this program.
            unsafe {
                asm!(
                    "{value} = *(u64 *)({regs} + {offset})",
                    value = out(reg) value,
                    regs = in(reg) ctx.regs,
                    offset = const offset_of!(pt_regs, $register),
                );
            }
            value
        }};
    }
    match number {
        0 => load!(rdi),
        1 => load!(rsi),
        2 => load!(rdx),
        3 => load!(rcx),
        4 => load!(r8),
        _ => load!(r9),
    }
}

/// Where each register stands among all of them, in the order of their numbers in DWARF (System V ABI, AMD64,
/// figure 3.36).
static OFFSETS: [u8; 16] = [
    offset_of!(pt_regs, rax) as u8,
    offset_of!(pt_regs, rdx) as u8,
    offset_of!(pt_regs, rcx) as u8,
    offset_of!(pt_regs, rbx) as u8,
    offset_of!(pt_regs, rsi) as u8,
    offset_of!(pt_regs, rdi) as u8,
    offset_of!(pt_regs, rbp) as u8,
    offset_of!(pt_regs, rsp) as u8,
    offset_of!(pt_regs, r8) as u8,
    offset_of!(pt_regs, r9) as u8,
    offset_of!(pt_regs, r10) as u8,
    offset_of!(pt_regs, r11) as u8,
    offset_of!(pt_regs, r12) as u8,
    offset_of!(pt_regs, r13) as u8,
    offset_of!(pt_regs, r14) as u8,
    offset_of!(pt_regs, r15) as u8,
];

/// The register that has this number in DWARF. By a helper, which other than a load takes any distance from
/// the context: one branch for each register would have the verifier follow too many ways.
#[inline(always)]
pub(crate) fn register(ctx: &ProbeContext, number: u8) -> Option<u64> {
    let offset = OFFSETS[usize::from(number & 15)];
    // SAFETY: a read through the helper, which checks the address.
    unsafe { bpf_probe_read_kernel(ctx.regs.cast::<u8>().add(offset.into()).cast::<u64>()) }.ok()
}

/// At a probe in the middle of a function: the registers as they are.
#[inline(always)]
pub(crate) fn here(regs: &pt_regs) -> Registers {
    Registers {
        address: regs.rip,
        stack_pointer: regs.rsp,
        frame_pointer: regs.rbp,
        third: regs.rbx,
        interrupted: 1,
    }
}

/// At a return probe: the registers as the caller of the function finds them. `ret` has taken the return
/// address off the stack, and the kernel sets the instruction pointer to the real one before it calls return
/// probes (kernel/events/uprobes.c, `uprobe_handle_trampoline`).
#[inline(always)]
pub(crate) fn returned_to(regs: &pt_regs) -> Registers {
    Registers {
        address: regs.rip,
        stack_pointer: regs.rsp,
        frame_pointer: regs.rbp,
        third: regs.rbx,
        interrupted: 0,
    }
}

/// At a probe on a `ret`: the registers as the caller of the function will find them. The function has put
/// everything back that it must (System V ABI, AMD64, 3.2.1); `ret` will take the return address off the stack.
#[inline(always)]
pub(crate) fn returning_to(regs: &pt_regs) -> Option<Registers> {
    Some(Registers {
        address: return_address(regs)?,
        stack_pointer: regs.rsp.wrapping_add(8),
        frame_pointer: regs.rbp,
        third: regs.rbx,
        interrupted: 0,
    })
}

/// The stack pointer that a function had at its first instruction, by the registers at its return.
#[inline(always)]
pub(crate) fn entry_stack_pointer_of(returned: &Registers) -> u64 {
    returned.stack_pointer.wrapping_sub(8)
}

/// `call` pushes it, and nothing is between it and the caller's frame (System V ABI, AMD64, 3.2.2).
pub(crate) const RETURN_ADDRESS: ReturnAddress = ReturnAddress::AtCfa(-8);

/// In a stub of the procedure linkage table: how much its push has put on the stack when the code is at
/// `address`. Stubs have 16 bytes each, and `behind_push` is the offset of what follows the push (binutils,
/// elf_x86_64_lazy_plt_eh_frame).
#[inline(always)]
pub(crate) fn plt_stub_has_pushed(address: u64, behind_push: u64) -> u64 {
    if address & 15 >= behind_push { 8 } else { 0 }
}

/// Where the registers stand in what the kernel puts on the stack for a signal handler, counted from where
/// the handler's return leaves the stack pointer: `struct ucontext`, whose `uc_mcontext` is at 40
/// (arch/x86/include/uapi/asm/sigcontext.h, `struct sigcontext_64`).
const SAVED_RBP: u64 = 40 + 10 * 8;
const SAVED_RBX: u64 = 40 + 11 * 8;
const SAVED_RSP: u64 = 40 + 15 * 8;
const SAVED_RIP: u64 = 40 + 16 * 8;

/// The registers of the code that a signal has interrupted.
#[inline(always)]
pub(crate) fn interrupted(stack_pointer: u64) -> Option<Registers> {
    // SAFETY: reads of user memory through the helper, which checks the address.
    let read = |offset| unsafe { bpf_probe_read_user(stack_pointer.wrapping_add(offset) as *const u64) }.ok();
    Some(Registers {
        address: read(SAVED_RIP)?,
        stack_pointer: read(SAVED_RSP)?,
        frame_pointer: read(SAVED_RBP)?,
        third: read(SAVED_RBX)?,
        interrupted: 1,
    })
}
