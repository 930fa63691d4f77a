//! memtrace's kernel program: every entry point of it.
//!
//! An allocation passes through here twice. At the function's entry it is drawn: most calls end there.
//! A call that was drawn is remembered until the function returns; then its stack is walked and it is
//! entered into the live table and its stack's totals. A free looks its address up in the live table
//! and takes back what the allocation added. Nothing of this needs userspace, so nothing is lost when
//! userspace is slow; the ring buffer carries only stacks that were seen for the first time.
//!
//! A program on a uprobe can be preempted, so nothing here lives in per-CPU memory while it is half
//! written.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomic operations on shared map values")]
#![feature(asm_experimental_arch, core_intrinsics)]

mod allocate;
mod arch;
mod atomic;
mod books;
mod capture;
mod control;
mod counters;
mod diagnostics;
mod events;
mod filter;
mod free;
mod in_flight;
mod inherit;
mod known_rules;
mod nested;
mod newborn;
mod python;
mod returned;
mod sample;
mod stack;
mod task;
mod unwind;
mod usdt;
mod wrappers;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_attach_cookie,
    macros::{btf_tracepoint, uprobe, uretprobe},
    programs::{BtfTracePointContext, ProbeContext, RetProbeContext},
};
use memtrace_common::{EVENT_EXEC, EVENT_LOADER, Probe};

/// Entry of an allocation function. The cookie says which shape it has.
#[uprobe]
pub fn allocate_entry(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    if let Some(probe) = Probe::from_cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }) {
        allocate::entry(&ctx, probe);
    }
    0
}

/// Return of an allocation function.
#[uretprobe]
pub fn allocate_return(ctx: RetProbeContext) -> u32 {
    returned::allocation(&ctx);
    0
}

/// A `ret` at which an allocation function may end that has no return probe, because it may throw.
#[uprobe]
pub fn allocate_ret(ctx: ProbeContext) -> u32 {
    returned::at_ret(&ctx);
    0
}

/// Entry and return of an allocation function, in one: for a uprobe session (Linux 6.13). What the entry
/// returns says whether the return is to be seen (0) or not (1), so that a call that was not drawn pays for
/// no return probe.
///
/// Written out, because the macro `uprobe` makes a program that always returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub extern "C" fn allocate_session(ctx: *mut c_void) -> u32 {
    let ctx = ProbeContext::new(ctx);
    if !arch::is_entry(&ctx) {
        returned::allocation(&RetProbeContext::new(ctx.as_ptr()));
        return 0;
    }
    // SAFETY: the context is the one this program was called with.
    let seen = match Probe::from_cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }) {
        Some(probe) => allocate::entry(&ctx, probe),
        None => false,
    };
    u32::from(!seen)
}

/// Entry of a free function.
#[uprobe]
pub fn free_entry(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    if let Some(probe) = Probe::from_cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }) {
        free::entry(&ctx, probe);
    }
    0
}

/// A statically defined probe of a process that samples its own allocations: it has allocated. The cookie says
/// where the arguments are.
#[uprobe]
pub fn usdt_allocated(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    if let Some(probe) = Probe::from_cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }) {
        usdt::allocated(&ctx, probe);
    }
    0
}

/// The same: it has freed one of those.
#[uprobe]
pub fn usdt_freed(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    if let Some(probe) = Probe::from_cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }) {
        usdt::freed(&ctx, probe);
    }
    0
}

/// The dynamic loader's `_dl_debug_state`, which it calls before and after it changes the list of loaded
/// objects, so that debuggers can follow (System V `r_debug` protocol, `<link.h>`).
#[uprobe]
pub fn loader_changed(_ctx: ProbeContext) -> u32 {
    events::image_changed(EVENT_LOADER);
    0
}

/// A process has executed a new program (`trace_sched_process_exec`, fs/exec.c): before the first
/// instruction of the new program.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> u32 {
    // The thread that has executed it takes over the main thread's id, and with it what that one was doing.
    nested::leave(task::pid_tgid());
    if !events::image_changed(EVENT_EXEC) {
        newborn::exec();
    }
    0
}

/// A process or thread has been created (`trace_task_newtask`, kernel/fork.c), by the current one.
#[btf_tracepoint(function = "task_newtask")]
pub fn task_created(ctx: BtfTracePointContext) -> u32 {
    // The arguments are `struct task_struct *task, u64 clone_flags` (include/trace/events/task.h).
    newborn::created(ctx.arg(0), ctx.arg(1));
    0
}

/// Code in user space has caused a page fault (`trace_page_fault_user`, arch/x86/mm/fault.c).
#[btf_tracepoint(function = "page_fault_user")]
pub fn page_fault(_ctx: BtfTracePointContext) -> u32 {
    newborn::fault();
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used here are open to programs under a GPL-compatible licence only; memtrace is dual
/// licensed MIT or Apache-2.0, and MIT is GPL-compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
