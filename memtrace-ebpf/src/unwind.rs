//! Walking a stack by unwind tables, from frame to frame. See [`memtrace_common::unwind`] for the tables.
//!
//! A frame's caller is found in three steps: the mapping that the address is in, the rule for the address,
//! and what the rule says of the registers. Of these only the return address is read from the stack at
//! once. Where the caller's other registers are saved is remembered, and read if a rule asks for one.
//!
//! All that a walk knows lives in map memory, of whose contents the verifier assumes nothing. (Up to Linux
//! 6.6 it took what was on the stack at the first round of `bpf_loop` for what is there in all rounds.)

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    helpers::{
        bpf_probe_read_user,
        generated::{bpf_for_each_map_elem, bpf_loop},
    },
    macros::{btf_map, map},
    maps::HashMap,
};
use memtrace_common::{
    MAX_FRAMES, NewStack, StackEnd,
    unwind::{
        BLOCK_SHIFT, BlockRows, CfaRule, MAPPING_STEPS, MAX_TABLES, Mapping, MappingsOf, NO_TABLE,
        PAGE_RULES, PAGE_SHIFT, PAGE_WORDS, PackedRule, Page, RegisterRule, Row,
    },
};

use crate::{
    arch::{self, ReturnAddress},
    control,
    known_rules::Question,
    python, wrappers,
};

/// `BPF_F_INNER_MAP` (linux/bpf.h, since 5.10): the inner maps need not all have the same size.
const INNER_MAP: usize = 1 << 12;

/// The unwind tables. Userspace puts in one for each ELF file.
#[btf_map]
static UNWIND_TABLES: ArrayOfMaps<Array<Page, 1, INNER_MAP>, MAX_TABLES> = ArrayOfMaps::new();

/// The executable mappings of all processes. Userspace sets the size.
#[map]
static MAPPINGS: aya_ebpf::maps::Array<Mapping> = aya_ebpf::maps::Array::with_max_entries(1, 0);

/// By process: which of [`MAPPINGS`] are its own.
#[map]
static MAPPINGS_OF: HashMap<u32, MappingsOf> = HashMap::with_max_entries(4096, 0);

/// The most rounds of a walk: one for each frame, and for wrappers that are left out.
const MAX_ROUNDS: u32 = MAX_FRAMES as u32 + 8;

/// Nothing but a number of elements to be called back for.
#[map]
static ROUNDS: aya_ebpf::maps::Array<u32> = aya_ebpf::maps::Array::with_max_entries(MAX_ROUNDS, 0);

/// A register of the frame that the walk has reached.
#[repr(C)]
#[derive(Clone, Copy)]
struct Register {
    /// Its value, unless it is saved.
    value: u64,
    /// Where it is saved, or 0.
    saved_at: u64,
}

/// Where a register is saved that cannot be known. Nothing can be read there.
const NOWHERE: u64 = 1;

impl Register {
    /// Its value, wherever that is.
    #[inline(always)]
    fn read(&self) -> Option<u64> {
        if self.saved_at == 0 { Some(self.value) } else { read(self.saved_at) }
    }
}

/// A walk from frame to frame.
#[repr(C)]
pub(crate) struct Walk {
    /// Where the code of this frame goes on.
    address: u64,
    /// 0 where `address` is what a call returns to; 1 where the code was interrupted at it.
    interrupted: u64,
    stack_pointer: u64,
    /// 1 where this frame was found by a frame pointer.
    by_frame_pointer: u64,
    frame_pointer: Register,
    third: Register,
    /// The mapping of the last frame: mostly that of the next, too.
    mapping: Mapping,
    mappings: MappingsOf,
    /// The identity of what was found.
    pub(crate) hash: u64,
    /// What was found.
    pub(crate) stack: NewStack,
    /// Room for the walk of Python frames.
    pub(crate) python: python::Read,
}

/// One step of the hash that is a stack's identity: multiply and fold, as in MurmurHash3's finalizer.
#[inline(always)]
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    let hash = (hash ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 32)
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: a read of user memory through the helper, which checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

/// Two words that stand next to each other.
#[inline(always)]
fn read_pair(address: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(address as *const [u64; 2]) }.ok()
}

impl Walk {
    /// Begins a walk of process `tgid` with these registers: at an address that a call has returned to, or where the
    /// code was interrupted.
    #[inline(always)]
    pub(crate) fn begin(&mut self, tgid: u32, at: &arch::Registers) {
        self.address = at.address;
        self.interrupted = at.interrupted;
        self.stack_pointer = at.stack_pointer;
        self.by_frame_pointer = 0;
        self.frame_pointer = Register { value: at.frame_pointer, saved_at: 0 };
        self.third = Register { value: at.third, saved_at: 0 };
        self.mapping.start = 0;
        self.mapping.end = 0;
        // SAFETY: the value is copied at once.
        let mappings = unsafe { MAPPINGS_OF.get(&tgid) }.copied();
        self.mappings = mappings.unwrap_or(MappingsOf::new(0, 0, 0));
        self.hash = mix(0, u64::from(tgid));
        self.stack.tgid = tgid;
        self.stack.end = StackEnd::TooDeep as u32;
        self.stack.len = 0;
    }

