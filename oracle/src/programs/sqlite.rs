//! The sqlite3 shell, with queries over a table that it makes itself.

use std::path::Path;

use anyhow::Result;

use super::Load;

const QUERIES: &str = include_str!("../../loads/queries.sql");

pub(super) fn start(_directory: &Path) -> Result<Load> {
    Ok(Load::launch(&["/usr/bin/sqlite3", "-cmd", ".output /dev/null", ":memory:", QUERIES]))
}
