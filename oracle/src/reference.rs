//! Unwinding a copied stack with framehop.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{FrameAddress, Unwinder};
use memtrace::collect::CapturedWalk;
use memtrace_common::MAX_FRAMES;

use crate::verdict::{Reference, ReferenceEnd};

/// A module whose sections are in memory.
pub(crate) type Module = framehop::Module<Vec<u8>>;

/// framehop, with a program's modules.
#[derive(Default)]
pub(crate) struct Framehop {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

/// More frames than memtrace keeps, with some that it leaves out.
const ENOUGH: usize = MAX_FRAMES + 16;

impl Framehop {
    /// From here on this code is known.
    pub(crate) fn add(&mut self, module: Module) {
        self.unwinder.add_module(module);
    }

    /// The code that begins here is gone.
    pub(crate) fn remove(&mut self, start: u64) {
        self.unwinder.remove_module(start);
    }

    /// Unwinds the stack of a walk from the same registers.
    pub(crate) fn unwind(&mut self, walk: &CapturedWalk) -> Reference {
        let mut registers = UnwindRegsX86_64::new(walk.address, walk.stack_pointer, walk.frame_pointer);
        let copy_ends = walk.stack_start + walk.stack.len() as u64;
        let mut frames = vec![walk.address];
        let mut beyond_copy_at = None;
        let end = loop {
            let known = frames.len();
            let mut read = |address: u64| {
                if address >= walk.stack_start && address.saturating_add(8) > copy_ends {
                    beyond_copy_at.get_or_insert(known);
                }
                walk.word(address).ok_or(())
            };
            // Where the walk begins, a call has returned, too: the probe is at the allocation function's return.
            let Some(address) = FrameAddress::from_return_address(frames[known - 1]) else {
                break ReferenceEnd::Root;
            };
            match self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read) {
                Ok(Some(_)) if known >= ENOUGH => break ReferenceEnd::Enough,
                Ok(Some(address)) => frames.push(address),
                Ok(None) => break ReferenceEnd::Root,
                Err(error) => break ReferenceEnd::Error(error),
            }
        };
        Reference { frames, end, beyond_copy_at }
    }
}
