//! Where diagnostics go: to standard error, as much as was asked for.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Verbosity, terminal};

/// What -vv leaves out: how the loader takes the kernel program's object apart, some hundred lines.
const ABOUT_LOADING: &str = "aya=info,aya_obj=info";

/// Sets up logging. `RUST_LOG` overrules the flags.
pub(super) fn init(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity { quiet: true, .. } => LevelFilter::ERROR,
        Verbosity { verbose: 0, .. } => LevelFilter::WARN,
        Verbosity { verbose: 1, .. } => LevelFilter::INFO,
        Verbosity { .. } => LevelFilter::DEBUG,
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::new(directives),
        Err(_) if level == LevelFilter::DEBUG => EnvFilter::new(format!("{level},{ABOUT_LOADING}")),
        Err(_) => EnvFilter::new(level.to_string()),
    };
    // aya-log and other libraries log through the `log` crate; the subscriber takes those in, too.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::colors())
        .with_target(false)
        .without_time()
        .init();
}
