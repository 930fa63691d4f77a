//! Finding out whether probes on `PyObject_Malloc` see the objects of a Python interpreter.
//!
//! `PyObject_Malloc` calls a function that a table in memory names (`_PyObject` in Objects/obmalloc.c: a context, then
//! `malloc`, `calloc`, `realloc` and `free`). Where the interpreter is compiled as a whole (`--with-lto`, as
//! distributions do), the compiler copies `PyObject_Malloc` into functions that make objects often. A copy reads
//! the table, too, and that is how it is found.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::elf::{ElfImage, FunctionSymbol};

/// Where the function `malloc` stands in the table, in bytes.
const MALLOC: u64 = 8;

/// So many places may read the table for other reasons: to set it, to tell its contents, to ask whether `pymalloc` is
/// in use. In builds without copies of 3.11.7 there are six.
const OTHERS: usize = 12;

/// In how many places an interpreter allocates objects by a copy of `PyObject_Malloc`. 0 where there are hardly any, or
/// the table is not found: since 3.12 it is a part of `_PyRuntime`, which shared libraries reach in another way.
pub(super) fn count(image: &ElfImage<'_>, functions: &[FunctionSymbol]) -> u64 {
    let read_by = |name: &str| {
        let function = functions.iter().find(|function| function.name == name)?;
        Some(data(image.code(function), function.address).map(|(_, address)| address).collect::<HashSet<_>>())
    };
    let (Some(malloc), Some(free)) = (read_by("PyObject_Malloc"), read_by("PyObject_Free")) else { return 0 };
    // Both read the context and their own function.
    let Some(table) = malloc.intersection(&free).copied().find(|table| malloc.contains(&(table + MALLOC)))
    else {
        return 0;
    };
    let places = image.executable_segments().flat_map(|(address, code)| data(code, address));
    let copies = places.filter(|(_, address)| *address == table + MALLOC).count();
    if copies > OTHERS { copies as u64 } else { 0 }
}

/// The instructions of some code that use data at a fixed place: where each is, and its data's address.
fn data(code: &[u8], address: u64) -> impl Iterator<Item = (u64, u64)> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let fixed = |instruction: &Instruction| {
        let is_fixed = instruction.is_ip_rel_memory_operand();
        is_fixed.then(|| (instruction.ip(), instruction.ip_rel_memory_address()))
    };
    decoder.into_iter().filter_map(move |instruction| fixed(&instruction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_at_a_fixed_place_is_found() {
        // mov 0x10(%rip),%rax; push %rbx; jmp *0x20(%rip)
        let code = [0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0x53, 0xff, 0x25, 0x20, 0, 0, 0];
        let found: Vec<_> = data(&code, 0x1000).collect();
        assert_eq!(found, [(0x1000, 0x1017), (0x1008, 0x102e)]);
    }
}
