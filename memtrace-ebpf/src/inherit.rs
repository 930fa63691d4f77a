//! What a new process inherits: a copy of its creator's memory, and so of what is live in it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use memtrace_common::{Block, LiveKey, inherited_stack};

use crate::books;

/// Who inherits from whom.
#[repr(C)]
struct Heir {
    parent: u32,
    child: u32,
}

/// Enters what is live in process `parent` for its new child, too, under one stack. To be called before the child
/// has run. Takes time in proportion to the live table.
#[inline(always)]
pub(crate) fn inherit(parent: u32, child: u32) {
    let mut heir = Heir { parent, child };
    // SAFETY: the map is one that the helper takes (Linux 5.13), and the callback takes its keys and values. Entries
    // that it adds may be visited, too, but are not the parent's.
    unsafe {
        bpf_for_each_map_elem(books::live(), copy as *mut c_void, (&raw mut heir).cast(), 0);
    }
}

/// The callback of `bpf_for_each_map_elem`.
unsafe extern "C" fn copy(
    _map: *mut c_void,
    key: *const LiveKey,
    block: *const Block,
    heir: *const Heir,
) -> u64 {
    // SAFETY: pointers to an entry of the map, which stays valid meanwhile, and to the context.
    let (key, block, heir) = unsafe { (&*key, &*block, &*heir) };
    if key.tgid == heir.parent {
        let stack_id = inherited_stack(heir.child);
        books::inherited(heir.child, key.address, &Block { stack_id, ..*block });
    }
    0
}