    /// Goes up to the thread's first function, or as far as possible.
    ///
    /// By a helper that calls back for each round: a loop would be too long for the verifier, which follows
    /// every round of it.
    #[inline(always)]
    pub(crate) fn run(&mut self) {
        let mut this: *mut Self = self;
        let context = (&raw mut this).cast();
        // SAFETY: the callbacks have the signatures that the helpers want, and the context is on the stack.
        unsafe {
            if control::config().loop_helper != 0 {
                bpf_loop(MAX_ROUNDS, next_of_loop as *mut c_void, context, 0);
            } else {
                // Before Linux 5.17, since 5.13.
                let rounds = (&raw const ROUNDS).cast_mut().cast();
                bpf_for_each_map_elem(rounds, next_of_elements as *mut c_void, context, 0);
            }
        }
    }

    /// The address whose rule is asked for: a call may be the last instruction of its function, so that what
    /// it returns to is another one's.
    #[inline(always)]
    fn lookup_address(&self) -> u64 {
        self.address.wrapping_sub(1 ^ self.interrupted)
    }

    /// Takes the frame down and goes on to its caller.
    #[inline(always)]
    fn step(&mut self) -> Result<(), StackEnd> {
        let address = self.lookup_address();
        let len = self.stack.len;
        if len != 0 || !wrappers::hold(self.stack.tgid, address) {
            if len >= MAX_FRAMES as u32 {
                return Err(StackEnd::TooDeep);
            }
            if len >= control::config().max_frames {
                return Err(StackEnd::Truncated);
            }
            self.keep(len);
        }
        let question = Question::new(address, self.mappings.generation);
        if let Some(rule) = question.answer() {
            return self.step_by(rule);
        }
        if address.wrapping_sub(self.mapping.start) >= self.mapping.end.wrapping_sub(self.mapping.start)
            && !self.find_mapping(address)
        {
            return Err(StackEnd::NoMapping);
        }
        let rule = rule(&self.mapping, address);
        if rule.cfa() == CfaRule::None as u64 {
            // A table that begins to speak just here says that no call stands before: something has put the
            // address of a function in the place of a return address, and frame pointers mean nothing here.
            let begins_here = self::rule(&self.mapping, self.address).cfa() != CfaRule::None as u64;
            return if begins_here { Err(StackEnd::NoTable) } else { self.step_by_frame_pointer() };
        }
        if self.mappings.generation == self.mappings.generation_again {
            question.remember(rule);
        }
        self.step_by(rule)
    }

    /// Keeps the frame that the walk has reached, as the one with this number.
    #[inline(always)]
    fn keep(&mut self, number: u32) {
        // What a call returns to is one past the call, and so it is kept where the code was interrupted:
        // whoever reads frames takes one off each.
        let behind = self.lookup_address().wrapping_add(1);
        let place = number as usize;
        if place < MAX_FRAMES {
            self.stack.frames[place] = behind;
            self.stack.python.set_stack_pointer(place, self.stack_pointer);
            self.stack.len = number + 1;
            self.hash = mix(self.hash, behind);
        }
    }

    /// Makes the last mapping that begins at or below `address` the walk's; whether it holds the address.
    #[inline(always)]
    fn find_mapping(&mut self, address: u64) -> bool {
        // Counted from what the verifier does not know, so that it need not follow every value.
        let mut place = u64::from(self.mappings.first);
        let behind = place + u64::from(self.mappings.len);
        let mut step = 1 << (MAPPING_STEPS - 1);
        while step > 0 {
            let next = place + step;
            if let Some(mapping) = MAPPINGS.get(next as u32) {
                let fits = is_less(next, behind) & (1 ^ is_less(address, mapping.start));
                place += step * fits;
            }
            step >>= 1;
        }
        let Some(mapping) = MAPPINGS.get(place as u32) else { return false };
        self.mapping = *mapping;
        self.mappings.len != 0 && mapping.start <= address && address < mapping.end
    }

