//! Where in a function a probe sits, which decides what it costs.
//!
//! A uprobe replaces an instruction. The kernel emulates some instructions; all others it executes out
//! of line with a single step, which is a second trap (2x on bare metal, 20x on some virtual machines).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, Mnemonic, OpKind,
};
use object::{Object, ObjectSegment, ObjectSymbol};

/// How far a good site may be from the entry, in instructions.
const REACH: usize = 8;

/// A place for a probe.
#[derive(Debug)]
pub(crate) struct Site {
    /// Offset in the file of the instruction, in bytes.
    pub(crate) offset: u64,
    /// How many bytes after the function's entry that is.
    pub(crate) after_entry: u64,
    /// The instruction, in Intel's notation.
    pub(crate) instruction: String,
}

/// A file's executable mapping in a process.
#[derive(Debug)]
pub(crate) struct Library {
    /// The file.
    pub(crate) path: PathBuf,
    /// Address of the mapping's start less its offset in the file, so that adding a file offset gives an
    /// address.
    pub(crate) bias: u64,
}

/// The executable mapping in process `pid` of the file whose name begins with `name`.
pub(crate) fn mapped_library(pid: u32, name: &str) -> Result<Library> {
    let maps = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&maps).with_context(|| format!("cannot read {maps}"))?;
    text.lines().find_map(|line| parse_mapping(line, name)).with_context(|| format!("{maps} has no {name}*"))
}

/// A line of `/proc/PID/maps`: `start-end rwxp offset device inode path` (proc_pid_maps(5)).
fn parse_mapping(line: &str, name: &str) -> Option<Library> {
    let mut fields = line.split_ascii_whitespace();
    let (start, _) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.contains('x');
    let offset = fields.next()?;
    let path = PathBuf::from(fields.nth(2)?);
    let named = path.file_name()?.to_str()?.starts_with(name);
    let bias = u64::from_str_radix(start, 16).ok()?.wrapping_sub(u64::from_str_radix(offset, 16).ok()?);
    (executable && named).then_some(Library { path, bias })
}

/// The function's first instruction, whatever it is.
pub(crate) fn entry(path: &Path, function: &str) -> Result<Site> {
    let code = Code::of(path, function)?;
    let first = code.instructions().next().with_context(|| format!("`{function}` has no instruction"))?;
    Ok(code.site(&first))
}

/// The first instruction on the straight line from the entry that the kernel emulates.
///
/// # Errors
/// When there is none within the first few instructions.
pub(crate) fn good(path: &Path, function: &str) -> Result<Site> {
    let code = Code::of(path, function)?;
    for instruction in code.instructions().take(REACH) {
        if is_emulated(&instruction) {
            return Ok(code.site(&instruction));
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    bail!("the kernel emulates none of the first instructions of `{function}` in {}", path.display())
}

/// Whether the kernel emulates `instruction` under a uprobe: arch/x86/kernel/uprobes.c,
/// `branch_setup_xol_ops` (jmp, jcc and call with a relative target, nop; no operand size prefix) and
/// `push_setup_xol_ops` (push of a 64-bit register).
fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && instruction.len() <= 2,
        Mnemonic::Nop => instruction.len() == 1,
        _ => {
            let relative = instruction.op0_kind() == OpKind::NearBranch64;
            relative
                && (instruction.is_jcc_short_or_near()
                    || instruction.is_jmp_short_or_near()
                    || instruction.is_call_near())
        }
    }
}

/// The first bytes of a function.
struct Code {
    bytes: Vec<u8>,
    /// Their offset in the file.
    offset: u64,
}

impl Code {
    fn of(path: &Path, function: &str) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let elf = object::File::parse(&*content)
            .with_context(|| format!("{} is not an ELF file", path.display()))?;
        let mut symbols = elf.dynamic_symbols().chain(elf.symbols());
        let symbol = symbols
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(function))
            .with_context(|| format!("{} does not define `{function}`", path.display()))?;
        let address = symbol.address();
        let segment = elf.segments().find(|segment| {
            let (start, (_, size)) = (segment.address(), segment.file_range());
            (start..start + size).contains(&address)
        });
        let segment =
            segment.with_context(|| format!("`{function}` is not in a segment of {}", path.display()))?;
        let (start, size) = segment.file_range();
        let offset = start + (address - segment.address());
        // 15 bytes is the longest instruction.
        let end = (offset + 15 * REACH as u64).min(start + size);
        let bytes = content.get(offset as usize..end as usize);
        let bytes = bytes.with_context(|| format!("{} is cut short", path.display()))?.to_vec();
        Ok(Self { bytes, offset })
    }

    fn instructions(&self) -> impl Iterator<Item = Instruction> {
        // Addresses are distances from the entry.
        Decoder::with_ip(64, &self.bytes, 0, DecoderOptions::NONE).into_iter()
    }

    fn site(&self, instruction: &Instruction) -> Site {
        let mut text = String::new();
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_branch_leading_zeros(false);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        formatter.format(instruction, &mut text);
        Site { offset: self.offset + instruction.ip(), after_entry: instruction.ip(), instruction: text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Instruction {
        Decoder::new(64, bytes, DecoderOptions::NONE).decode()
    }

    #[test]
    fn what_the_kernel_emulates() {
        let emulated: [&[u8]; 7] = [
            &[0x55],                   // push rbp
            &[0x41, 0x54],             // push r12
            &[0x74, 0x05],             // je
            &[0x0f, 0x84, 1, 0, 0, 0], // je, near
            &[0xeb, 0x05],             // jmp
            &[0xe8, 1, 0, 0, 0],       // call
            &[0x90],                   // nop
        ];
        for bytes in emulated {
            assert!(is_emulated(&first(bytes)), "{bytes:x?}");
        }
    }

    #[test]
    fn what_the_kernel_single_steps() {
        let stepped: [&[u8]; 7] = [
            &[0x48, 0x85, 0xff],       // test rdi, rdi
            &[0x48, 0x89, 0xf8],       // mov rax, rdi
            &[0x6a, 0x01],             // push 1
            &[0xff, 0x37],             // push [rdi]
            &[0xff, 0xe0],             // jmp rax
            &[0xff, 0x15, 0, 0, 0, 0], // call [rip]
            &[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
        ];
        for bytes in stepped {
            assert!(!is_emulated(&first(bytes)), "{bytes:x?}");
        }
    }

    #[test]
    fn a_good_site_is_on_the_straight_line_from_the_entry() {
        let libc = mapped_library(std::process::id(), "libc.so").unwrap();
        for function in ["malloc", "free"] {
            let (entry, good) = (entry(&libc.path, function).unwrap(), good(&libc.path, function).unwrap());
            assert_eq!(entry.after_entry, 0);
            assert_eq!(good.offset - entry.offset, good.after_entry);
            assert!(good.after_entry < 15 * REACH as u64, "{good:?}");
        }
    }

    #[test]
    fn a_mapping_is_read_from_its_line() {
        let line = "7f00001000-7f00002000 r-xp 00000800 fe:00 1234  /lib/x86_64-linux-gnu/libc.so.6";
        let library = parse_mapping(line, "libc.so").unwrap();
        assert_eq!(library.bias, 0x7f_0000_0800);
        assert_eq!(library.path, Path::new("/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(parse_mapping(&line.replace("r-xp", "r--p"), "libc.so").is_none());
        assert!(parse_mapping(line, "libm.so").is_none());
    }
}
