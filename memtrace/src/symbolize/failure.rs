//! Why an address has no name.

use crate::profile::Losses;

/// Why no function was found for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The address was in no executable mapping.
    Unmapped,
    /// Code without a file: made at run time (a JIT), or a part of the kernel.
    NoFile,
    /// The file is not on this machine, or only with another build-id. Only where the process is not there.
    Absent,
    /// The file has no symbol for the address.
    NoSymbols,
    /// The file could not be opened.
    Unreadable,
    /// The file, or its symbols, are not valid.
    Malformed,
    /// The file was written to after it was mapped.
    Changed,
    /// Opening the file would have exceeded the limit of open files.
    TooManyFiles,
    /// The symbolizer panicked on the file.
    Panicked,
    /// The symbolizer's thread has ended.
    Stopped,
}

impl Failure {
    /// Those that another attempt to find names can overcome.
    pub(crate) const OF_FILES: [Self; 8] = [
        Self::Absent,
        Self::NoSymbols,
        Self::Unreadable,
        Self::Malformed,
        Self::Changed,
        Self::TooManyFiles,
        Self::Panicked,
        Self::Stopped,
    ];

    /// The loss's stable name and what it means to the reader.
    pub fn loss(self) -> (&'static str, &'static str) {
        match self {
            Self::Unmapped => (
                "frames_unmapped",
                "addresses were in no known mapping: the stack was broken there, or its library came and went unseen",
            ),
            Self::NoFile => (
                "frames_without_file",
                "addresses are in code that has no file, such as that of a JIT compiler",
            ),
            Self::Absent => (
                "frames_in_absent_file",
                "addresses are in files that were not found with the same build-id; name their directory with --binaries, or use --debuginfod",
            ),
            Self::NoSymbols => (
                "frames_without_symbol",
                "addresses have no symbol in their file; install the debug symbols of the mapping they are shown with",
            ),
            Self::Unreadable => (
                "frames_in_unreadable_file",
                "addresses are in files that could not be opened; run memtrace as root or with CAP_SYS_ADMIN",
            ),
            Self::Malformed => {
                ("frames_in_malformed_file", "addresses are in files that are not valid ELF or DWARF")
            }
            Self::Changed => (
                "frames_in_changed_file",
                "addresses are in files that were written to after they were mapped, so their names are not known",
            ),
            Self::TooManyFiles => (
                "frames_over_file_limit",
                "addresses are in files that were not opened because of the limit of open files; raise `ulimit -n`",
            ),
            Self::Panicked => (
                "frames_symbolizer_panicked",
                "addresses are in files on which the symbolizer failed; please report the file that they are shown with",
            ),
            Self::Stopped => ("frames_symbolizer_stopped", "addresses came after the symbolizer had stopped"),
        }
    }

    /// Counts `count` distinct addresses that have no name for this reason.
    pub(crate) fn count(self, losses: &mut Losses, count: u64) {
        let (name, meaning) = self.loss();
        losses.add(name, count, meaning);
    }
}
