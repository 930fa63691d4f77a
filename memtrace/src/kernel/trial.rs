//! Functions of memtrace itself on which probes are tried and measured.

use std::{arch::global_asm, io};

use procfs::process::Process;

/// A trial function.
pub(crate) type Function = unsafe extern "C" fn(u64) -> u64;

// Each returns its argument, as an allocator returns an address. The first instruction decides how the
// kernel goes on after a probe: it emulates a push, and single-steps a move. They are separate functions
// because the probe of one measurement must not be hit in the next.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.memtrace_trial, \"ax\", @progbits",
    ".p2align 4",
    ".globl memtrace_trial_emulated",
    "memtrace_trial_emulated: push rbp",
    "mov rax, rdi",
    "pop rbp",
    "ret",
    ".p2align 4",
    ".globl memtrace_trial_emulated_free",
    "memtrace_trial_emulated_free: push rbp",
    "mov rax, rdi",
    "pop rbp",
    "ret",
    ".p2align 4",
    ".globl memtrace_trial_stepped_free",
    "memtrace_trial_stepped_free: mov rax, rdi",
    "push rbp",
    "pop rbp",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    /// Its first instruction is emulated.
    #[link_name = "memtrace_trial_emulated"]
    pub(crate) fn emulated(argument: u64) -> u64;
    /// The same once more.
    #[link_name = "memtrace_trial_emulated_free"]
    pub(crate) fn emulated_free(argument: u64) -> u64;
    /// Its first instruction is single-stepped.
    #[link_name = "memtrace_trial_stepped_free"]
    pub(crate) fn stepped_free(argument: u64) -> u64;
}

/// Calls a trial function.
pub(crate) fn call(function: Function) {
    // SAFETY: the trial functions take a number and touch no memory.
    std::hint::black_box(unsafe { std::hint::black_box(function)(64) });
}

/// Where a function of memtrace stands in memtrace's own file.
pub(crate) fn file_offset(function: Function) -> io::Result<u64> {
    let address = function as usize as u64;
    let maps = Process::myself().and_then(|process| process.maps()).map_err(io::Error::other)?;
    maps.iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))
        .map(|map| address - map.address.0 + map.offset)
        .ok_or_else(|| io::Error::other("memtrace does not find its own code in /proc/self/maps"))
}
