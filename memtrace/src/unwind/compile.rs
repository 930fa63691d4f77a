//! From call frame information to rows: from which address on which rule holds.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CommonInformationEntry, DebugFrame, EhFrame, Encoding, EndianSlice, Format, LittleEndian,
    UnwindContext, UnwindOffset, UnwindSection, Vendor,
};
use memtrace_common::unwind::{CfaRule, Rule};

use super::ranges::{self, Function};
use super::rule::Reading;
use super::sections::{Cfi, Section};

/// A common information entry may not be longer, in bytes. Real ones are not half as long. As each function
/// begins with the instructions of one, long ones would make compiling take quadratic time.
const MAX_CIE: usize = 512;

/// How many bytes of code from a process's first instruction on are taken for its first function where nothing else is
/// said. glibc's loader calls the initializers of libraries from within the first 48 (sysdeps/x86_64/dl-machine.h,
/// `RTLD_START`).
const ENTRY: u64 = 64;

/// Why a file has no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Headers that lead nowhere.
    #[error("it is not a valid ELF file: {0}")]
    Malformed(#[from] object::read::Error),
    /// Something else.
    #[error("it is not an ELF file")]
    NotElf,
    /// Neither x86_64 nor aarch64.
    #[error("it is not for an architecture whose stacks memtrace can unwind")]
    Architecture,
    /// No `.eh_frame` and no `.debug_frame`, or nothing in them.
    #[error("it has no call frame information")]
    NoCfi,
}

/// What was found, and what could not be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Functions (frame description entries) whose rows are there.
    pub functions: u64,
    /// Functions that were left out because their entry is malformed.
    pub malformed: u64,
    /// Functions that were left out because the file has no code of theirs: the linker dropped it, or there
    /// never was any.
    pub outside: u64,
    /// Rows that need more than a rule can say.
    pub unsupported: u64,
}

/// For all code of a file, how to get from a frame to its caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// From which address on which rule holds, as a place in `rules`: in order, and no two of the same
    /// address. Up to the first row, and from the last one on, there is no rule.
    pub rows: Vec<(u64, u32)>,
    /// The rules, packed, each once. The first one is that there is none.
    pub rules: Vec<u64>,
    /// What was found.
    pub counts: Counts,
}

/// Compiles what a file says about its frames. Where `.eh_frame` is silent, `.debug_frame` speaks.
///
/// # Errors
/// When there is nothing.
pub fn compile(cfi: &Cfi<'_>) -> Result<Rows, CompileError> {
    let mut compiler = Compiler::new(cfi);
    if let Some(section) = &cfi.eh_frame {
        let mut frames = EhFrame::new(&section.data, LittleEndian);
        frames.set_vendor(vendor(cfi));
        compiler.section(&frames, section, &cfi.bases, 0);
    }
    let functions = ranges::in_order(std::mem::take(&mut compiler.functions));
    if let Some(section) = &cfi.debug_frame {
        let mut frames = DebugFrame::new(&section.data, LittleEndian);
        frames.set_vendor(vendor(cfi));
        frames.set_address_size(8);
        compiler.section(&frames, section, &cfi.bases, u64::from(u32::MAX));
    }
    let others = ranges::in_order(std::mem::take(&mut compiler.functions));
    let functions = if others.is_empty() { functions } else { ranges::fill_gaps(functions, others) };
    if functions.is_empty() {
        return Err(CompileError::NoCfi);
    }
    let functions = match compiler.entry() {
        Some(entry) => ranges::fill_gaps(functions, vec![entry]),
        None => functions,
    };
    Ok(compiler.finish(&functions))
}

fn vendor(cfi: &Cfi<'_>) -> Vendor {
    if cfi.arch.return_address == gimli::AArch64::X30 { Vendor::AArch64 } else { Vendor::Default }
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

struct Compiler<'a> {
    cfi: &'a Cfi<'a>,
    functions: Vec<Function>,
    /// As in [`Rows`], but in the order of the section.
    rows: Vec<(u64, u32)>,
    rules: Vec<u64>,
    numbers: HashMap<u64, u32>,
    counts: Counts,
}

impl<'a> Compiler<'a> {
    fn new(cfi: &'a Cfi<'a>) -> Self {
        let mut compiler = Self {
            cfi,
            functions: Vec::new(),
            rows: Vec::new(),
            rules: Vec::new(),
            numbers: HashMap::new(),
            counts: Counts::default(),
        };
        compiler.number(Rule::default());
        compiler
    }

    /// The rule's number.
    fn number(&mut self, rule: Rule) -> u32 {
        self.counts.unsupported += u64::from(rule.cfa == CfaRule::Unsupported);
        let unsupported = Rule { cfa: CfaRule::Unsupported, ..Rule::default() };
        // Rules that do not fit were made unsupported before, and those fit.
        let packed = rule.packed().or(unsupported.packed()).unwrap_or_default();
        *self.numbers.entry(packed).or_insert_with(|| {
            self.rules.push(packed);
            self.rules.len() as u32 - 1
        })
    }

