//! Whether a program is of the kind that memtrace can read.

use std::{fs::File, io, io::Read, path::Path};

use object::elf::{ELFCLASS32, ELFMAG};

/// Whether this is the head of a 32-bit ELF file (elf(5), `e_ident`).
fn is_32_bit(head: &[u8]) -> bool {
    head.strip_prefix(&ELFMAG).is_some_and(|rest| rest.first() == Some(&ELFCLASS32))
}

/// Whether the program at `path` is a 32-bit ELF file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn file_is_32_bit(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(ELFMAG.len() as u64 + 1).read_to_end(&mut head)?;
    Ok(is_32_bit(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(class: u8) -> Vec<u8> {
        [b"\x7fELF", &[class, 1, 1, 0, 0][..], &[0; 7]].concat()
    }

    #[test]
    fn the_class_is_told_from_the_head() {
        assert!(is_32_bit(&head(1)));
        assert!(!is_32_bit(&head(2)));
        assert!(!is_32_bit(&head(1)[..4]), "too short to be one");
        assert!(!is_32_bit(b"#!/bin/sh -c exit"));
        assert!(!file_is_32_bit(Path::new("/proc/self/exe")).unwrap());
    }
}
