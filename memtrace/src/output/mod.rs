//! What can be made of a [`Profile`]: one module per format, all of them behind [`write()`].
//!
//! An output reads the profile and nothing else. It never knows where the samples come from.
//! The formats that show one value only (folded stacks, the flame graph) show the profile's default one;
//! their own modules take another.

pub mod flamegraph;
pub mod folded;
pub mod json;
pub mod pprof;

#[cfg(test)]
#[path = "../../examples/sample_profile/sample.rs"]
pub(crate) mod sample;

use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;

use crate::profile::{Inconsistent, Profile};

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// pprof's profile.proto, gzipped: for `go tool pprof` and all that reads its files
    Pprof,
    /// One line per stack, for flame graph tools: `main;f;g 4096`
    Folded,
    /// JSON, as docs/json.md describes it
    Json,
    /// A flame graph for a web browser
    Svg,
}

/// File name endings and what is written to such a file.
const ENDINGS: [(&str, Format); 7] = [
    (".pb.gz", Format::Pprof),
    (".pb", Format::Pprof),
    (".pprof", Format::Pprof),
    (".folded", Format::Folded),
    (".txt", Format::Folded),
    (".json", Format::Json),
    (".svg", Format::Svg),
];

impl Format {
    /// The format that a file of this name should have; `None` where the name does not say.
    pub fn for_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|&(_, format)| format)
    }

    /// The usual ending of this format's files, with its dot.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Pprof => ".pb.gz",
            Self::Folded => ".folded",
            Self::Json => ".json",
            Self::Svg => ".svg",
        }
    }
}

/// Why a profile could not be written. The texts go on from "failed to write the profile: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The destination did not take it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The source made a profile that does not fit together.
    #[error("its parts do not fit together: {0}")]
    Inconsistent(#[from] Inconsistent),
    /// There is no value of this index.
    #[error("it has {count} value types, so there is none with index {index}")]
    NoSuchValue {
        /// The index that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The format cannot hold so large a sum.
    #[error("the sum of its values does not fit into 64 bits")]
    TooLarge,
}

/// Writes `profile` to `out` in one of the formats, and flushes it.
///
/// # Errors
///
/// [`Error::Io`] if `out` fails; the others if the profile cannot be written in that format at all.
pub fn write(profile: &Profile, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let mut out = BufWriter::new(out);
    match format {
        Format::Pprof => pprof::write(profile, &mut out)?,
        Format::Folded => folded::write(profile, profile.default_value, &mut out)?,
        Format::Json => json::write(profile, &mut out)?,
        Format::Svg => flamegraph::write(profile, profile.default_value, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

/// Checks the profile, and that there is a value `index`.
fn check(profile: &Profile, index: usize) -> Result<(), Error> {
    profile.check()?;
    let count = profile.value_types.len();
    if index < count { Ok(()) } else { Err(Error::NoSuchValue { index, count }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::arbitrary;

    #[test]
    fn the_file_name_tells_the_format() {
        let of = |name: &str| Format::for_path(Path::new(name));
        assert_eq!(of("memtrace.redis-server.1234.pb.gz"), Some(Format::Pprof));
        assert_eq!(of("/tmp/a.pb"), Some(Format::Pprof));
        assert_eq!(of("a.pprof"), Some(Format::Pprof));
        assert_eq!(of("a.folded"), Some(Format::Folded));
        assert_eq!(of("a.TXT"), Some(Format::Folded));
        assert_eq!(of("a.json"), Some(Format::Json));
        assert_eq!(of("dir.json/a.svg"), Some(Format::Svg));
        assert_eq!(of("a.gz"), None);
        assert_eq!(of("svg"), None);
        assert_eq!(of("a.json/.."), None);
    }

    #[test]
    fn every_format_has_an_ending_that_leads_back_to_it() {
        for &format in Format::value_variants() {
            assert_eq!(Format::for_path(Path::new(&format!("x{}", format.ending()))), Some(format));
        }
    }

    #[test]
    fn a_profile_that_does_not_fit_together_is_refused_by_every_format() {
        let mut profile = sample::profile();
        profile.samples[0].stack.push(1000);
        for &format in Format::value_variants() {
            let error = write(&profile, format, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, Error::Inconsistent(_)), "{format:?}: {error}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_in_every_format() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for &format in Format::value_variants() {
            let error = write(&sample::profile(), format, &mut Full).unwrap_err();
            assert!(
                matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::StorageFull),
                "{format:?}: {error:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_profile_makes_a_format_panic(profile in arbitrary::profile()) {
            for &format in Format::value_variants() {
                match write(&profile, format, &mut Vec::new()) {
                    Ok(()) | Err(Error::TooLarge) => {}
                    Err(error) => prop_assert!(false, "{format:?}: {error}"),
                }
            }
        }
    }
}
