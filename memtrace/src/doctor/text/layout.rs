//! Lines, columns and colours.

use super::TextOptions;

/// The first word of a check's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Warn,
    Unknown,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::No => "no",
            Self::Warn => "warn",
            Self::Unknown => "-",
        }
    }

    /// Green, red, yellow, faint (ECMA-48 SGR).
    fn color(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::No => "31",
            Self::Warn => "33",
            Self::Unknown => "2",
        }
    }
}

const BOLD: &str = "1";
const FAINT: &str = "2";

/// The width of the column with the status, and the indentation before it.
const STATUS_WIDTH: usize = 4;
const INDENT: usize = 2;
const GAP: usize = 2;

/// A text that grows. Everything that is put into it must be printable.
pub(super) struct Layout {
    options: TextOptions,
    name_width: usize,
    out: String,
}

impl Layout {
    pub(super) fn new(options: TextOptions, name_width: usize) -> Self {
        Self { options, name_width, out: String::new() }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn colored(&self, text: &str, color: &str) -> String {
        if self.options.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Begins a group.
    pub(super) fn heading(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let text = self.colored(text, BOLD);
        self.line(&text);
    }

    /// Begins a group inside of a group.
    pub(super) fn subheading(&mut self, text: &str) {
        self.out.push('\n');
        let text = self.colored(text, BOLD);
        self.line(&format!("{:INDENT$}{text}", ""));
    }

    /// A check: its status, its name, and what there is to say.
    pub(super) fn check(&mut self, status: Status, name: &str, lines: &[String]) {
        let column = INDENT + STATUS_WIDTH + GAP + self.name_width + GAP;
        let word = format!("{:STATUS_WIDTH$}", status.word());
        let word = self.colored(&word, status.color());
        let mut begin =
            format!("{:INDENT$}{word}{:GAP$}{name:width$}{:GAP$}", "", "", "", width = self.name_width);
        for line in lines {
            for part in wrap(line, self.options.width.saturating_sub(column)) {
                self.line(&format!("{begin}{part}"));
                begin = " ".repeat(column);
            }
        }
    }

    /// A point of a list.
    pub(super) fn item(&mut self, text: &str) {
        let mut begin = format!("{:INDENT$}- ", "");
        for part in wrap(text, self.options.width.saturating_sub(begin.len())) {
            self.line(&format!("{begin}{part}"));
            begin = " ".repeat(INDENT + 2);
        }
    }

    /// Running text below a subheading.
    pub(super) fn paragraph(&mut self, text: &str) {
        let indent = 2 * INDENT;
        for part in wrap(text, self.options.width.saturating_sub(indent)) {
            let part = self.colored(&part, FAINT);
            self.line(&format!("{:indent$}{part}", ""));
        }
    }

    /// Rows of the same columns below a subheading; the first row is the header.
    pub(super) fn table<const N: usize>(&mut self, rows: Vec<[String; N]>) {
        let mut widths = [0; N];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}{:GAP$}", ""));
            let text = cells.collect::<String>();
            let text = text.trim_end();
            let text = if index == 0 { self.colored(text, FAINT) } else { text.to_owned() };
            self.line(&format!("{:indent$}{text}", "", indent = 2 * INDENT));
        }
    }
}

/// Lines of at most `width` characters, broken at spaces; a longer word stays whole. A terminal that is
/// too narrow for columns breaks the lines itself.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(30);
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split(' ') {
        let word_length = word.chars().count();
        match lines.last_mut() {
            Some(line) if length + 1 + word_length <= width => {
                line.push(' ');
                line.push_str(word);
                length += 1 + word_length;
            }
            _ => {
                lines.push(word.to_owned());
                length = word_length;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces() {
        let text = "one two three four five six seven eight";
        assert_eq!(wrap(text, 30), ["one two three four five six", "seven eight"]);
        assert_eq!(wrap(&"x".repeat(50), 30), ["x".repeat(50)]);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut layout = Layout::new(TextOptions { color: false, width: 50 }, 6);
        layout.check(Status::Ok, "short", &["fine".to_owned()]);
        layout.check(Status::Warn, "longer", &["a sentence that does not fit into one line".to_owned()]);
        layout.table(vec![["a".to_owned(), "b".to_owned()], ["ccc".to_owned(), "d".to_owned()]]);
        let expected = [
            "  ok    short   fine",
            "  warn  longer  a sentence that does not fit into",
            "                one line",
            "    a    b",
            "    ccc  d\n",
        ];
        assert_eq!(layout.finish(), expected.join("\n"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut layout = Layout::new(TextOptions { color: true, width: 80 }, 1);
        layout.check(Status::No, "x", &["y".to_owned()]);
        assert_eq!(layout.finish(), "  \x1b[31mno  \x1b[0m  x  y\n");
    }
}
