//! A stack as a person reads it: one frame per function, inlined ones included.

use std::borrow::Cow;

use super::{Function, Location, Mapping, Profile, Sample};

/// One function on a stack, or one address for which no function is known.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where the frame's code is.
    pub location: &'a Location,
    /// The mapping in which that is.
    pub mapping: &'a Mapping,
    /// The function; `None` where no symbol was found.
    pub function: Option<&'a Function>,
    /// The line in the function's file, or 0 where that is not known.
    pub line: u32,
    /// Whether the function was inlined into the frame that follows.
    pub inlined: bool,
}

impl Frame<'_> {
    /// The function's name or, where that is not known, the place in the file, e.g. `libc.so.6+0x9d1a2`:
    /// it is the same in every run, and `addr2line` and its like understand it. An address that is in no
    /// file is given as it was in the target.
    ///
    /// The name is as the target has it; see [`printable`](super::printable) before showing it.
    pub fn name(&self) -> Cow<'_, str> {
        match self.function {
            Some(function) if !function.name.is_empty() => Cow::Borrowed(&function.name),
            _ if self.mapping.path.is_empty() || self.mapping.path == Mapping::UNKNOWN => {
                Cow::Owned(format!("{:#x}", self.location.address))
            }
            _ => {
                let offset = self.location.address.wrapping_sub(self.mapping.start);
                let offset = offset.wrapping_add(self.mapping.file_offset);
                Cow::Owned(format!("{}+{offset:#x}", self.mapping.name()))
            }
        }
    }

    /// The source file, where it is known.
    pub fn file(&self) -> Option<&str> {
        self.function.map(|function| function.file.as_str()).filter(|file| !file.is_empty())
    }
}

impl Profile {
    /// The frames of a sample's stack, the leaf first and each inlined function before its caller.
    ///
    /// # Panics
    ///
    /// If the profile does not pass [`Profile::check`].
    pub fn frames<'a>(&'a self, sample: &'a Sample) -> impl Iterator<Item = Frame<'a>> {
        sample.stack.iter().flat_map(|&index| self.frames_at(&self.locations[index]))
    }

    /// The frames that one location stands for: at least one, the innermost first.
    ///
    /// # Panics
    ///
    /// If the profile does not pass [`Profile::check`].
    pub fn frames_at<'a>(&'a self, location: &'a Location) -> impl Iterator<Item = Frame<'a>> {
        let mapping = &self.mappings[location.mapping];
        let last = location.lines.len().saturating_sub(1);
        let known = location.lines.iter().enumerate().map(move |(position, line)| Frame {
            location,
            mapping,
            function: Some(&self.functions[line.function]),
            line: line.line,
            inlined: position < last,
        });
        let unknown = location.lines.is_empty().then_some(Frame {
            location,
            mapping,
            function: None,
            line: 0,
            inlined: false,
        });
        known.chain(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn inlined_functions_come_before_what_they_are_inlined_into() {
        let profile = sample::profile();
        let frames: Vec<_> = profile
            .frames(&profile.samples[0])
            .map(|frame| (frame.name().into_owned(), frame.line, frame.inlined))
            .collect();
        let of = |name: &str, line, inlined| (name.to_owned(), line, inlined);
        assert_eq!(
            frames,
            [
                of("buffer_new", 14, true),
                of("cache_insert", 31, false),
                of("main", 57, false),
                of("libc.so.6+0x27249", 0, false),
            ]
        );
    }

    #[test]
    fn an_address_outside_of_all_files_is_given_as_it_is() {
        let mapping = Mapping { path: Mapping::UNKNOWN.to_owned(), ..Mapping::default() };
        let location = Location { address: 0x7f00_1234, mapping: 0, lines: vec![] };
        let frame = Frame { location: &location, mapping: &mapping, function: None, line: 0, inlined: false };
        assert_eq!(frame.name(), "0x7f001234");
    }
}
