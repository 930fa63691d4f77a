//! The kernel's own walk of a stack, by frame pointers.

use std::path::Path;

use anyhow::Result;

use super::instruction::{
    Helper, Instruction, R0, R1, R2, R3, R4, R6, call, copy, exit, load_map, set, skip_if_zero,
    stack_address, store_on_stack,
};
use super::map::{Kind, Map};
use super::naive::USER_STACK;
use super::{Leg, Link, Probe, Program, site};

/// Attaches a program to the return of malloc in the C library `path`, for the process `pid` alone, that walks
/// the stack until it has `frames` frames. It does nothing else.
///
/// # Errors
/// As for [`Probe::attach_multi`].
pub(crate) fn attach(path: &Path, pid: u32, frames: u32) -> Result<Probe> {
    let buffer = Map::new(Kind::Array, 4, frames * 8, 1)?;
    let program = Program::load(&walk(&buffer, frames), Link::Multi)?;
    Probe::attach_multi(&program, path, &[site::good(path, "malloc")?.offset], Leg::Return, pid)
}

/// The kernel walks no further than the buffer goes (kernel/bpf/stackmap.c, `__bpf_get_stack`).
fn walk(buffer: &Map, frames: u32) -> Vec<Instruction> {
    let walk =
        [copy(R1, R6), copy(R2, R0), set(R3, frames as i32 * 8), set(R4, USER_STACK), call(Helper::Stack)];
    [
        &[copy(R6, R1), set(R1, 0), store_on_stack(-8, R1)][..],
        &load_map(R1, buffer.fd()),
        &stack_address(R2, -8),
        &[call(Helper::MapLookup), skip_if_zero(R0, walk.len() as i16)],
        &walk,
        &[set(R0, 0), exit()],
    ]
    .concat()
}
