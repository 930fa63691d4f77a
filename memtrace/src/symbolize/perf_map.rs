//! The text of a `perf-PID.map`: which function of a JIT compiler is where.
//!
//! Each line is `START SIZE NAME`, both numbers hexadecimal and the name all the rest of the line
//! (tools/perf/Documentation/jit-interface.txt of the kernel's source). The writer only appends: a later
//! line about the same addresses means that the code there was replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Longer names are cut: no compiler writes such, and a file of one line must not be shown as a name.
const MAX_NAME: usize = 512;

/// More functions than this are not kept. Node.js has some ten thousand after its start.
const MAX_FUNCTIONS: usize = 1 << 20;

/// The functions of a map, of those that overlap the latest.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// By first address: one past the last, and the name.
    functions: BTreeMap<u64, (u64, Arc<str>)>,
    /// How many lines were no such line.
    pub(super) bad_lines: u64,
    /// How many functions did not fit.
    pub(super) dropped: u64,
}

impl PerfMap {
    /// Takes in the complete lines of `text` and returns how many bytes these are: the last line may still
    /// be being written.
    pub(super) fn add(&mut self, text: &[u8]) -> usize {
        let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else { return 0 };
        for line in text[..end].split(|&byte| byte == b'\n') {
            match parse(line) {
                Some((start, end, name)) => self.insert(start, end, name),
                None => self.bad_lines += 1,
            }
        }
        end + 1
    }

    /// The function at `address`.
    pub(super) fn name(&self, address: u64) -> Option<&Arc<str>> {
        let (_, (end, name)) = self.functions.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }

    fn insert(&mut self, start: u64, end: u64, name: Arc<str>) {
        // Entries never overlap, so those in the way are the last before `end`, in an unbroken row.
        while let Some((&other, &(other_end, _))) = self.functions.range(..end).next_back() {
            if other_end <= start {
                break;
            }
            self.functions.remove(&other);
        }
        if self.functions.len() < MAX_FUNCTIONS {
            self.functions.insert(start, (end, name));
        } else {
            self.dropped += 1;
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, Arc<str>)> {
    let mut fields = line.splitn(3, |&byte| byte == b' ');
    let (start, size, name) = (hex(fields.next()?)?, hex(fields.next()?)?, fields.next()?);
    let end = start.checked_add(size).filter(|&end| end > start)?;
    let name = &name[..name.len().min(MAX_NAME)];
    let name = String::from_utf8_lossy(name);
    let name = name.trim();
    (!name.is_empty()).then(|| (start, end, name.into()))
}

fn hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    // from_str_radix would take a sign.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> PerfMap {
        let mut map = PerfMap::default();
        assert_eq!(map.add(text.as_bytes()), text.len());
        map
    }

    #[test]
    fn functions_have_a_start_and_an_end() {
        let map = map("1000 20 first\n0x2000 0x10 JS:*second file.js:1:2\n");
        assert_eq!(map.name(0x1000).map(AsRef::as_ref), Some("first"));
        assert_eq!(map.name(0x101f).map(AsRef::as_ref), Some("first"));
        assert_eq!(map.name(0x2008).map(AsRef::as_ref), Some("JS:*second file.js:1:2"));
        assert_eq!((map.name(0xfff), map.name(0x1020), map.name(0x2010)), (None, None, None));
        assert_eq!(map.bad_lines, 0);
    }

    #[test]
    fn the_latest_of_those_that_overlap_counts() {
        let map = map("1000 100 old\n1100 100 neighbour\n0ff0 20 before\n1080 10 new\n");
        assert_eq!(map.name(0x1000).map(AsRef::as_ref), Some("before"));
        assert_eq!(map.name(0x1020), None);
        assert_eq!(map.name(0x1085).map(AsRef::as_ref), Some("new"));
        assert_eq!(map.name(0x1100).map(AsRef::as_ref), Some("neighbour"));
    }

    #[test]
    fn lines_that_are_none_are_counted() {
        let text = "\n1000\n1000 20\n1000 20 \nxyz 20 a\n1000 -1 a\n+10 20 a\n1000 0 a\n\
                    ffffffffffffffff 2 a\n10000000000000000 1 a\n\u{fffd} 1 a\n";
        let map = map(text);
        assert_eq!(map.bad_lines, 11);
        assert!(map.functions.is_empty());
    }

    #[test]
    fn an_unfinished_line_waits() {
        let mut map = PerfMap::default();
        assert_eq!(map.add(b"1000 10 a\n2000 10 b"), 10);
        assert_eq!(map.name(0x2000), None);
        assert_eq!(map.add(b"2000 10 bcd\n"), 12);
        assert_eq!(map.name(0x2000).map(AsRef::as_ref), Some("bcd"));
        assert_eq!(map.add(b"no end"), 0);
    }

    #[test]
    fn names_are_cut_and_made_valid() {
        let mut map = PerfMap::default();
        map.add(&[b"1000 10 ".as_slice(), &[0xff; 2 * MAX_NAME], b"\n"].concat());
        assert_eq!(map.name(0x1000).unwrap().chars().count(), MAX_NAME);
    }
}
