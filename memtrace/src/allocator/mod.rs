//! Which allocator functions there are, and where a process has them.

pub mod catalog;
mod discover;
mod elf;
mod files;
pub mod site;
mod straight_line;
mod wrapper;

pub use discover::{Discovered, Discovery, Skipped};
pub use elf::{ElfError, ElfSymbols, FunctionSymbol};
pub use files::Files;
pub use straight_line::Jump;
