//! Where a function's code leads: to which other functions, and by which instructions it returns.

use std::{collections::HashSet, ops::Range};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::elf::ElfImage;

/// Where a call or a jump goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The virtual address in the file, if it is in this one.
    pub(super) address: Option<u64>,
    /// The symbol, if it goes by one: through the procedure linkage table, or a slot that the dynamic loader fills.
    pub(super) name: Option<String>,
}

/// Where an instruction goes, if it calls or jumps to a place that the file tells.
pub(super) fn destination(image: &ElfImage<'_>, instruction: &Instruction) -> Option<Destination> {
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let address = instruction.near_branch_target();
        return Some(stub(image, address).unwrap_or(Destination { address: Some(address), name: None }));
    }
    by_slot(image, instruction)
}

/// `jmp *slot(%rip)` and `call *slot(%rip)`.
fn by_slot(image: &ElfImage<'_>, instruction: &Instruction) -> Option<Destination> {
    let indirect =
        matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall);
    if !indirect || !instruction.is_ip_rel_memory_operand() {
        return None;
    }
    let name = image.slot(instruction.ip_rel_memory_address())?;
    Some(Destination { address: image.definition(name), name: Some(name.to_owned()) })
}

/// The destination of a stub of the procedure linkage table: `jmp *slot(%rip)`, with `endbr64` before it where the
/// file is made for that.
fn stub(image: &ElfImage<'_>, address: u64) -> Option<Destination> {
    let mut instructions = decoder(image.bytes(address, 16), address).into_iter();
    let first = instructions.next()?;
    let jump = if first.mnemonic() == Mnemonic::Endbr64 { instructions.next()? } else { first };
    by_slot(image, &jump)
}

fn decoder(code: &[u8], address: u64) -> Decoder<'_> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
}

/// Where the calls and jumps of some code go that leave it. `address` is that of its first byte.
pub(super) fn destinations(image: &ElfImage<'_>, code: &[u8], address: u64) -> Vec<Destination> {
    let own = address..address + code.len() as u64;
    decoder(code, address)
        .into_iter()
        .filter_map(|instruction| destination(image, &instruction))
        .filter(|to| to.address.is_none_or(|address| !own.contains(&address)))
        .collect()
}

/// How a function ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// The addresses of the `ret` instructions by which it returns, or by which functions return to which it has
    /// handed its call on by a jump.
    pub(super) rets: Vec<u64>,
    /// Where it jumps to.
    pub(super) jumps: Vec<Destination>,
}

/// How many functions, and parts of such, are looked at, and how many bytes of code.
const MAX_PARTS: usize = 24;
const MAX_CODE: u64 = 1 << 16;

impl Ends {
    /// Those of the function at `entry`.
    ///
    /// Unwind tables say where each function goes, and each part of one that the compiler has put elsewhere; so
    /// every instruction in it is seen, and nothing else is taken for code. Jumps through a register are not
    /// followed: those within the function (jump tables) need not be, and of others it is not known where they go.
    ///
    /// # Errors
    /// A clause that can follow "because", when it is not certain what the code is.
    pub(super) fn of(image: &ElfImage<'_>, entry: u64) -> Result<Self, &'static str> {
        let mut ends = Self::default();
        let (mut pending, mut seen, mut size) = (vec![entry], Vec::<Range<u64>>::new(), 0);
        while let Some(address) = pending.pop() {
            if seen.iter().any(|range| range.contains(&address)) {
                continue;
            }
            let range = image.function_range(address).ok_or("no unwind table says where its code ends")?;
            size += range.end - range.start;
            if seen.len() == MAX_PARTS || size > MAX_CODE {
                return Err("it hands its calls on to too much other code");
            }
            ends.add(image, &range)?;
            pending.extend(ends.jumps.iter().filter_map(|to| to.address));
            seen.push(range);
        }
        Ok(ends)
    }

    fn add(&mut self, image: &ElfImage<'_>, range: &Range<u64>) -> Result<(), &'static str> {
        let code = image.bytes(range.start, range.end - range.start);
        if code.len() as u64 != range.end - range.start {
            return Err("its code is not in the file");
        }
        let (mut begins, mut targets) = (HashSet::new(), Vec::new());
        for instruction in decoder(code, range.start) {
            if instruction.is_invalid() {
                return Err("its code cannot be decoded");
            }
            begins.insert(instruction.ip());
            match instruction.flow_control() {
                FlowControl::Return => self.rets.push(instruction.ip()),
                FlowControl::UnconditionalBranch
                | FlowControl::ConditionalBranch
                | FlowControl::IndirectBranch => {
                    let Some(to) = destination(image, &instruction) else { continue };
                    match to.address {
                        Some(address) if range.contains(&address) => targets.push(address),
                        _ => self.jumps.push(to),
                    }
                }
                _ => {}
            }
        }
        match targets.iter().all(|target| begins.contains(target)) {
            true => Ok(()),
            false => Err("its code cannot be decoded"),
        }
    }
}