    #[inline(always)]
    fn step_by(&mut self, rule: PackedRule) -> Result<(), StackEnd> {
        const ROOT: u64 = CfaRule::Root as u64;
        const STACK_POINTER: u64 = CfaRule::StackPointer as u64;
        const FRAME_POINTER: u64 = CfaRule::FramePointer as u64;
        const THIRD: u64 = CfaRule::Third as u64;
        const AT_FRAME_POINTER: u64 = CfaRule::AtFramePointer as u64;
        const AT_STACK_POINTER: u64 = CfaRule::AtStackPointer as u64;
        const PLT: u64 = CfaRule::Plt as u64;
        const SIGNAL: u64 = CfaRule::Signal as u64;

        let offset = rule.cfa_offset() as u64;
        let cfa = match rule.cfa() {
            STACK_POINTER => Some(self.stack_pointer.wrapping_add(offset)),
            FRAME_POINTER => self.frame_pointer.read().map(|value| value.wrapping_add(offset)),
            THIRD => self.third.read().map(|value| value.wrapping_add(offset)),
            AT_FRAME_POINTER => self.frame_pointer.read().and_then(|value| read(value.wrapping_add(offset))),
            AT_STACK_POINTER => read(self.stack_pointer.wrapping_add(offset)),
            PLT => {
                let pushed = arch::plt_stub_has_pushed(self.address, (rule.third_offset() >> 3) as u64);
                Some(self.stack_pointer.wrapping_add(offset).wrapping_add(pushed))
            }
            SIGNAL => return self.step_out_of_signal(),
            ROOT => return Err(StackEnd::Root),
            _ => return Err(StackEnd::Unsupported),
        };
        let Some(cfa) = cfa else { return Err(StackEnd::Unreadable) };
        // The stack grows down, so a caller's frame is above.
        if cfa <= self.stack_pointer {
            return Err(StackEnd::Unreadable);
        }
        let third = match rule.cfa() {
            // The place of its offset is taken.
            PLT => self.third,
            _ => self.caller_of(self.third, rule.third(), rule.third_offset(), cfa),
        };
        self.frame_pointer =
            self.caller_of(self.frame_pointer, rule.frame_pointer(), rule.frame_pointer_offset(), cfa);
        self.third = third;
        let address = match arch::RETURN_ADDRESS {
            // Code that keeps frame pointers saves them next to the return address: both take one read.
            ReturnAddress::AtCfa(offset)
                if self.frame_pointer.saved_at == cfa.wrapping_add_signed(offset - 8) =>
            {
                let pair = read_pair(self.frame_pointer.saved_at);
                if let Some([frame_pointer, _]) = pair {
                    self.frame_pointer = Register { value: frame_pointer, saved_at: 0 };
                }
                pair.map(|[_, address]| address)
            }
            ReturnAddress::AtCfa(offset) => read(cfa.wrapping_add_signed(offset)),
            ReturnAddress::Third => self.third.read(),
        };
        self.return_to(address, cfa)
    }

    /// What the caller has in a register.
    #[inline(always)]
    fn caller_of(&self, register: Register, rule: u64, offset: i64, cfa: u64) -> Register {
        const AT_CFA: u64 = RegisterRule::AtCfa as u64;
        const AT_FRAME_POINTER: u64 = RegisterRule::AtFramePointer as u64;
        const SAME: u64 = RegisterRule::Same as u64;
        let saved_at = match rule {
            SAME => return register,
            AT_CFA => cfa.wrapping_add_signed(offset),
            AT_FRAME_POINTER => {
                self.frame_pointer.read().map_or(NOWHERE, |value| value.wrapping_add_signed(offset))
            }
            _ => NOWHERE,
        };
        Register { value: 0, saved_at }
    }

    /// Goes on at what a frame returns to.
    #[inline(always)]
    fn return_to(&mut self, address: Option<u64>, stack_pointer: u64) -> Result<(), StackEnd> {
        let Some(address) = address else { return Err(StackEnd::Unreadable) };
        // What starts a thread puts a null pointer where its first function would return to.
        if address == 0 {
            return Err(StackEnd::Root);
        }
        self.address = address;
        self.interrupted = 0;
        self.stack_pointer = stack_pointer;
        self.by_frame_pointer = 0;
        Ok(())
    }

    /// The code here has no table. Code that is made at run time mostly keeps frame pointers; code that
    /// starts a program sets it to 0 (System V ABI, AMD64, 3.4.1). That is the end of a chain of frame pointers; where
    /// nothing says that there is such a chain, a 0 is any function's number.
    #[inline(always)]
    fn step_by_frame_pointer(&mut self) -> Result<(), StackEnd> {
        let Some(frame_pointer) = self.frame_pointer.read() else { return Err(StackEnd::NoTable) };
        let end = if self.by_frame_pointer != 0 { StackEnd::Root } else { StackEnd::NoTable };
        if frame_pointer == 0 {
            return Err(end);
        }
        if frame_pointer < self.stack_pointer || frame_pointer & 7 != 0 {
            return Err(StackEnd::NoTable);
        }
        let (Some(next), address) = (read(frame_pointer), read(frame_pointer.wrapping_add(8))) else {
            return Err(StackEnd::NoTable);
        };
        if address == Some(0) {
            return Err(end);
        }
        self.frame_pointer = Register { value: next, saved_at: 0 };
        self.return_to(address, frame_pointer.wrapping_add(16))?;
        self.by_frame_pointer = 1;
        Ok(())
    }

