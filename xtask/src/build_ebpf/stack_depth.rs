//! How much stack the kernel program takes.
//!
//! A BPF program and all functions that it calls have 512 bytes of stack together (`MAX_BPF_STACK`,
//! include/linux/filter.h). Before Linux 6.8 the verifier adds up a chain of calls with each function's part
//! rounded up to 32 bytes (`check_max_stack_depth`, kernel/bpf/verifier.c); later kernels round to 16 where
//! they compile programs. So an object that a new kernel takes may be refused by an old one, and this finds
//! out without one.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind, SymbolKind};

/// What a chain of calls may take.
pub(super) const LIMIT: u32 = 512;

/// What each function's part is rounded up to.
const GRANULE: u32 = 32;

/// The length of an instruction; the load of a 64-bit constant takes two
/// (Documentation/bpf/standardization/instruction-set.rst, like all numbers below).
const INSTRUCTION: usize = 8;

/// The register that points to the end of a function's stack.
const R10: usize = 10;

/// `LD_IMM64`, which loads the addresses of functions, too.
const LOAD_CONSTANT: u8 = 0x18;

/// `CALL`, and the mark of one of a function of the program (and not of the kernel).
const CALL: u8 = 0x85;
const PSEUDO_CALL: usize = 1;

/// The chain of calls that takes the most.
#[derive(Debug)]
pub(super) struct Chain {
    /// Bytes, with each part rounded up.
    pub(super) bytes: u32,
    /// The functions' names and own bytes, from the program on.
    pub(super) functions: Vec<(String, u32)>,
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (name, own)) in self.functions.iter().enumerate() {
            let arrow = if position == 0 { "" } else { " -> " };
            write!(f, "{arrow}{name} ({own})")?;
        }
        Ok(())
    }
}

/// The chain of calls in the BPF object `content` that takes the most stack.
///
/// # Errors
/// When the object is damaged, or a function calls itself.
pub(super) fn deepest_chain(content: &[u8]) -> Result<Chain> {
    let functions = functions(&object::File::parse(content).context("it is not an ELF file")?)?;
    let mut known = vec![State::Unknown; functions.len()];
    for function in 0..functions.len() {
        measure(&functions, function, &mut known)?;
    }
    let depth = |function: &usize| match known[*function] {
        State::Known(bytes) => bytes,
        State::Unknown | State::Open => 0,
    };
    let mut next = (0..functions.len()).max_by_key(depth);
    let bytes = next.as_ref().map(depth).context("there is no function in it")?;
    let mut chain = Vec::new();
    while let Some(function) = next {
        chain.push((functions[function].name.clone(), functions[function].own));
        next = functions[function].callees.iter().copied().max_by_key(depth);
    }
    Ok(Chain { bytes, functions: chain })
}

/// Of a function: how much it takes with all that it calls.
#[derive(Clone, Copy)]
enum State {
    Unknown,
    /// It is being measured.
    Open,
    Known(u32),
}

fn measure(functions: &[Function], index: usize, known: &mut [State]) -> Result<u32> {
    let function = &functions[index];
    match known[index] {
        State::Known(bytes) => return Ok(bytes),
        State::Open => bail!("{} calls itself, which no kernel takes", function.name),
        State::Unknown => known[index] = State::Open,
    }
    let mut below = 0;
    for callee in &function.callees {
        below = below.max(measure(functions, *callee, known)?);
    }
    let bytes = function.own.max(1).next_multiple_of(GRANULE) + below;
    known[index] = State::Known(bytes);
    Ok(bytes)
}

/// A function of the program.
struct Function {
    name: String,
    /// How many bytes of stack it takes itself.
    own: u32,
    /// Which functions it calls, or gives to the kernel to be called, as `bpf_loop` does.
    callees: Vec<usize>,
}

/// All functions in `elf`.
fn functions(elf: &object::File<'_>) -> Result<Vec<Function>> {
    let symbols: Vec<_> = elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text).collect();
    let mut places = HashMap::new();
    for (index, symbol) in symbols.iter().enumerate() {
        places.insert((symbol.section_index(), symbol.address()), index);
    }
    let mut functions = Vec::new();
    for symbol in &symbols {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
        let section = symbol.section_index().with_context(|| format!("{name} is nowhere"))?;
        let code = elf.section_by_index(section)?.data()?;
        let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
        let code = code.get(range).with_context(|| format!("{name} ends outside of its section"))?;
        let relocated = relocated(elf, section)?;
        let mut callees = Vec::new();
        for reference in references(code) {
            let at = symbol.address() + reference.at as u64;
            let callee = match (relocated.get(&at), reference.from_here) {
                (Some((section, base)), _) => (Some(*section), base.wrapping_add_signed(reference.addend)),
                (None, Some(distance)) => (Some(section), at.wrapping_add_signed(distance)),
                // A constant, or the address of data.
                (None, None) => continue,
            };
            let callee = places.get(&callee);
            callees.push(*callee.with_context(|| format!("what {name} calls at {at:#x} is no function"))?);
        }
        functions.push(Function { name, own: own_depth(code), callees });
    }
    Ok(functions)
}

