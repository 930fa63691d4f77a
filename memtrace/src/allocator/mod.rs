//! Which allocator functions there are, and where a process has them.

mod binding;
pub mod catalog;
mod custom;
mod discover;
mod elf;
mod files;
mod flow;
mod inspect;
mod linkage;
mod python_copies;
mod selection;
pub mod site;
mod straight_line;
mod usdt;
mod usdt_argument;
mod wrapper;

pub use binding::{Binding, Bindings, LookupOrder, Precedence};
pub use custom::{Custom, CustomError};
pub use discover::{Discovered, Discovery, Skipped};
pub use elf::{ElfError, ElfImage, FunctionSymbol};
pub use files::Files;
pub use linkage::Linkage;
pub use selection::Selection;
pub use usdt::Usdt;