    /// The kernel has saved all registers when it called the handler.
    #[inline(always)]
    fn step_out_of_signal(&mut self) -> Result<(), StackEnd> {
        let Some(at) = arch::interrupted(self.stack_pointer) else { return Err(StackEnd::Unreadable) };
        self.address = at.address;
        self.interrupted = at.interrupted;
        self.stack_pointer = at.stack_pointer;
        self.by_frame_pointer = 0;
        self.frame_pointer = Register { value: at.frame_pointer, saved_at: 0 };
        self.third = Register { value: at.third, saved_at: 0 };
        Ok(())
    }
}

/// The rule for an address in a mapping; that there is none where there is no table or it does not go so far.
#[inline(always)]
fn rule(mapping: &Mapping, address: u64) -> PackedRule {
    find_rule(mapping, address).unwrap_or(PackedRule(CfaRule::None as u64))
}

#[inline(always)]
fn find_rule(mapping: &Mapping, address: u64) -> Option<PackedRule> {
    if mapping.table == NO_TABLE {
        return None;
    }
    let table = UNWIND_TABLES.get(mapping.table)?;
    let offset = address.wrapping_sub(mapping.bias);
    let block = offset >> BLOCK_SHIFT;
    if block >= 1 << 24 {
        return None;
    }
    let index = table.get((block >> PAGE_SHIFT) as u32)?;
    let rows = BlockRows::from_word(index[block as usize & (PAGE_WORDS - 1)]);
    let page = table.get(rows.page)?;
    let number = find_row(page, rows, offset as u32 & 0xff).rule;
    let rules = table.get(mapping.rules.wrapping_add(number / PAGE_RULES as u32))?;
    let word = (number as usize & (PAGE_RULES - 1)) * 2;
    Some(PackedRule(u64::from(rules[word]) | u64::from(rules[word + 1]) << 32))
}

/// The last row at or before `offset`; the first one is at 0.
///
/// Without branches: the verifier would follow each way through the search.
#[inline(always)]
fn find_row(page: &Page, rows: BlockRows, offset: u32) -> Row {
    let last = u64::from(rows.first + rows.more);
    // Rows have the order of their offsets, so all bits below do no harm.
    let limit = u64::from(offset << 24 | 0xff_ffff);
    let mut below = u64::from(rows.first);
    let mut step = 1 << (PAGE_SHIFT - 1);
    while step > 0 {
        let next = below + step;
        let word = u64::from(page[next as usize & (PAGE_WORDS - 1)]);
        let over = is_less(last, next) | is_less(limit, word);
        below = (below + step * (1 ^ over)) & (PAGE_WORDS as u64 - 1);
        step >>= 1;
    }
    Row::from_word(page[below as usize])
}

/// 1 where `a < b`, 0 where not, for numbers below 2^63. The compiler is kept from making a branch of it.
#[inline(always)]
fn is_less(a: u64, b: u64) -> u64 {
    let mut sign = a.wrapping_sub(b);
    // SAFETY: a shift of a register.
    unsafe { core::arch::asm!("{0} >>= 63", inout(reg) sign, options(pure, nomem, nostack)) };
    sign
}

/// One step of a walk; 1 where it is over.
#[inline(never)]
fn next(walk: &mut Walk) -> u64 {
    match walk.step() {
        Ok(()) => 0,
        Err(end) => {
            walk.stack.end = end as u32;
            if walk.stack.len == 0 {
                // It ended in a wrapper, which then is all that is known.
                walk.keep(0);
            }
            1
        }
    }
}

/// The callback of `bpf_loop`.
unsafe extern "C" fn next_of_loop(_round: u64, walk: *mut c_void) -> u64 {
    // SAFETY: it is the context that was given to the helper.
    next(unsafe { &mut **walk.cast::<*mut Walk>() })
}

/// The callback of `bpf_for_each_map_elem`.
unsafe extern "C" fn next_of_elements(
    _map: *mut c_void,
    _key: *mut c_void,
    _value: *mut c_void,
    walk: *mut c_void,
) -> u64 {
    // SAFETY: it is the context that was given to the helper.
    next(unsafe { &mut **walk.cast::<*mut Walk>() })
}
