//! The kernel side: loading the program, its settings, and reading its maps.
//!
//! [`Kernel`] owns everything that lives in the kernel. Nothing is pinned and all links are file
//! descriptors, so the kernel takes everything down when this process ends, however it ends.

mod books;
mod btf_member;
mod counters;
mod error;
mod forgotten;
mod functions;
mod load;
mod log;
mod mode;
mod multi;
pub(crate) mod namespace;
pub mod object;
mod price;
mod process;
pub(crate) mod sys;
mod sys_maps;
pub(crate) mod trial;
mod unwind_maps;
mod usdt;

pub use books::Books;
pub use counters::Counters;
pub use error::LoadError;
pub use load::{Kernel, Limits, Newcomers, Settings};
pub use log::KernelLog;
pub use mode::AttachMode;
pub use multi::{Leg, MultiPrograms, Places};
pub use price::Prices;
pub use process::{Abandoned, Watch};
pub use unwind_maps::UnwindMaps;
