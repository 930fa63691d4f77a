//! The records that the kernel program and userspace both read.
//!
//! Everything here is plain `repr(C)` data without padding that the compiler chose, or arithmetic that
//! both sides must do alike. The kernel program writes these records into BPF maps and the ring buffer;
//! userspace reads them as bytes. A change of a record is a change of both sides at once, because they
//! are built from this one crate and the BPF object carries a digest of it.
#![no_std]

mod capture;
mod config;
mod counter;
mod event;
mod function;
mod live;
pub mod python;
pub mod sampling;
mod stack;
pub mod unwind;
mod usdt;

pub use capture::{CAPTURE_PAGE, CAPTURE_PAGES, Capture, EVENT_CAPTURE};
pub use config::{Config, TaskOffsets};
pub use counter::Counter;
pub use event::{
    BlockEvent, EVENT_ALLOCATED, EVENT_APPEARED, EVENT_EXEC, EVENT_FORK, EVENT_FREED, EVENT_LOADER,
    EVENT_NEW_STACK, ImageChanged, NewStack, Newborn, WATCH_CHILDREN, WATCH_STOP,
};
pub use function::{
    Arguments, FunctionKind, MAX_ARGUMENTS, MAX_FUNCTIONS, OTHER_ALLOCATIONS, OTHER_FREES, Probe,
};
pub use live::{
    Block, CallerRange, InFlight, InFlightKey, InternalCallers, LiveKey, MAX_CALLER_RANGES, MAX_WRAPPERS,
    Wrappers,
};
pub use stack::{MAX_FRAMES, STACK_NOT_RECORDED, StackEnd, StackTotals, inherited_stack};
pub use usdt::{
    ArgumentPlace, IN_MEMORY, IN_PROBE, IN_REGISTER, MAX_USDT_PLACES, USDT_ARGUMENTS, UsdtPlaces,
};