/// Where the relocations of a section that are of code point to, by their offsets in it: a section, and an offset
/// in that.
fn relocated(elf: &object::File<'_>, section: SectionIndex) -> Result<HashMap<u64, (SectionIndex, u64)>> {
    let mut all = HashMap::new();
    for (offset, relocation) in elf.section_by_index(section)?.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        let symbol = elf.symbol_by_index(symbol)?;
        let Some(section) = symbol.section_index() else { continue };
        if elf.section_by_index(section)?.kind() == SectionKind::Text {
            all.insert(offset, (section, symbol.address()));
        }
    }
    Ok(all)
}

/// An instruction that may name a function of the program.
struct Reference {
    /// Its offset in the function.
    at: usize,
    /// With a relocation: what is added to the place to which that points.
    addend: i64,
    /// Without one: how far the other function is from here, if it names one then.
    from_here: Option<i64>,
}

/// The instructions in `code` that may name functions of the program.
fn references(code: &[u8]) -> Vec<Reference> {
    let mut references = Vec::new();
    for (at, instruction) in instructions(code) {
        let immediate = i64::from(instruction.immediate);
        match (instruction.opcode, instruction.source) {
            (CALL, PSEUDO_CALL) => {
                // It counts instructions, from the next one on.
                let distance = (immediate + 1) * INSTRUCTION as i64;
                references.push(Reference { at, addend: distance, from_here: Some(distance) });
            }
            (LOAD_CONSTANT, _) => references.push(Reference { at, addend: immediate, from_here: None }),
            _ => {}
        }
    }
    references
}

/// How many bytes of its stack the function `code` takes: the place the farthest below `R10` that it reads,
/// writes, or makes a pointer to.
///
/// Pointers are followed from one instruction to the next, which is how the compiler makes them. An index that
/// is added to one is taken for 0.
fn own_depth(code: &[u8]) -> u32 {
    let mut depth = 0;
    // How far the registers point below R10, as far as it is known.
    let mut below: [Option<i64>; 16] = [None; 16];
    below[R10] = Some(0);
    let mut reach = |place: Option<i64>| depth = depth.max(-place.unwrap_or(0));
    for (_, Instruction { opcode, destination, source, offset, immediate }) in instructions(code) {
        let moved = |register: usize| below[register].map(|place: i64| place + i64::from(offset));
        match opcode & 0x07 {
            // LDX.
            0x01 => {
                reach(moved(source));
                below[destination] = None;
            }
            // ST and STX; atomic ones may load into the source register or R0.
            0x02 | 0x03 => {
                reach(moved(destination));
                if opcode & 0xe0 == 0xc0 {
                    (below[source], below[0]) = (None, None);
                }
            }
            // ALU64: MOV from a register, ADD of a constant, ADD of a register.
            0x07 if opcode == 0xbf => below[destination] = below[source],
            0x07 if opcode == 0x07 => {
                below[destination] = below[destination].map(|place| place + i64::from(immediate));
                reach(below[destination]);
            }
            0x07 if opcode == 0x0f => below[destination] = below[destination].or(below[source]),
            // LD, other ALU64, ALU.
            0x00 | 0x04 | 0x07 => below[destination] = None,
            // JMP and JMP32: a call takes R0 to R5; behind JA and EXIT is another path.
            _ => match opcode {
                CALL => below[..6].fill(None),
                0x05 | 0x06 | 0x95 => below[..R10].fill(None),
                _ => {}
            },
        }
    }
    u32::try_from(depth).unwrap_or(u32::MAX)
}

/// An instruction, taken apart.
#[derive(Clone, Copy)]
struct Instruction {
    opcode: u8,
    destination: usize,
    source: usize,
    offset: i16,
    immediate: i32,
}

/// The instructions of `code`, with their offsets.
fn instructions(code: &[u8]) -> Vec<(usize, Instruction)> {
    let mut all = Vec::new();
    let mut slots = code.chunks_exact(INSTRUCTION).enumerate();
    while let Some((slot, bytes)) = slots.next() {
        let instruction = Instruction {
            opcode: bytes[0],
            destination: usize::from(bytes[1] & 0xf),
            source: usize::from(bytes[1] >> 4),
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            immediate: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        if instruction.opcode == LOAD_CONSTANT {
            slots.next();
        }
        all.push((slot * INSTRUCTION, instruction));
    }
    all
}

#[cfg(test)]
mod tests;
