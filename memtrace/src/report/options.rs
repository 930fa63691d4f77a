//! How much a report shows, and how.

/// What [`summary()`](super::summary()) and the other reports show, and how.
#[derive(Clone, Debug)]
pub struct SummaryOptions {
    /// How many stacks are shown. Default: 10.
    pub top: usize,
    /// The terminal's width in characters; lines of stacks are kept within it, unless that would leave
    /// too little to read. Default: 100.
    pub width: usize,
    /// Whether headings are set off by terminal escapes. Default: no.
    pub color: bool,
}

impl Default for SummaryOptions {
    fn default() -> Self {
        Self { top: 10, width: 100, color: false }
    }
}

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const YELLOW: &str = "\x1b[1;33m";

impl SummaryOptions {
    /// A heading.
    pub(crate) fn heading(&self, text: &str) -> String {
        self.styled(text, BOLD)
    }

    /// The heading of what should worry the reader.
    pub(crate) fn warning(&self, text: &str) -> String {
        self.styled(text, YELLOW)
    }

    fn styled(&self, text: &str, style: &str) -> String {
        if self.color { format!("{style}{text}\x1b[0m") } else { text.to_owned() }
    }
}
