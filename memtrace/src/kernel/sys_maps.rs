//! Operations on maps that aya does not offer: inner maps of a size of their own, many values by one call,
//! and taking an inner map out of its outer map.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::sys::{bpf, create_map_with, element, zeroed};

/// `BPF_F_INNER_MAP` (linux/bpf.h, since 5.10): an array that may take the place of one of another size in an
/// outer map.
const INNER_MAP: u32 = 1 << 12;

/// Creates an array that can be an inner map.
pub(super) fn create_inner_array(value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let key_size = size_of::<u32>() as u32;
    create_map_with(INNER_MAP, bpf_map_type::BPF_MAP_TYPE_ARRAY, key_size, value_size, entries)
}

/// Sets consecutive values of an array map, from `first` on (`BPF_MAP_UPDATE_BATCH`, Linux 5.6). Values of `T`
/// must have the size of the map's, which is a multiple of 8.
pub(super) fn set_all<T: aya::Pod>(map: BorrowedFd<'_>, first: u32, values: &[T]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let mut done = 0;
    while done < values.len() {
        let mut attr = zeroed();
        // SAFETY: BPF_MAP_UPDATE_BATCH reads this member, and writes `count`. Keys and values outlive the
        // call; there are as many as it says.
        let result = unsafe {
            let batch = &mut attr.batch;
            batch.map_fd = map.as_raw_fd() as u32;
            batch.keys = keys[done..].as_ptr() as u64;
            batch.values = values[done..].as_ptr() as u64;
            batch.count = (values.len() - done) as u32;
            bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr)
        };
        // SAFETY: as above; the kernel says how many it has taken, also when it fails.
        let count = unsafe { attr.batch.count } as usize;
        match result {
            // A signal came in between.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => done += count,
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Sets a value. Those of key and value must be the sizes of the map's.
pub(super) fn set<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()>
where
    K: aya::Pod,
    V: aya::Pod,
{
    let mut attr = element(map, key, std::ptr::from_ref(value) as u64);
    // SAFETY: BPF_MAP_UPDATE_ELEM reads this member. Key and value outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// Deletes a key, which has the size of the map's. It is no error if there is no such key.
pub(super) fn delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = element(map, key, 0);
    // SAFETY: BPF_MAP_DELETE_ELEM reads this member. The key outlives the call.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Functions for tests: maps as the kernel program has them, and what is in them.
#[cfg(test)]
pub(super) mod tests {
    use super::super::sys::bpf_fd;
    use super::*;

    /// An outer map for arrays with values of this size.
    pub(in super::super) fn create_outer_array(value_size: u32, entries: u32) -> io::Result<OwnedFd> {
        let inner = create_inner_array(value_size, 1)?;
        let mut attr = zeroed();
        // SAFETY: BPF_MAP_CREATE reads this member, which has no pointers.
        unsafe {
            let map = &mut attr.__bindgen_anon_1;
            map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32;
            (map.key_size, map.value_size, map.max_entries) = (4, 4, entries);
            map.inner_map_fd = inner.as_raw_fd() as u32;
            bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
        }
    }

    /// The value of a key, if there is one. Of an outer map it is the inner map's id.
    pub(in super::super) fn get<K, V>(map: BorrowedFd<'_>, key: &K) -> Option<V>
    where
        K: aya::Pod,
        V: aya::Pod,
    {
        // SAFETY: any bytes are a value of a `Pod`.
        let mut value: V = unsafe { std::mem::zeroed() };
        let mut attr = element(map, key, &raw mut value as u64);
        // SAFETY: BPF_MAP_LOOKUP_ELEM reads this member. Key and value outlive the call.
        unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr).ok().map(|_| value) }
    }

    /// The map with an id.
    pub(in super::super) fn by_id(id: u32) -> io::Result<OwnedFd> {
        let mut attr = zeroed();
        // SAFETY: BPF_MAP_GET_FD_BY_ID reads this member, which has no pointers.
        unsafe {
            attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
            bpf_fd(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)
        }
    }
}
