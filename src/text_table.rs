//! Tables for people: columns aligned, no lines between them, colour only where a terminal shows it.

use std::fmt::Write;

/// Between two columns.
const GAP: &str = "  ";

/// What a cell wants to be noticed as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// As expected.
    #[default]
    Plain,
    /// Worth a look.
    Odd,
    /// Not as it should be.
    Bad,
}

impl Tone {
    /// The terminal's sequence (ECMA-48, SGR); none for what needs no colour.
    fn sequence(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Odd => Some("\u{1b}[33m"),
            Self::Bad => Some("\u{1b}[31m"),
        }
    }
}

/// One cell. Never more than a line, whatever its text held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell of that tone.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: escape(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Text that a terminal may be given: names come from outside, and control characters with them.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// Rows below a heading.
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[Cell; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// One with only its heading.
    pub fn new(heading: [&str; COLUMNS]) -> Self {
        Self { rows: vec![heading.map(Cell::from)] }
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: [Cell; COLUMNS]) {
        self.rows.push(row);
    }

    /// The lines, each ended; nothing at all where there is no row.
    pub fn render(&self, colour: bool) -> String {
        let mut lines = String::new();
        if self.rows.len() < 2 {
            return lines;
        }
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            let mut owed = 0;
            for (cell, width) in row.iter().zip(widths) {
                let sequence = cell.tone.sequence().filter(|_| colour && !cell.text.is_empty());
                // Padding is owed until something follows: no line ends in spaces.
                if !cell.text.is_empty() {
                    let _ = write!(line, "{:owed$}", "");
                    owed = 0;
                }
                match sequence {
                    Some(sequence) => {
                        let _ = write!(line, "{sequence}{}\u{1b}[0m", cell.text);
                    }
                    None => line.push_str(&cell.text),
                }
                owed += width - cell.text.chars().count() + GAP.len();
            }
            line.push('\n');
            lines.push_str(&line);
        }
        lines
    }
}

/// A time span in its largest unit: "7s", "12m", "3h", "40d".
pub fn show_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A count that can be read at a glance: from ten million on, the power of two next to it.
pub fn show_count(count: u128) -> String {
    if count < 10_000_000 {
        return count.to_string();
    }
    // 2^n - 1 and the like are told as 2^n.
    let floor = count.ilog2();
    let rounded = if floor > 0 && count >> (floor - 1) & 1 == 1 { floor + 1 } else { floor };
    format!("~2^{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_line_ends_in_spaces() {
        let mut table = Table::new(["POD", "AGE", "STATE"]);
        table.push(["a/b".into(), "3h".into(), "alive".into()]);
        table.push(["default/wäb-0".into(), "".into(), "".into()]);
        table.push(["".into(), "".into(), Cell::toned("dead", Tone::Bad)]);
        let plain = "\
POD            AGE  STATE
a/b            3h   alive
default/wäb-0
                    dead
";
        assert_eq!(table.render(false), plain);
        assert_eq!(table.render(true), plain.replace("dead", "\u{1b}[31mdead\u{1b}[0m"));
        assert_eq!(Table::new(["POD"]).render(true), "");
    }

    #[test]
    fn no_text_reaches_the_terminal_s_controls() {
        let mut table = Table::new(["POD"]);
        table.push(["\u{1b}[2J\nroot".into()]);
        assert_eq!(table.render(true), "POD\n\\u{1b}[2J\\nroot\n");
    }

    #[test]
    fn numbers_are_told_at_a_glance() {
        let ages = [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (86_399, "23h"), (864_000, "10d")];
        for (seconds, shown) in ages {
            assert_eq!(show_age(seconds), shown);
        }
        let counts: [(u128, &str); 6] = [
            (0, "0"),
            (9_999_999, "9999999"),
            (1 << 64, "~2^64"),
            ((1 << 64) - 3, "~2^64"),
            ((1 << 64) + 5, "~2^64"),
            (u128::MAX, "~2^128"),
        ];
        for (count, shown) in counts {
            assert_eq!(show_count(count), shown);
        }
    }
}
