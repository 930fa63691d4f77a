//! Where a field stands in one of the kernel's structures, by the kernel's own type information
//! (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

use memtrace_common::TaskOffsets;

/// `BTF_MAGIC`.
const MAGIC: u32 = 0xeb9f;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;
/// `BTF_KIND_UNION`.
const UNION: u32 = 5;
/// Bytes of `struct btf_type`.
const TYPE: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER: usize = 12;

/// Where the numbers of a task stand in the kernel's structures; none where that is not known.
pub(super) fn task_offsets() -> Option<TaskOffsets> {
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    let types = Types::read(&bytes)?;
    let offset = |structure, member| types.offset(structure, member);
    Some(TaskOffsets {
        tgid: offset("task_struct", "tgid")?,
        thread_pid: offset("task_struct", "thread_pid")?,
        level: offset("pid", "level")?,
        numbers: offset("pid", "numbers")?,
        upid: types.size("upid")?,
        upid_namespace: offset("upid", "ns")?,
        namespace_inum: offset("pid_namespace", "ns")? + offset("ns_common", "inum")?,
        reserved: 0,
    })
}

/// The types of a BTF file.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type stands in `types`; the one with the id 0 is `void` and stands nowhere.
    starts: Vec<usize>,
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let section = |offset: usize| {
            let start = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, offset + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut all = Self { types, strings, starts: vec![usize::MAX] };
        let mut at = 0;
        while at < types.len() {
            all.starts.push(at);
            at += TYPE + all.rest(at)?;
        }
        Some(all)
    }

    fn kind(&self, start: usize) -> Option<u32> {
        Some(word(self.types, start.checked_add(4)?)? >> 24 & 0x1f)
    }

    fn count(&self, start: usize) -> Option<usize> {
        Some((word(self.types, start + 4)? & 0xffff) as usize)
    }

    /// How many bytes follow a type's head.
    fn rest(&self, start: usize) -> Option<usize> {
        let count = self.count(start)?;
        Some(match self.kind(start)? {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 4,
            // ARRAY
            3 => 12,
            STRUCT | UNION => count * MEMBER,
            // ENUM, FUNC_PROTO
            6 | 13 => count * 8,
            // DATASEC, ENUM64
            15 | 19 => count * 12,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }

    fn is(&self, start: usize, kind: u32, name: &str) -> bool {
        self.kind(start) == Some(kind) && self.name(start) == Some(name.as_bytes())
    }

    /// The name at an offset of `types`.
    fn name(&self, at: usize) -> Option<&'a [u8]> {
        let rest = self.strings.get(word(self.types, at)? as usize..)?;
        rest.split(|&byte| byte == 0).next()
    }

    fn structure(&self, name: &str) -> Option<usize> {
        self.starts.iter().position(|&start| self.is(start, STRUCT, name))
    }

    /// The size of a structure in bytes.
    fn size(&self, structure: &str) -> Option<u32> {
        word(self.types, self.starts[self.structure(structure)?] + 8)
    }

    /// The offset of a structure's member in bytes.
    fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        let bits = self.member(self.structure(structure)?, member, 0)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// The offset of a member in bits. Also one of a structure without name in it, as C has it; a kernel with
    /// randomized structures has such.
    fn member(&self, id: usize, name: &str, depth: u32) -> Option<u32> {
        const DEPTH: u32 = 8;
        let start = *self.starts.get(id)?;
        if depth > DEPTH || !matches!(self.kind(start)?, STRUCT | UNION) {
            return None;
        }
        // With this flag (kind_flag) the upper byte of an offset is the size of a bit field.
        let mask = if word(self.types, start + 4)? >> 31 == 1 { 0xff_ffff } else { u32::MAX };
        (0..self.count(start)?).map(|index| start + TYPE + index * MEMBER).find_map(|member| {
            let offset = word(self.types, member + 8)? & mask;
            match self.name(member)? {
                b"" => Some(offset + self.member(word(self.types, member + 4)? as usize, name, depth + 1)?),
                found if found == name.as_bytes() => Some(offset),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_this_kernel_are_found() {
        let offsets = task_offsets().unwrap();
        assert_eq!((offsets.upid, offsets.upid_namespace), (16, 8));
        assert!(offsets.tgid > 0 && offsets.thread_pid > offsets.tgid, "{offsets:?}");
    }

    fn offset_in(bytes: &[u8], structure: &str, member: &str) -> Option<u32> {
        Types::read(bytes)?.offset(structure, member)
    }

    /// `struct s { int a; struct { int b; }; }`.
    fn small() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0int\0";
        let types: Vec<u32> = vec![
            7,
            1 << 24,
            4,
            0x0100_0020, // 1: int
            0,
            STRUCT << 24 | 1,
            4,
            5,
            1,
            0, // 2: struct { int b; }
            1,
            STRUCT << 24 | 2,
            8,
            3,
            1,
            0,
            0,
            2,
            32, // 3: struct s
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let head = [MAGIC | 1 << 16, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let head = head.iter().flat_map(|word| word.to_ne_bytes());
        head.chain(types).chain(strings.iter().copied()).collect()
    }

    #[test]
    fn members_of_structures_without_name_are_found() {
        assert_eq!(offset_in(&small(), "s", "a"), Some(0));
        assert_eq!(offset_in(&small(), "s", "b"), Some(4));
        assert_eq!(offset_in(&small(), "s", "c"), None);
        assert_eq!(Types::read(&small()).unwrap().size("s"), Some(8));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let bytes = small();
        for len in 0..bytes.len() {
            assert_eq!(offset_in(&bytes[..len], "s", "b"), None, "{len}");
        }
        assert_eq!(offset_in(&[0; 64], "s", "a"), None);
    }
}
