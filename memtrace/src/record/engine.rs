//! What all processes under observation share.

use std::sync::Arc;

use crate::{
    attach::{Remover, Traced},
    kernel::{Kernel, LoadError},
    symbolize::{AddressSpace, Modules},
    unwind::{self, Unwinder, cache::Cache},
};

/// The kernel program, and what is known of files, which processes share.
pub struct Engine {
    pub(super) kernel: Kernel,
    pub(super) unwinder: Unwinder,
    pub(super) modules: Arc<Modules>,
    pub(super) remover: Remover,
    /// The functions that have had probes, in whatever process.
    pub(super) traced: Traced,
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
        Ok(Self { kernel, unwinder, modules, remover: Remover::start(), traced: Traced::default() })
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
