//! Installs what a command needs, so that it does not matter what was installed by hand.
//!
//! Everything here looks first and does nothing where nothing is missing.

pub(crate) mod apt;
pub(crate) mod bpf_linker;
pub(crate) mod go;
