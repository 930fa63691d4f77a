//! Reading a process's memory, and never writing it.

use std::{fs::File, io, os::unix::fs::FileExt};

/// No string or table that is read from a process may be longer; a corrupt length must not take all memory.
const LONGEST: usize = 1 << 20;

/// The memory of one process, by `/proc/PID/mem` opened for reading (proc(5)).
///
/// The kernel ties the open file to the address space that the process had when it was opened: after an
/// exec, and when the process's number is another's, reads find nothing.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    pub(super) fn bytes(&self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    pub(super) fn words<const N: usize>(&self, address: u64) -> io::Result<[u64; N]> {
        let mut words = [0; N];
        self.0.read_exact_at(bytemuck::cast_slice_mut(&mut words), address)?;
        Ok(words)
    }

    pub(super) fn u64(&self, address: u64) -> io::Result<u64> {
        Ok(self.words::<1>(address)?[0])
    }

    pub(super) fn u32(&self, address: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, address)?;
        Ok(u32::from_ne_bytes(bytes))
    }
}
