//! Walks that come with a copy of the stack that they were made from.

use std::mem::offset_of;

use memtrace_common::{CAPTURE_PAGE, CAPTURE_PAGES, Capture, MAX_FRAMES, StackEnd};

use super::event::{u32_at, u64_at};

/// A walk of the kernel program, and what it was made from: whoever unwinds stacks in another way can compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedWalk {
    /// The process.
    pub tgid: u32,
    /// The address that the allocation function has returned to.
    pub address: u64,
    /// The stack pointer there.
    pub stack_pointer: u64,
    /// The frame pointer there.
    pub frame_pointer: u64,
    /// Return addresses that the walk has found, the innermost first, as in [`Event::NewStack`](super::Event). Where
    /// the allocation function was called by wrappers of it, the first is not [`address`](Self::address).
    pub frames: Vec<u64>,
    /// How the walk ended.
    pub end: StackEnd,
    /// The address of the first byte of `stack`; not above the stack pointer.
    pub stack_start: u64,
    /// The stack as it was, up to the first page that could not be read, and at most 64 KiB.
    pub stack: Vec<u8>,
}

impl CapturedWalk {
    /// Reads a record; `None` where it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let len = u32_at(bytes, offset_of!(Capture, len))? as usize;
        let first = offset_of!(Capture, frames);
        let frames = (0..len.min(MAX_FRAMES)).map(|index| u64_at(bytes, first + index * 8));
        let pages = u64_at(bytes, offset_of!(Capture, pages))?.min(CAPTURE_PAGES as u64);
        let stack = bytes.get(offset_of!(Capture, stack)..)?.get(..pages as usize * CAPTURE_PAGE)?;
        let stack_pointer = u64_at(bytes, offset_of!(Capture, stack_pointer))?;
        Some(Self {
            tgid: u32_at(bytes, offset_of!(Capture, tgid))?,
            address: u64_at(bytes, offset_of!(Capture, address))?,
            stack_pointer,
            frame_pointer: u64_at(bytes, offset_of!(Capture, frame_pointer))?,
            frames: frames.collect::<Option<_>>()?,
            end: StackEnd::from_number(u32_at(bytes, offset_of!(Capture, end))?)?,
            stack_start: stack_pointer & !(CAPTURE_PAGE as u64 - 1),
            stack: stack.to_vec(),
        })
    }

    /// The word of the stack at an address, as far as the copy goes.
    pub fn word(&self, address: u64) -> Option<u64> {
        u64_at(&self.stack, address.checked_sub(self.stack_start)?.try_into().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with one frame and one page of stack, each word of which holds its own offset.
    fn record() -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Capture>()];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(offset_of!(Capture, tgid), &42u32.to_ne_bytes());
        put(offset_of!(Capture, len), &1u32.to_ne_bytes());
        put(offset_of!(Capture, address), &0x1000u64.to_ne_bytes());
        put(offset_of!(Capture, stack_pointer), &0x7fff_0010_u64.to_ne_bytes());
        put(offset_of!(Capture, pages), &1u64.to_ne_bytes());
        put(offset_of!(Capture, frames), &0x1000u64.to_ne_bytes());
        for word in (0..CAPTURE_PAGE).step_by(8) {
            put(offset_of!(Capture, stack) + word, &(word as u64).to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_stack_is_read_by_address_as_far_as_it_was_copied() {
        let walk = CapturedWalk::parse(&record()).unwrap();
        assert_eq!((walk.tgid, walk.end), (42, StackEnd::Root));
        assert_eq!(walk.frames, [0x1000]);
        assert_eq!(walk.word(walk.stack_pointer), Some(0x10));
        assert_eq!(walk.word(0x7fff_0ff8), Some(0xff8));
        assert_eq!(walk.word(0x7fff_0ffc), None);
        assert_eq!(walk.word(0x7ffe_fff8), None);
    }

    #[test]
    fn records_that_are_cut_are_refused() {
        let record = record();
        assert_eq!(CapturedWalk::parse(&record[..offset_of!(Capture, stack) + CAPTURE_PAGE - 1]), None);
        assert_eq!(CapturedWalk::parse(&record[..20]), None);
    }
}
