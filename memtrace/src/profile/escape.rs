//! Text that comes from the target, made safe to show.

use std::borrow::Cow;

/// `text` with everything that is not printable written as an escape: `\n`, `\t`, `\u{1b}`, ...
///
/// Names of functions, files and processes are chosen by whoever wrote the target. They may hold
/// newlines (which forge lines), terminal escape sequences, or marks that turn the direction of writing;
/// so all that is shown on a terminal, put into one line or into XML goes through here. What counts as
/// printable is the standard library's choice, [`char::escape_debug`]. Backslashes and quotes are left
/// alone: the result is for reading, not for turning back.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
    }
    Cow::Owned(out)
}

fn is_plain(c: char) -> bool {
    // escape_debug() gives one character for what it leaves as it is.
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_left_alone() {
        let name = r#"std::map<int, char>::operator[](int&&) 'a' "b" \ größe 函数"#;
        assert!(matches!(printable(name), Cow::Borrowed(same) if same == name));
    }

    #[test]
    fn what_moves_the_cursor_or_the_eye_is_escaped() {
        assert_eq!(printable("a\nb\tc\r\0"), r"a\nb\tc\r\0");
        assert_eq!(printable("\x1b[2Jgone\u{9b}2J\u{7f}"), r"\u{1b}[2Jgone\u{9b}2J\u{7f}");
        assert_eq!(printable("\u{202e}live\u{2028}\u{ffff}"), r"\u{202e}live\u{2028}\u{ffff}");
    }
}
