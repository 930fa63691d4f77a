//! Lines of bounded length.

use std::io::{self, BufRead, Read};

/// A line may be this long: a stack of 127 frames whose names have 128 KiB each. Longer ones are skipped, so that
/// a file without line ends does not fill the memory.
const LONGEST: u64 = 16 << 20;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line, without its end.
    Whole(&'a [u8]),
    /// What follows the last end of a line.
    Last(&'a [u8]),
    /// A line that was skipped.
    TooLong,
    /// Nothing.
    End,
}

/// The lines of `input`.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    longest: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), longest: LONGEST }
    }

    pub(super) fn next(&mut self) -> io::Result<Line<'_>> {
        self.buffer.clear();
        // One more, for the line's end.
        let limit = self.longest + 1;
        (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer)?;
        Ok(match self.buffer.as_slice() {
            [] => Line::End,
            [line @ .., b'\n'] => Line::Whole(line),
            line if (line.len() as u64) < limit => Line::Last(line),
            _ => {
                self.input.skip_until(b'\n')?;
                Line::TooLong
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_skipped_and_the_last_one_may_be_cut() {
        let mut lines = Lines { longest: 3, ..Lines::new(&b"abc\nabcd\n\nabcdefghi\nab"[..]) };
        assert_eq!(lines.next().unwrap(), Line::Whole(b"abc"));
        assert_eq!(lines.next().unwrap(), Line::TooLong);
        assert_eq!(lines.next().unwrap(), Line::Whole(b""));
        assert_eq!(lines.next().unwrap(), Line::TooLong);
        assert_eq!(lines.next().unwrap(), Line::Last(b"ab"));
        assert_eq!(lines.next().unwrap(), Line::End);
    }

    #[test]
    fn a_file_without_line_ends_is_one_long_line() {
        let mut lines = Lines { longest: 3, ..Lines::new(&b"abcd"[..]) };
        assert_eq!(lines.next().unwrap(), Line::TooLong);
        assert_eq!(lines.next().unwrap(), Line::End);
    }
}
