//! A walk with everything that it was made from, so that userspace can make it again in another way.

use crate::MAX_FRAMES;

/// Kind of [`Capture`].
pub const EVENT_CAPTURE: u32 = 6;

/// The unit in which the stack is copied: the smallest page of every architecture that memtrace knows, so that
/// a page which can be read is never missing because the next one cannot.
pub const CAPTURE_PAGE: usize = 4096;

/// How many pages of the stack are copied at the most.
pub const CAPTURE_PAGES: usize = 16;

/// A walk of a stack: where it began, the stack itself, and what was found.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Capture {
    /// [`EVENT_CAPTURE`].
    pub kind: u32,
    /// The process, as memtrace's PID namespace numbers it.
    pub tgid: u32,
    /// [`StackEnd`](crate::StackEnd) as a number.
    pub end: u32,
    /// How many of `frames` are in use.
    pub len: u32,
    /// The address that the allocation function has returned to.
    pub address: u64,
    /// The stack pointer there.
    pub stack_pointer: u64,
    /// The frame pointer there.
    pub frame_pointer: u64,
    /// How many pages of `stack` are in use. The first is the one that holds the stack pointer's address.
    pub pages: u64,
    /// As in [`NewStack`](crate::NewStack).
    pub frames: [u64; MAX_FRAMES],
    /// The stack, up to the first page that could not be read.
    pub stack: [u8; CAPTURE_PAGE * CAPTURE_PAGES],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_both_sides_expect() {
        assert_eq!(size_of::<Capture>(), 48 + MAX_FRAMES * 8 + CAPTURE_PAGE * CAPTURE_PAGES);
    }
}
