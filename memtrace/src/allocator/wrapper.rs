//! Wrappers: functions such as `operator new` in libstdc++ that call another allocation function.
//!
//! A wrapper gets no probe. A return probe replaces the return address on the stack, and an exception that
//! passes through such a frame ends the program (libgcc's unwinder finds no caller); `operator new` throws.
//! Nor is one needed: the call that the wrapper makes is seen. But the reader of a profile wants to see the
//! wrapper's caller, so the kernel program is told where wrappers stand, and leaves their frames out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    catalog::Function,
    elf::{ElfImage, FunctionSymbol},
    flow::{self, Destination, Ends},
    selection::Selection,
};

/// The allocator functions of one file.
pub(super) struct Known {
    by_address: HashMap<u64, Function>,
    has_malloc: bool,
    selection: Arc<Selection>,
}

/// How many calls may be between Rust's interface and the allocation function behind it.
const RUST_DEPTH: usize = 2;

impl Known {
    /// By their virtual addresses in the file.
    pub(super) fn new(
        by_address: HashMap<u64, Function>,
        has_malloc: bool,
        selection: Arc<Selection>,
    ) -> Self {
        Self { by_address, has_malloc, selection }
    }

    fn at(&self, to: &Destination) -> Option<Function> {
        let here = to.address.and_then(|address| self.by_address.get(&address).copied());
        here.or_else(|| self.selection.find_known(to.name.as_deref()?).map(|(_, function)| function))
    }

    /// Whether a function that only jumps to another one leads to one that does the same and has probes. In musl,
    /// `malloc` jumps to a function of no known name.
    pub(super) fn is_elsewhere(
        &self,
        image: &ElfImage<'_>,
        function: &FunctionSymbol,
        row: Function,
    ) -> bool {
        let destinations = flow::destinations(image, image.code(function), function.address);
        destinations.first().and_then(|to| self.at(to)).is_some_and(|to| to.kind.frees() == row.kind.frees())
    }

    /// Whether a function that may be a wrapper is one: it calls, or jumps to, a function that does the same.
    pub(super) fn is_wrapper(
        &self,
        image: &ElfImage<'_>,
        function: &FunctionSymbol,
        row: Function,
        is_operator: bool,
    ) -> bool {
        // Somebody else's malloc is what it calls.
        if is_operator && !self.has_malloc {
            return true;
        }
        let depth = if is_operator { 0 } else { RUST_DEPTH };
        self.leads_on(image, image.code(function), function.address, row.kind.frees(), depth)
    }

    fn leads_on(&self, image: &ElfImage<'_>, code: &[u8], address: u64, frees: bool, depth: usize) -> bool {
        let destinations = flow::destinations(image, code, address);
        let is_alike = |to: &Destination| self.at(to).is_some_and(|function| function.kind.frees() == frees);
        if destinations.iter().any(is_alike) {
            return true;
        }
        let places = destinations.iter().filter(|_| depth > 0).filter_map(|to| to.address);
        places.filter_map(|address| image.function_range(address)).any(|range| {
            let code = image.bytes(range.start, range.end - range.start);
            self.leads_on(image, code, range.start, frees, depth - 1)
        })
    }

    /// Whether an allocation function calls another one that in turn may hand its call on by a jump.
    ///
    /// The call of the second is known for an inner one by its return address. But where it has a return probe, the third
    /// finds the address of the kernel's trampoline there, and not that of its caller's caller.
    pub(super) fn calls_one_that_jumps(&self, image: &ElfImage<'_>, function: &FunctionSymbol) -> bool {
        let allocates = |to: &Destination| self.at(to).is_some_and(|other| !other.kind.frees());
        let destinations = flow::destinations(image, image.code(function), function.address);
        let called = destinations.iter().filter(|to| allocates(to)).filter_map(|to| to.address);
        called.collect::<HashSet<_>>().into_iter().any(|address| {
            let ends = Ends::of(image, address);
            ends.is_ok_and(|ends| ends.jumps.iter().any(|to| to.address != Some(address) && allocates(to)))
        })
    }

    /// Whether another allocation function may take a function's calls over by a jump. Of those that resize, the
    /// kernel program knows by itself that a call without block may become one of `malloc`.
    pub(super) fn take_over(&self, ends: &Ends, function: &FunctionSymbol, row: Function) -> bool {
        ends.jumps.iter().filter(|to| to.address != Some(function.address)).any(|to| {
            self.at(to).is_some_and(|other| {
                !row.kind.frees() && !other.kind.frees() && (other.resizes() || !row.resizes())
            })
        })
    }
}
