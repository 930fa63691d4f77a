//! A heap tracer as they are mostly written, reduced to what none of them leaves out: for each allocation the
//! size is kept from the entry to the return, the stack is taken, and the block is kept until its free.
//! Every probe is at a function's first instruction, and nothing is sampled. bcc's `memleak` does this and
//! adds it up for each stack as well (libbpf-tools/memleak.bpf.c).

use std::mem::offset_of;
use std::path::Path;

use anyhow::Result;
use libc::user_regs_struct;

use super::instruction::{
    Helper, Instruction, R0, R1, R2, R3, R4, R6, R7, call, copy, exit, load, load_map, set, skip_if_zero,
    stack_address, store_on_stack,
};
use super::map::{Kind, Map};
use super::{Leg, Link, Probe, Program, site};

/// The registers with a function's first argument and with its result: `struct pt_regs`, which a uprobe's
/// program gets, begins as this structure does (arch/x86/include/asm/ptrace.h, sys/user.h).
const ARGUMENT: i16 = offset_of!(user_regs_struct, rdi) as i16;
const RESULT: i16 = offset_of!(user_regs_struct, rax) as i16;

/// Frames of a stack at most (`PERF_MAX_STACK_DEPTH`, include/uapi/linux/perf_event.h), as in memleak.
const FRAMES: u32 = 127;
/// Room for calls under way and for stacks, as in memleak.
const CALLS: u32 = 10_240;
/// Room for blocks: more than the benchmark's target has.
const BLOCKS: u32 = 65_536;
/// `BPF_F_USER_STACK`, include/uapi/linux/bpf.h.
pub(super) const USER_STACK: i32 = 1 << 8;

/// Its tables.
struct Tables {
    /// By thread: the size that is asked for.
    sizes: Map,
    /// By address: size, time and stack of a block.
    blocks: Map,
    stacks: Map,
}

/// Attaches it to malloc and free in the C library `path`, for the process `pid` alone.
///
/// # Errors
/// As for [`Probe::attach`].
pub(crate) fn attach(path: &Path, pid: u32) -> Result<Vec<Probe>> {
    let tables = Tables {
        sizes: Map::new(Kind::Hash, 8, 8, CALLS)?,
        blocks: Map::new(Kind::Hash, 8, 24, BLOCKS)?,
        stacks: Map::new(Kind::StackTrace, 4, FRAMES * 8, CALLS)?,
    };
    let probe = |function, leg, instructions: &[Instruction]| {
        let offset = site::entry(path, function)?.offset;
        Probe::attach(&Program::load(instructions, Link::Perf)?, path, offset, leg, pid)
    };
    Ok(vec![
        probe("free", Leg::Entry, &freed(&tables))?,
        probe("malloc", Leg::Return, &returned(&tables))?,
        probe("malloc", Leg::Entry, &entered(&tables))?,
    ])
}

/// `sizes[thread] = argument`.
fn entered(tables: &Tables) -> Vec<Instruction> {
    [
        &[load(R7, R1, ARGUMENT), store_on_stack(-16, R7)][..],
        &[call(Helper::CurrentThread), store_on_stack(-8, R0)],
        &load_map(R1, tables.sizes.fd()),
        &stack_address(R2, -8),
        &stack_address(R3, -16),
        &[set(R4, 0), call(Helper::MapUpdate)],
        &[set(R0, 0), exit()],
    ]
    .concat()
}

/// `blocks[result] = { sizes[thread], time, stack }`, and `sizes[thread]` is deleted.
fn returned(tables: &Tables) -> Vec<Instruction> {
    let known = [
        &[load(R7, R0, 0), store_on_stack(-40, R7)][..],
        &load_map(R1, tables.sizes.fd()),
        &stack_address(R2, -8),
        &[call(Helper::MapDelete)],
        &[call(Helper::Time), store_on_stack(-32, R0)],
        &[copy(R1, R6)],
        &load_map(R2, tables.stacks.fd()),
        &[set(R3, USER_STACK), call(Helper::StackId), store_on_stack(-24, R0)],
        &[load(R7, R6, RESULT), store_on_stack(-16, R7)],
        &load_map(R1, tables.blocks.fd()),
        &stack_address(R2, -16),
        &stack_address(R3, -40),
        &[set(R4, 0), call(Helper::MapUpdate)],
    ]
    .concat();
    [
        &[copy(R6, R1), call(Helper::CurrentThread), store_on_stack(-8, R0)][..],
        &load_map(R1, tables.sizes.fd()),
        &stack_address(R2, -8),
        &[call(Helper::MapLookup), skip_if_zero(R0, known.len() as i16)],
        &known,
        &[set(R0, 0), exit()],
    ]
    .concat()
}

/// Deletes `blocks[argument]`.
fn freed(tables: &Tables) -> Vec<Instruction> {
    let known =
        [&load_map(R1, tables.blocks.fd())[..], &stack_address(R2, -8), &[call(Helper::MapDelete)]].concat();
    [
        &[load(R7, R1, ARGUMENT), store_on_stack(-8, R7)][..],
        &load_map(R1, tables.blocks.fd()),
        &stack_address(R2, -8),
        &[call(Helper::MapLookup), skip_if_zero(R0, known.len() as i16)],
        &known,
        &[set(R0, 0), exit()],
    ]
    .concat()
}
