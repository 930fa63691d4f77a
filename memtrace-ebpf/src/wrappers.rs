//! Frames that the reader of a profile does not want to see: those of functions that only call an allocation
//! function, such as `operator new`.

use aya_ebpf::{macros::map, maps::HashMap};
use memtrace_common::{MAX_WRAPPERS, Wrappers};

/// By process: its wrappers.
#[map]
static WRAPPERS: HashMap<u32, Wrappers> = HashMap::with_max_entries(1024, 0);

/// Whether the address is one of a wrapper of process `tgid`.
#[inline(always)]
pub(crate) fn hold(tgid: u32, address: u64) -> bool {
    // SAFETY: userspace replaces the value as a whole; a mixture of old and new ranges could only show or
    // hide a wrapper's frame.
    let Some(wrappers) = (unsafe { WRAPPERS.get(&tgid) }) else { return false };
    let len = wrappers.len as usize;
    let mut index = 0;
    while index < MAX_WRAPPERS {
        if index >= len {
            break;
        }
        let range = &wrappers.ranges[index];
        if range.start <= address && address < range.end {
            return true;
        }
        index += 1;
    }
    false
}