    /// Takes all functions of a section in. `cie` is what stands in the place of the reference to a common
    /// information entry in such an entry itself.
    fn section<'s, S>(&mut self, frames: &S, section: &Section<'_>, bases: &BaseAddresses, cie: u64)
    where
        S: UnwindSection<Bytes<'s>>,
    {
        let mut context = UnwindContext::new();
        let mut known = HashMap::new();
        let mut at = 0;
        while let Some(entry) = Entry::at(&section.data, at) {
            let offset = at;
            at = entry.end;
            if entry.is_empty() {
                if section.ends_at_terminator {
                    break;
                }
                continue;
            }
            if entry.id == cie || (entry.is_64 && cie != 0 && entry.id == u64::MAX) {
                continue;
            }
            let read = frames.partial_fde_from_offset(bases, S::Offset::from(offset)).and_then(|partial| {
                partial.parse(|frames, bases, offset| {
                    let cie = known.entry(UnwindOffset::into(offset)).or_insert_with(|| {
                        frames.cie_from_offset(bases, offset).ok().filter(|cie| cie.entry_len() <= MAX_CIE)
                    });
                    cie.clone().ok_or(gimli::Error::NotCieId(0))
                })
            });
            let Ok(fde) = read else {
                self.counts.malformed += 1;
                continue;
            };
            let first = self.rows.len();
            match self.function(frames, bases, &mut context, &fde) {
                Some(true) => self.counts.functions += 1,
                Some(false) => self.counts.outside += 1,
                None => {
                    self.counts.malformed += 1;
                    self.rows.truncate(first);
                }
            }
        }
    }

    /// Takes a function in: `None` if it is malformed, and whether it is in the file's code.
    fn function<'s, S>(
        &mut self,
        frames: &S,
        bases: &BaseAddresses,
        context: &mut UnwindContext<usize>,
        fde: &gimli::FrameDescriptionEntry<Bytes<'s>>,
    ) -> Option<bool>
    where
        S: UnwindSection<Bytes<'s>>,
    {
        let cie: &CommonInformationEntry<_> = fde.cie();
        let start = fde.initial_address();
        let Some(segment) = self.cfi.executable.iter().find(|range| range.contains(&start)) else {
            return Some(false);
        };
        let code = start..start.checked_add(fde.len())?.min(segment.end);
        // What is left of a function that can never be reached may have no instructions.
        if code.is_empty() {
            return Some(false);
        }
        if cie.return_address_register() != self.cfi.arch.return_address {
            return None;
        }
        let first = self.rows.len();
        if cie.is_signal_trampoline() {
            let rule = self.number(Rule { cfa: CfaRule::Signal, ..Rule::default() });
            self.rows.push((start, rule));
        } else {
            let encoding = Encoding { address_size: cie.address_size(), format: Format::Dwarf32, version: 4 };
            let reading = Reading { arch: self.cfi.arch, section: frames, encoding };
            let mut table = fde.rows(frames, bases, context).ok()?;
            let mut last = None;
            while let Some(row) = table.next_row().ok()? {
                let start = row.start_address();
                // `DW_CFA_advance_loc` may lead past the end, and wrap.
                if start >= code.end || start < code.start {
                    break;
                }
                let rule = reading.rule(row);
                match last {
                    Some((_, at)) if at == start => {
                        self.rows.pop();
                    }
                    Some((known, _)) if known == rule => continue,
                    _ => {}
                }
                let number = self.number(rule);
                self.rows.push((start, number));
                last = Some((rule, start));
            }
        }
        self.functions.push(Function { code, rows: first..self.rows.len() });
        Some(true)
    }

    /// Where a process begins, which has no caller. It is mostly written in assembly, and not described.
    fn entry(&mut self) -> Option<Function> {
        let start = self.cfi.entry?;
        let segment = self.cfi.executable.iter().find(|range| range.contains(&start))?;
        let code = start..(start + ENTRY).min(segment.end);
        let rule = self.number(Rule { cfa: CfaRule::Root, ..Rule::default() });
        self.rows.push((start, rule));
        Some(Function { code, rows: self.rows.len() - 1..self.rows.len() })
    }

    fn finish(self, functions: &[Function]) -> Rows {
        let mut rows = Vec::with_capacity(self.rows.len() + self.rows.len() / 8);
        let mut push = |address, rule| {
            if rows.last().is_none_or(|&(_, last)| last != rule) {
                rows.push((address, rule));
            }
        };
        let mut covered = functions.first().map_or(0, |function| function.code.start);
        for Function { code, rows: own } in functions {
            if covered < code.start {
                push(covered, 0);
            }
            for (address, rule) in within(&self.rows[own.clone()], code) {
                push(address, rule);
            }
            covered = code.end;
        }
        push(covered, 0);
        Rows { rows, rules: self.rules, counts: self.counts }
    }
}

/// The rows of a function that hold in `code`, which is the function's or a part of it.
fn within<'a>(rows: &'a [(u64, u32)], code: &'a Range<u64>) -> impl Iterator<Item = (u64, u32)> + 'a {
    let first = rows.partition_point(|(address, _)| *address <= code.start).saturating_sub(1);
    let rows = rows[first..].iter().take_while(|(address, _)| *address < code.end);
    rows.map(|&(address, rule)| (address.max(code.start), rule))
}

/// The beginning of an entry of a section (DWARF 5, 6.4.1 and 7.2.2; Linux Standard Base, 10.6.1).
struct Entry {
    end: usize,
    len: u64,
    id: u64,
    is_64: bool,
}

impl Entry {
    /// The entry at a place of a section; `None` at the section's end, or where no entry can be.
    fn at(section: &[u8], start: usize) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*section.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*section.get(at..)?.first_chunk()?));
        let short = word(start)?;
        let is_64 = short == u32::MAX;
        let (content, len) = if is_64 { (start + 12, long(start + 4)?) } else { (start + 4, short.into()) };
        let end = content.checked_add(usize::try_from(len).ok()?)?;
        if end > section.len() {
            return None;
        }
        let id = if len < 4 { 0 } else { word(content)?.into() };
        let id = if is_64 && len >= 8 && id == u64::from(u32::MAX) { long(content)? } else { id };
        Some(Self { end, len, id, is_64 })
    }

    /// Whether it only says that no more come.
    fn is_empty(&self) -> bool {
        self.len == 0
    }
}
