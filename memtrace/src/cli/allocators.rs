//! Which allocators a recording looks for.

use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use memtrace::allocator::{Custom, Files, Selection, catalog::FAMILIES};

/// Takes the name of a family.
pub(super) fn family() -> PossibleValuesParser {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().into()
}

/// What the arguments ask for.
pub(super) fn selection(
    family: Option<&str>,
    alloc: &[Custom],
    free: &[Custom],
    python_objects: bool,
) -> Arc<Files> {
    let family = family.and_then(|name| FAMILIES.iter().find(|family| family.name == name));
    Arc::new(Files::new(Selection { family, custom: [alloc, free].concat(), python_objects }))
}
