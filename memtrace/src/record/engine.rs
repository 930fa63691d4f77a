//! What all processes under observation share.

use std::sync::Arc;

use crate::{
    kernel::{Kernel, LoadError},
    symbolize::Modules,
    unwind::{self, Unwinder, cache::Cache},
};

/// The kernel program, and what is known of files, which processes share.
pub(super) struct Engine {
    pub(super) kernel: Kernel,
    pub(super) unwinder: Unwinder,
    pub(super) modules: Arc<Modules>,
}

impl Engine {
    pub(super) fn new(kernel: Kernel) -> Result<Self, LoadError> {
        let unwinder = Unwinder::new(kernel.unwind_maps()?, unwind::DEFAULT_LIMIT, open_cache());
        Ok(Self { kernel, unwinder, modules: Modules::new() })
    }
}

/// The cache of unwind tables, if there can be one.
fn open_cache() -> Option<Cache> {
    Cache::open().inspect_err(|error| tracing::warn!("unwind tables are not kept on disk: {error}")).ok()
}
