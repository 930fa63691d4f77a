//! What is printed for people: text for a terminal, made from a profile.
//!
//! Everything here is a pure function from data to a `String`; all text that comes from the target is
//! made printable first (see [`printable`](crate::profile::printable)).

mod options;
mod processes;
pub(crate) mod stack_line;
mod summary;
mod top;
pub mod units;
mod values;

pub use options::SummaryOptions;
pub use summary::summary;
pub use top::{TOP_SCHEMA, Top};
