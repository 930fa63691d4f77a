//! The line table of a code object (CPython, Objects/locations.md; since 3.11).

/// Kinds of entries, the `code` of the document.
const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;
const NO_COLUMNS: u8 = 13;
const LONG: u8 = 14;
const NONE: u8 = 15;

/// How many bytes an instruction has.
const CODE_UNIT: u64 = 2;

/// The line of the instruction at byte `offset` of the code. `None` where the table has none for it: code
/// that the compiler has added, or a table that is cut.
pub(super) fn line_at(table: &[u8], first_line: u32, offset: u64) -> Option<u32> {
    let mut bytes = table.iter().copied();
    let mut line = i64::from(first_line);
    let mut end = 0;
    while let Some(head) = bytes.next() {
        // The first byte of an entry has the highest bit set, and no other byte has.
        if head & 0x80 == 0 {
            return None;
        }
        let code = head >> 3 & 15;
        end += (u64::from(head & 7) + 1) * CODE_UNIT;
        match code {
            NONE => {}
            LONG => {
                line += signed_varint(&mut bytes)?;
                for _ in 0..3 {
                    varint(&mut bytes)?;
                }
            }
            NO_COLUMNS => line += signed_varint(&mut bytes)?,
            code if ONE_LINE.contains(&code) => {
                line += i64::from(code - ONE_LINE.start());
                bytes.nth(1)?;
            }
            _ => {
                bytes.next()?;
            }
        }
        if offset < end {
            return if code == NONE { None } else { u32::try_from(line).ok() };
        }
    }
    None
}

/// Six bits in each byte, the lowest first; bit 6 says that another byte follows.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..60).step_by(6) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 63) << shift;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
    None
}

/// The lowest bit is the sign.
fn signed_varint(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = varint(bytes)?;
    let magnitude = (value >> 1) as i64;
    Some(if value & 1 == 0 { magnitude } else { -magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(code: u8, units: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x80 | code << 3 | (units - 1)], rest].concat()
    }

    #[test]
    fn every_kind_of_entry_moves_the_line_as_documented() {
        let table = [
            entry(NO_COLUMNS, 1, &[0]),            // line 7, bytes 0 and 1
            entry(0, 2, &[0x11]),                  // the same line, bytes 2 to 5
            entry(11, 1, &[4, 9]),                 // one line on
            entry(12, 1, &[4, 9]),                 // two on
            entry(NONE, 3, &[]),                   // no line, bytes 10 to 15
            entry(NO_COLUMNS, 1, &[3]),            // one back
            entry(LONG, 8, &[64, 4, 0, 1, 65, 1]), // 2 * 64 on, in two bytes
        ]
        .concat();
        let line = |offset| line_at(&table, 7, offset);
        assert_eq!([0, 2, 4, 6, 8].map(line), [7, 7, 7, 8, 10].map(Some));
        assert_eq!([10, 14].map(line), [None, None]);
        assert_eq!([16, 18, 33].map(line), [9, 137, 137].map(Some));
        assert_eq!(line(34), None, "behind the code's end");
    }

    /// The table that CPython 3.11 made of a function with a loop, a `try`, a comprehension, calls over several
    /// lines and a `with`, and the lines that its `co_lines()` told.
    #[derive(serde::Deserialize)]
    struct Made {
        bytes: Vec<u8>,
        first_line: u32,
        lines: Vec<(u64, u64, Option<u32>)>,
    }

    #[test]
    fn agrees_with_cpython() {
        let made: Made = serde_json::from_str(include_str!("testdata/line_table.json")).unwrap();
        assert!(made.lines.len() > 50);
        for (start, end, line) in made.lines {
            for offset in (start..end).step_by(2) {
                assert_eq!(line_at(&made.bytes, made.first_line, offset), line, "at {offset}");
            }
        }
    }

    #[test]
    fn tables_that_are_cut_or_no_tables_have_no_line() {
        assert_eq!(line_at(&[], 1, 0), None);
        assert_eq!(line_at(&[0x05], 1, 0), None);
        assert_eq!(line_at(&entry(LONG, 1, &[127]), 1, 0), None);
        assert_eq!(line_at(&[&entry(LONG, 1, &[])[..], &[127; 40]].concat(), 1, 0), None);
    }
}
