//! Processes from their creation until they first run code of their own: following forks.
//!
//! A new process is known to the tracepoint of its creation, in its creator's context, where it cannot be stopped. It
//! is remembered there by its number, and looked up where it shows up itself:
//!
//! - at its first page fault, which comes with its first instructions: they write to the stack, whose pages are its
//!   creator's until they are written to (mm/memory.c, `copy_present_ptes`), and run code of files, of which fork copies
//!   no page table entries where nothing was written (`vma_needs_copy`);
//! - or when it executes a program: until then a process of vfork or posix_spawn runs in its creator's memory.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
};
use memtrace_common::{Counter, EVENT_APPEARED, EVENT_FORK, Newborn, WATCH_CHILDREN};

use crate::{control, counters::count, events, inherit, task};

/// By process id in the initial PID namespace: the numbers of others are not known before they run. One that ends
/// before it has run stays, so the least recently used makes room.
#[map]
static NEWBORNS: LruHashMap<u32, Newborn> = LruHashMap::with_max_entries(8192, 0);

/// A new task is a thread of its creator's process (include/uapi/linux/sched.h).
const CLONE_THREAD: u64 = 0x10000;
/// It shares its creator's memory.
const CLONE_VM: u64 = 0x100;

/// A task was created by the current one; `task` is its `struct task_struct`.
#[inline(always)]
pub(crate) fn created(task: *const u8, clone_flags: u64) {
    if clone_flags & CLONE_THREAD != 0 {
        return;
    }
    let config = control::config();
    let parent = task::tgid(task::pid_tgid());
    // SAFETY: the value is copied at once.
    let watch = unsafe { events::WATCHED.get(&parent) }.copied();
    if watch.is_some_and(|watch| watch & WATCH_CHILDREN == 0 || config.children == 0) {
        count(Counter::Children);
    }
    if config.children == 0 {
        return;
    }
    let Some(number) = task::number(task) else { return };
    let Some(watch) = watch.filter(|watch| watch & WATCH_CHILDREN != 0) else {
        // Its number may have been that of one which never ran.
        let _ = NEWBORNS.remove(&number);
        return;
    };
    let shares_memory = clone_flags & CLONE_VM != 0;
    if !shares_memory
        && control::running()
        && let Some(child) = task::tgid_of(task, number)
    {
        inherit::inherit(parent, child);
    }
    let newborn = Newborn {
        // SAFETY: the helper takes nothing and returns a number.
        time_ns: unsafe { bpf_ktime_get_ns() },
        parent,
        watch,
        shares_memory: shares_memory.into(),
        reserved: 0,
    };
    // An LRU map always has room.
    let _ = NEWBORNS.insert(&number, &newborn, 0);
}

/// The current process has a page fault.
#[inline(always)]
pub(crate) fn fault() {
    let number = task::tgid(bpf_get_current_pid_tgid());
    // SAFETY: only this process removes its entry.
    if let Some(newborn) = unsafe { NEWBORNS.get(&number) }
        && newborn.shares_memory == 0
    {
        shows_up(number, newborn);
    }
}

/// The current process, which is not watched, has executed a program.
#[inline(always)]
pub(crate) fn exec() {
    let number = task::tgid(bpf_get_current_pid_tgid());
    // SAFETY: only this process removes its entry.
    if let Some(newborn) = unsafe { NEWBORNS.get(&number) } {
        shows_up(number, newborn);
    } else if control::config().appearances != 0 {
        let tgid = task::tgid(task::pid_tgid());
        // SAFETY: the helper takes nothing and returns a number.
        events::send_image_changed(EVENT_APPEARED, tgid, 0, unsafe { bpf_ktime_get_ns() }, 0);
    }
}

/// From here on it is watched as its creator is: also what it creates itself is followed before userspace knows.
#[inline(always)]
fn shows_up(number: u32, newborn: &Newborn) {
    let newborn = *newborn;
    let _ = NEWBORNS.remove(&number);
    let tgid = task::tgid(task::pid_tgid());
    if tgid == 0 || events::WATCHED.insert(&tgid, &newborn.watch, 0).is_err() {
        // It has no number in memtrace's PID namespace, or there are too many processes.
        count(Counter::Children);
        return;
    }
    events::send_image_changed(EVENT_FORK, tgid, newborn.parent, newborn.time_ns, newborn.watch);
}
