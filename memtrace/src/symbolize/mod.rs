//! From addresses in a process to functions, files and lines.
//!
//! ```text
//! return addresses --AddressSpace--> frames --Names--> names --Interner--> Profile
//! ```
//!
//! 1. An [`AddressSpace`] knows what is mapped where in one process and turns a raw stack into
//!    [`Frame`]s. This is done as soon as a stack is first seen, while the process is there: it opens
//!    the mapped files, and from then on neither the process nor the files' names are needed.
//! 2. [`Modules`] are those files, each once for all processes, held open.
//! 3. [`Names`] resolves frames with the [`Symbolizer`], each (module, offset) once. The work is
//!    blazesym's and is done on a thread of its own, which survives files that are made to break it.
//! 4. An [`Interner`] puts stacks of frames into a [`Profile`](crate::profile::Profile) and counts the
//!    addresses for which no name was found, by [`Failure`].
//!
//! ```no_run
//! # use memtrace::{profile::Profile, symbolize::*};
//! # async fn example(profile: &mut Profile, pid: u32, stack: &[u64]) -> Result<(), Box<dyn std::error::Error>> {
//! let modules = Modules::new();
//! let mut space = AddressSpace::open(pid, &modules)?;
//! let mut names = Names::new(Symbolizer::start(Options::default())?);
//!
//! let frames = space.normalize(stack);
//! names.resolve(&frames).await;
//!
//! let mut interner = names.interner(profile);
//! interner.add_main(&space);
//! interner.add_sample(&frames, vec![1, 64, 1, 64], vec![]);
//! names.add_losses(&mut profile.losses);
//! # Ok(())
//! # }
//! ```
//!
//! Where the process is not there, [`Files`] finds the [`Module`] of a mapping on this machine;
//! [`offline`](crate::offline) is made of that.
//!
//! # All addresses are return addresses
//! memtrace takes stacks when the allocation function returns, so even the innermost frame is that of a
//! caller. [`AddressSpace::normalize`] subtracts one from each; everything behind it deals in addresses
//! within instructions.
//!
//! # What is not attempted
//! Split DWARF (`.dwp`, `.dwo`). Files
//! are parsed through a mapping: a target that cuts a file short in the very moment between check and
//! use can end memtrace by SIGBUS. Names are as trustworthy as the files that they come from, and a file
//! that claims the build-id and size of another is taken for it.

mod address_space;
mod debug_file;
pub mod debuginfod;
mod demangle;
mod elf;
mod engine;
mod failure;
mod files;
mod frame;
mod generated;
mod lookup;
mod maps;
mod module;
mod modules;
mod names;
mod pace;
mod perf_map;
mod quiet;
mod root;
mod vdso;
mod worker;

pub use address_space::{AddressSpace, Counts, Error};
pub use failure::Failure;
pub use files::Files;
pub use frame::{Frame, Region};
pub use module::{Module, ModuleId};
pub use modules::Modules;
pub use names::{Interner, Names, PSEUDO_MAPPING, PYTHON_MAPPING, UNKNOWN_MAPPING};
pub use worker::{NamedLine, Options, Query, Resolution, Symbolizer, SymbolizerCounts};
