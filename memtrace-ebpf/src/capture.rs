//! Sending walks to userspace together with what they were made from. Only for checking walks: where nobody has
//! asked for it, the verifier removes all of this.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use memtrace_common::{CAPTURE_PAGE, CAPTURE_PAGES, Capture, Counter, EVENT_CAPTURE, NewStack};

use crate::{arch::Registers, control, counters::count, events::EVENTS};

/// Sends what a walk from `at` has found, and a copy of the stack as it was, where that was asked for.
#[inline(always)]
pub(crate) fn send(at: &Registers, found: &NewStack) {
    if control::config().captures != 0 {
        send_copy(at, found);
    }
}

/// A function of its own, so that its variables do not add to the caller's 512 bytes of stack.
#[inline(never)]
fn send_copy(at: &Registers, found: &NewStack) {
    // In its place at once: no other memory of the program has room for it.
    let Some(mut place) = EVENTS.reserve::<Capture>(0) else {
        count(Counter::CapturesLost);
        return;
    };
    let capture = place.as_mut_ptr();
    let first = at.stack_pointer & !(CAPTURE_PAGE as u64 - 1);
    // SAFETY: all writes are into the reserved place. The helpers check what they read, and that they write no
    // further than that place is the verifier's business.
    let complete = unsafe {
        (&raw mut (*capture).kind).write(EVENT_CAPTURE);
        (&raw mut (*capture).tgid).write(found.tgid);
        (&raw mut (*capture).end).write(found.end);
        (&raw mut (*capture).len).write(found.len);
        (&raw mut (*capture).address).write(at.address);
        (&raw mut (*capture).stack_pointer).write(at.stack_pointer);
        (&raw mut (*capture).frame_pointer).write(at.frame_pointer);
        let stack = (&raw mut (*capture).stack).cast::<u8>();
        let mut page = 0;
        while page < CAPTURE_PAGES {
            let offset = page * CAPTURE_PAGE;
            let from = first.wrapping_add(offset as u64) as *const _;
            if bpf_probe_read_user(stack.add(offset).cast(), CAPTURE_PAGE as u32, from) != 0 {
                break;
            }
            page += 1;
        }
        (&raw mut (*capture).pages).write(page as u64);
        let frames = &raw mut (*capture).frames;
        bpf_probe_read_kernel(frames.cast(), size_of_val(&found.frames) as u32, found.frames.as_ptr().cast())
            == 0
    };
    if complete {
        place.submit(0);
    } else {
        place.discard(0);
        count(Counter::CapturesLost);
    }
}
