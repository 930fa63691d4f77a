//! Where a statically defined probe has its arguments, as its note says in the assembler's words (AT&T syntax):
//! `8@%rdi -4@16(%rsp) 8@$100` are a number of 8 bytes in a register, a signed one of 4 bytes in memory, and a constant.

use gimli::X86_64;
use memtrace_common::{ArgumentPlace, IN_MEMORY, IN_PROBE, IN_REGISTER, USDT_ARGUMENTS, UsdtPlaces};

/// The first `wanted` arguments of a probe.
///
/// # Errors
/// Why memtrace cannot read them: a clause that can follow "because".
pub(super) fn places(text: &[u8], wanted: usize) -> Result<UsdtPlaces, String> {
    let text = std::str::from_utf8(text).map_err(|_| "its arguments are not text")?;
    let mut words = text.split_ascii_whitespace();
    let mut places = UsdtPlaces::default();
    for place in places.arguments.iter_mut().take(wanted.min(USDT_ARGUMENTS)) {
        let word = words.next().ok_or_else(|| format!("it has fewer than {wanted} arguments"))?;
        *place = self::place(word).ok_or_else(|| {
            let shown: String = word.chars().filter(|c| !c.is_control()).take(40).collect();
            format!("its argument `{shown}` is in a place that memtrace does not read")
        })?;
    }
    Ok(places)
}

fn place(word: &str) -> Option<ArgumentPlace> {
    let (size, operand) = word.split_once('@')?;
    let (size, signed) = size.strip_prefix('-').map_or((size, 0), |size| (size, 1));
    let size = match size {
        "1" => 1,
        "2" => 2,
        "4" => 4,
        "8" => 8,
        _ => return None,
    };
    let sized = ArgumentPlace { size, signed, ..ArgumentPlace::default() };
    if let Some(constant) = operand.strip_prefix('$') {
        return Some(ArgumentPlace { kind: IN_PROBE, value: number(constant)?, ..sized });
    }
    if let Some(name) = operand.strip_prefix('%') {
        let (register, shift) = register(name)?;
        return Some(ArgumentPlace { kind: IN_REGISTER, register, shift, ..sized });
    }
    let (distance, base) = operand.strip_suffix(')')?.split_once("(%")?;
    let value = if distance.is_empty() { 0 } else { number(distance)? };
    Some(ArgumentPlace { kind: IN_MEMORY, value, register: whole_register(base)?, ..sized })
}

/// A number in decimal or hexadecimal digits; one that has a 64th bit stands for the same bits.
fn number(text: &str) -> Option<i64> {
    let (digits, negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
    let magnitude = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    let value = magnitude as i64;
    Some(if negative { value.wrapping_neg() } else { value })
}

/// The number in DWARF of a 64-bit register other than the instruction pointer.
fn whole_register(name: &str) -> Option<u8> {
    let register = X86_64::name_to_register(name).filter(|register| register.0 < 16)?;
    u8::try_from(register.0).ok()
}

/// The register that the named one is, or is a part of, and how many bits of that one are below it.
fn register(name: &str) -> Option<(u8, u8)> {
    if let Some(register) = whole_register(name) {
        return Some((register, 0));
    }
    // r8d, r8w, r8b
    if name.starts_with('r') {
        return Some((whole_register(name.strip_suffix(['d', 'w', 'b'])?)?, 0));
    }
    // eax, and esi
    if let Some(name) = name.strip_prefix('e') {
        return Some((whole_register(&format!("r{name}"))?, 0));
    }
    // ax, and si
    if let Some(register) = whole_register(&format!("r{name}")) {
        return Some((register, 0));
    }
    match (name.strip_suffix('l'), name.strip_suffix('h')) {
        // al, and sil
        (Some(name), _) => {
            let name = if name.len() == 1 { format!("r{name}x") } else { format!("r{name}") };
            Some((whole_register(&name)?, 0))
        }
        (_, Some(name @ ("a" | "b" | "c" | "d"))) => Some((whole_register(&format!("r{name}x"))?, 8)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let read = places(b"8@%rdi -4@-16(%rbp) 2@$-100", 3).unwrap().arguments;
        let [register, memory, constant] = read;
        let none = ArgumentPlace::default();
        assert_eq!(register, ArgumentPlace { kind: IN_REGISTER, register: 5, size: 8, ..none });
        let expected = ArgumentPlace { kind: IN_MEMORY, register: 6, size: 4, signed: 1, value: -16, ..none };
        assert_eq!(memory, expected);
        assert_eq!(constant, ArgumentPlace { kind: IN_PROBE, size: 2, value: -100, ..none });
        assert_eq!(place("8@(%r12)").map(|place| (place.register, place.value)), Some((12, 0)));
        assert_eq!(place("8@$0xff").map(|place| place.value), Some(255));
        assert_eq!(place("8@$18446744073709551615").map(|place| place.value), Some(-1));
    }

    #[test]
    fn every_part_of_a_register_is_known() {
        // The numbers of System V ABI, AMD64, figure 3.36.
        let names = [
            (0, "rax eax ax al"),
            (1, "rdx edx dx dl"),
            (2, "rcx ecx cx cl"),
            (3, "rbx ebx bx bl"),
            (4, "rsi esi si sil"),
            (5, "rdi edi di dil"),
            (6, "rbp ebp bp bpl"),
            (7, "rsp esp sp spl"),
            (8, "r8 r8d r8w r8b"),
            (9, "r9 r9d r9w r9b"),
            (10, "r10 r10d r10w r10b"),
            (15, "r15 r15d r15w r15b"),
        ];
        for (number, names) in names {
            for name in names.split(' ') {
                assert_eq!(register(name), Some((number, 0)), "{name}");
            }
        }
        for (number, name) in [(0, "ah"), (1, "dh"), (2, "ch"), (3, "bh")] {
            assert_eq!(register(name), Some((number, 8)), "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let others = [
            "",
            "@",
            "8",
            "8@",
            "8@%",
            "8@$",
            "8@()",
            "8@(%)",
            "8@(%rax",
            "8@%rip",
            "8@%xmm0",
            "8f@%xmm0",
            "8@8(%rip)",
            "8@counter(%rip)",
            "8@(%rax,%rbx,4)",
            "8@8(%eax)",
            "3@%rax",
            "16@%rax",
            "--8@%rax",
            "8@%rl",
            "8@%eh",
            "8@$1x",
            "8@$99999999999999999999",
            "8@-(%rsp)",
            "8@%fs:8",
            "\u{661}@%rax",
        ];
        for word in others {
            assert_eq!(place(word), None, "{word}");
        }
        let reason = places(b"8@%rdi 8@%rsi", 3).unwrap_err();
        assert_eq!(reason, "it has fewer than 3 arguments");
        assert!(places(b"8@counter(%rip)", 1).unwrap_err().contains("`8@counter(%rip)`"));
        assert!(places(b"\xff", 1).is_err());
        assert!(places(&[b'8'; 1 << 20], 1).unwrap_err().len() < 200);
    }
}
