//! What all processes under observation share.

use std::sync::Arc;

use crate::{
    allocator::Files,
    attach::Remover,
    kernel::{Kernel, LoadError},
    symbolize::{AddressSpace, Modules},
    unwind::{self, Unwinder, cache::Cache},
};

/// The kernel program, and what is known of files, which processes share.
pub struct Engine {
    pub(super) kernel: Kernel,
    pub(super) unwinder: Unwinder,
    pub(super) modules: Arc<Modules>,
    /// Their allocator functions.
    pub(super) files: Arc<Files>,
    pub(super) remover: Remover,
}

impl Engine {
    /// Measures what probes cost on this machine, too.
    ///
    /// # Errors
    /// When the kernel refuses a probe, a read or a write.
    pub fn new(mut kernel: Kernel) -> Result<Self, LoadError> {
        let mut unwinder = Unwinder::new(kernel.unwind_maps()?, unwind::DEFAULT_LIMIT, open_cache());
        let modules = Modules::new();
        let own = std::process::id();
        // Without memtrace's own tables no price of a frame would be known, which is no reason not to record.
        let loaded = AddressSpace::open(own, &modules)
            .map_err(anyhow::Error::from)
            .and_then(|space| Ok(unwinder.update(own, &space)?));
        if let Err(error) = loaded {
            tracing::warn!("the price of walking stacks cannot be measured: {error:#}");
        }
        kernel.measure_prices()?;
        unwinder.forget(own);
        Ok(Self { kernel, unwinder, modules, files: Arc::default(), remover: Remover::start() })
    }

    /// For the kernel program's log. What the measurement of prices has logged is to be left out of it.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}

/// The cache of unwind tables, if there can be one.
fn open_cache() -> Option<Cache> {
    Cache::open().inspect_err(|error| tracing::warn!("unwind tables are not kept on disk: {error}")).ok()
}
