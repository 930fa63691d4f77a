//! pprof's `profile.proto`, gzipped, with the sample types of Go's heap profile.
//!
//! What pprof makes of a file, and what is therefore written
//! (source: github.com/google/pprof, `profile/` and `internal/symbolizer/`):
//!
//! - The first mapping is taken for the main executable, so that one is written first.
//! - A mapping with none of `has_functions`, `has_filenames`, `has_line_numbers` is symbolized by pprof
//!   itself, from whatever lies at the mapping's path on the reader's machine. The flags are set as soon
//!   as one location in the mapping has such data: then the target's own files have been read already
//!   and pprof leaves it alone. Where nothing at all was found, they stay unset and pprof may try, with
//!   the build-id for a check. Mappings whose names begin with `[` are never tried.
//! - A location without a symbol has no line but keeps address and mapping, so that
//!   `pprof -symbolize=force` can still name it from debug files that come later.
//! - When a function's `system_name` equals its `name`, pprof takes the name for a mangled one and cuts
//!   out what stands in `<>` and `()`. See [`encode()`] for how Rust names are spared that.
//! - Comments are shown above every report; each loss is one, as `loss: NAME COUNT: MEANING`.

mod decode;
mod encode;
pub mod proto;
mod strings;

pub use decode::{DecodeError, decode};
pub use encode::encode;
pub(crate) use encode::{loss_comment, system_name};

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::Error;
use crate::profile::Profile;

/// Writes `profile` as a gzipped `profile.proto`. The same profile gives the same bytes.
///
/// # Errors
///
/// If `out` fails, or if the profile does not pass [`Profile::check`].
pub fn write(profile: &Profile, out: &mut dyn Write) -> Result<(), Error> {
    Ok(write_message(&encode(profile)?, out)?)
}

/// Writes a message as it is, gzipped.
///
/// # Errors
///
/// If `out` fails.
pub fn write_message(message: &proto::Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests;
