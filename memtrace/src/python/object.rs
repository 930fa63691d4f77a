//! Python strings and bytes in a process's memory.

use std::io;

use super::{layout::ObjectLayout, memory::Memory};

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The content of the `bytes` object at `address`.
pub(super) fn bytes(memory: &Memory, layout: &ObjectLayout, address: u64) -> io::Result<Vec<u8>> {
    let length = memory.u64(address.wrapping_add(layout.size_of_bytes))?;
    let length = usize::try_from(length).map_err(|_| invalid())?;
    memory.bytes(address.wrapping_add(layout.data_of_bytes), length)
}

/// The content of the `str` object at `address` (PEP 393; Include/cpython/unicodeobject.h).
pub(super) fn string(memory: &Memory, layout: &ObjectLayout, address: u64) -> io::Result<String> {
    let length = memory.u64(address.wrapping_add(layout.length_of_string))?;
    let length = usize::try_from(length).map_err(|_| invalid())?;
    let state = memory.u32(address.wrapping_add(layout.state_of_string))? >> layout.state_shift;
    let (kind, compact, ascii) = (state & 7, state >> 3 & 1, state >> 4 & 1);
    // Names of code objects are always made in one piece.
    if compact == 0 {
        return Err(invalid());
    }
    let header = if ascii == 1 { layout.ascii_header } else { layout.compact_header };
    let size = length.checked_mul(kind as usize).ok_or_else(invalid)?;
    let data = memory.bytes(address.wrapping_add(header), size)?;
    let code_points: Vec<u32> = match kind {
        1 => data.iter().map(|&byte| byte.into()).collect(),
        2 => data.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]).into()).collect(),
        4 => data
            .chunks_exact(4)
            .map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
            .collect(),
        _ => return Err(invalid()),
    };
    // Bytes of a file name that are not valid UTF-8 are lone surrogates in Python (PEP 383).
    Ok(code_points
        .into_iter()
        .map(|point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect())
}
