//! Are two walks of the same stack the same?

use memtrace_common::StackEnd;

/// What the other unwinder has found.
pub(crate) struct Reference {
    /// Return addresses, the innermost first.
    pub(crate) frames: Vec<u64>,
    /// How it ended.
    pub(crate) end: ReferenceEnd,
    /// The number of frames that were known when it first asked for memory beyond the copy of the stack.
    pub(crate) beyond_copy_at: Option<usize>,
}

/// How the other unwinder's walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceEnd {
    /// At the thread's first function.
    Root,
    /// It was told to stop, as more frames than memtrace keeps were found.
    Enough,
    /// It could not go on.
    Error(framehop::Error),
}

/// What came of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same frames, up to the thread's first function or as many as memtrace keeps.
    Equal,
    /// The same frames as far as the copy of the stack goes.
    CopyTooShort,
    /// The same frames, and neither could go on.
    BothEndEarly,
    /// Not the same, in this way and at this place.
    Different(String),
}

/// Compares a walk with the reference, whose frames begin with the same one. `place` says in words where an
/// address is.
pub(crate) fn compare(
    frames: &[u64],
    end: StackEnd,
    reference: &Reference,
    place: impl Fn(u64) -> String,
) -> Verdict {
    let common = frames.iter().zip(&reference.frames).take_while(|(ours, theirs)| ours == theirs).count();
    let (all_ours, all_theirs) = (common == frames.len(), common == reference.frames.len());
    let keeps_no_more = matches!(end, StackEnd::TooDeep | StackEnd::Truncated);
    if all_ours
        && (keeps_no_more || (all_theirs && end == StackEnd::Root && reference.end == ReferenceEnd::Root))
    {
        return Verdict::Equal;
    }
    if reference.beyond_copy_at == Some(common) {
        return Verdict::CopyTooShort;
    }
    let both_end = all_ours && all_theirs;
    if both_end && end != StackEnd::Root && matches!(reference.end, ReferenceEnd::Error(_)) {
        return Verdict::BothEndEarly;
    }
    let ours = if all_ours { ended(end) } else { "goes on" };
    let theirs = match reference.end {
        _ if !all_theirs => "goes on".to_owned(),
        ReferenceEnd::Root => "is at the root".to_owned(),
        ReferenceEnd::Enough => "was stopped".to_owned(),
        ReferenceEnd::Error(error) => {
            format!("ends ({error:?})").split('(').take(2).collect::<Vec<_>>().join("(")
        }
    };
    let at = common.checked_sub(1).and_then(|last| frames.get(last)).or(reference.frames.first());
    let at = at.map_or_else(|| "the beginning".to_owned(), |address| place(*address));
    Verdict::Different(format!("{at}: memtrace {ours}, framehop {theirs}"))
}

fn ended(end: StackEnd) -> &'static str {
    match end {
        StackEnd::Root => "is at the root",
        StackEnd::Truncated | StackEnd::TooDeep => "keeps no more",
        StackEnd::NoMapping => "ends (no mapping)",
        StackEnd::NoTable => "ends (no table)",
        StackEnd::Unreadable => "ends (bad read)",
        StackEnd::Unsupported => "ends (unsupported rule)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(frames: &[u64], end: ReferenceEnd) -> Reference {
        Reference { frames: frames.to_vec(), end, beyond_copy_at: None }
    }

    fn verdict(frames: &[u64], end: StackEnd, reference: &Reference) -> Verdict {
        compare(frames, end, reference, |address| format!("{address:x}"))
    }

    const NO_ADVANCE: ReferenceEnd = ReferenceEnd::Error(framehop::Error::DidNotAdvance);

    #[test]
    fn the_same_frames_to_the_root_are_equal() {
        let same = reference(&[1, 2, 3], ReferenceEnd::Root);
        assert_eq!(verdict(&[1, 2, 3], StackEnd::Root, &same), Verdict::Equal);
        assert_eq!(verdict(&[1, 2], StackEnd::TooDeep, &same), Verdict::Equal);
    }

    #[test]
    fn another_frame_or_another_end_is_a_difference() {
        let other = reference(&[1, 2, 3], ReferenceEnd::Root);
        for (frames, end, expected) in [
            (&[1, 2, 4][..], StackEnd::Root, "2: memtrace goes on, framehop goes on"),
            (&[1, 2], StackEnd::Root, "2: memtrace is at the root, framehop goes on"),
            (&[1, 2, 3], StackEnd::NoTable, "3: memtrace ends (no table), framehop is at the root"),
            (&[1, 2, 3, 4], StackEnd::Root, "3: memtrace goes on, framehop is at the root"),
            (&[9], StackEnd::TooDeep, "1: memtrace goes on, framehop goes on"),
        ] {
            assert_eq!(verdict(frames, end, &other), Verdict::Different(expected.to_owned()));
        }
    }

    #[test]
    fn an_end_of_both_is_told_from_one_that_the_copy_makes() {
        let mut ends = reference(&[1, 2], NO_ADVANCE);
        assert_eq!(verdict(&[1, 2], StackEnd::NoTable, &ends), Verdict::BothEndEarly);
        assert!(matches!(verdict(&[1, 2, 3], StackEnd::Root, &ends), Verdict::Different(_)));
        ends.beyond_copy_at = Some(2);
        assert_eq!(verdict(&[1, 2, 3], StackEnd::Root, &ends), Verdict::CopyTooShort);
        ends.beyond_copy_at = Some(1);
        assert!(matches!(verdict(&[1, 2, 3], StackEnd::Root, &ends), Verdict::Different(_)));
    }
}
