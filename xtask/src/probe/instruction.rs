//! The few BPF instructions that the programs here are made of
//! (Documentation/bpf/standardization/instruction-set.rst).

use std::os::fd::RawFd;

/// An instruction: opcode, source and destination register, offset, immediate.
pub(super) type Instruction = [u8; 8];

/// A register's number. R0 is a call's result, R1 to R5 its arguments, R6 to R9 outlive it, R10 is the end of
/// the stack.
pub(super) type Register = u8;
pub(super) const R0: Register = 0;
pub(super) const R1: Register = 1;
pub(super) const R2: Register = 2;
pub(super) const R3: Register = 3;
pub(super) const R4: Register = 4;
pub(super) const R6: Register = 6;
pub(super) const R7: Register = 7;
pub(super) const R10: Register = 10;

/// Marks the immediate of a 64-bit load as a map's descriptor (`BPF_PSEUDO_MAP_FD`, include/uapi/linux/bpf.h).
const BPF_PSEUDO_MAP_FD: Register = 1;

/// A function of the kernel, by its number (`__BPF_FUNC_MAPPER`, the same file).
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    Time = 5,
    CurrentThread = 14,
    StackId = 27,
    Stack = 67,
}

const fn instruction(opcode: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    let (offset, immediate) = (offset.to_le_bytes(), immediate.to_le_bytes());
    [opcode, from << 4 | to, offset[0], offset[1], immediate[0], immediate[1], immediate[2], immediate[3]]
}

/// `to = value`.
pub(super) const fn set(to: Register, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

/// `to = from`.
pub(super) const fn copy(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to = R10 + offset`: the address of a place on the stack.
pub(super) const fn stack_address(to: Register, offset: i32) -> [Instruction; 2] {
    [copy(to, R10), instruction(0x07, to, 0, 0, offset)]
}

/// `to =` the 8 bytes at `from + offset`.
pub(super) const fn load(to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x79, to, from, offset, 0)
}

/// The 8 bytes at `R10 + offset` `= from`.
pub(super) const fn store_on_stack(offset: i16, from: Register) -> Instruction {
    instruction(0x7b, R10, from, offset, 0)
}

/// `to =` the map with this descriptor. It takes the room of two instructions.
pub(super) const fn load_map(to: Register, map: RawFd) -> [Instruction; 2] {
    [instruction(0x18, to, BPF_PSEUDO_MAP_FD, 0, map), [0; 8]]
}

/// Skips `count` instructions if `register` is 0.
pub(super) const fn skip_if_zero(register: Register, count: i16) -> Instruction {
    instruction(0x15, register, 0, count, 0)
}

/// Calls a function of the kernel.
pub(super) const fn call(helper: Helper) -> Instruction {
    instruction(0x85, 0, 0, 0, helper as i32)
}

/// Ends the program.
pub(super) const fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}
