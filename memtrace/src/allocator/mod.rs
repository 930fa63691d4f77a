//! Which allocator functions there are, and where a process has them.

pub mod catalog;
mod custom;
mod discover;
mod elf;
mod flow;
mod selection;
pub mod site;
mod straight_line;
mod wrapper;

pub use custom::{Custom, CustomError};
pub use discover::{Discovered, Discovery, Skipped};
pub use elf::{ElfError, ElfImage, FunctionSymbol};
pub use selection::Selection;
