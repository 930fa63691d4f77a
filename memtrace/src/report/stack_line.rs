//! A stack on one line, from the leaf: `f a.c:3 <- main a.c:9 <- …`.

use std::fmt::Write;

use crate::profile::printable;

/// Names longer than this are cut in the middle, so that more than one frame of a C++ stack is seen.
const LONGEST_NAME: usize = 48;

/// A name is not cut to less than this.
const SHORTEST_PIECE: usize = 20;

/// Stacks get at least this many characters, however narrow the terminal is.
pub(crate) const LEAST_ROOM: usize = 40;

/// As many frames as fit into `room` characters, from the leaf. The texts of frames come from [`frame_text`].
pub(crate) fn stack_line(frames: &[String], room: usize) -> String {
    const LINK: &str = " <- ";
    const MORE: &str = " <- …";
    let Some((leaf, callers)) = frames.split_first() else { return "[no stack]".to_owned() };
    let spare = if callers.is_empty() { 0 } else { length(MORE) };
    let mut out = cut(leaf, room.saturating_sub(spare));
    for (position, caller) in callers.iter().enumerate() {
        let spare = if position + 1 == callers.len() { 0 } else { length(MORE) };
        let left = room.saturating_sub(length(&out) + length(LINK) + spare);
        let fits = length(caller) <= left;
        // A piece of a long name says more than none: the leaf may be nothing but `operator new`.
        if fits || left >= SHORTEST_PIECE {
            out.push_str(LINK);
            out.push_str(&cut(caller, left));
        }
        if !fits {
            if spare > 0 || left < SHORTEST_PIECE {
                out.push_str(MORE);
            }
            break;
        }
    }
    out
}

/// A function and, where they are known, the last part of its file's path and the line (0: not known).
pub(crate) fn frame_text(name: &str, place: Option<(&str, u32)>) -> String {
    let mut text = cut(&printable(name), LONGEST_NAME);
    if let Some((file, line)) = place {
        let name = file.rsplit('/').next().unwrap_or(file);
        text.push(' ');
        text.push_str(&cut(&printable(name), LONGEST_NAME));
        if line > 0 {
            let _ = write!(text, ":{line}");
        }
    }
    text
}

/// `text` in at most `room` characters; what is cut out of its middle is shown as `…`.
pub(crate) fn cut(text: &str, room: usize) -> String {
    let length = length(text);
    if length <= room {
        return text.to_owned();
    }
    let kept = room.saturating_sub(1);
    let tail = kept / 2;
    let head = text.chars().take(kept - tail);
    head.chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// In characters.
pub(crate) fn length(text: &str) -> usize {
    text.chars().count()
}
