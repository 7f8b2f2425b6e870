//! Columns of text: headings in capitals, as Docker's lists have them, no lines, the last column wrapped to the
//! terminal.

use std::fmt::Write as _;

/// How to write for whoever reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; `None` does not wrap, so that a line stays one for grep.
    pub width: Option<usize>,
    /// Whether colours may be used.
    pub color: bool,
}

/// What a text is painted with, where colours may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// All is well.
    Green,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
    /// Less important.
    Dim,
}

impl Paint {
    /// The text in this colour.
    pub fn on(self, text: &str, style: Style) -> String {
        let code = match self {
            _ if !style.color => return text.into(),
            Self::Plain => return text.into(),
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
            Self::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            paint: Paint::Plain,
        }
    }
}

impl Cell {
    /// A coloured one.
    pub fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }
}

/// Rows under headings. A heading that begins with `>` aligns its column to the right, as numbers are.
#[derive(Debug)]
pub struct Table {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
    bare: bool,
}

/// Blanks between columns.
const GAP: usize = 2;
/// A last column narrower than this would be a ribbon: what does not fit goes below its row.
const NARROWEST: usize = 24;
/// How far such a text is moved to the right.
const BELOW: usize = 4;

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        let headings = headings.iter().map(|heading| match heading.strip_prefix('>') {
            Some(heading) => (heading, Align::Right),
            None => (*heading, Align::Left),
        });
        Self {
            headings: headings.collect(),
            rows: Vec::new(),
            indent: 0,
            bare: false,
        }
    }

    /// A table of `columns` columns without headings, all aligned to the left.
    pub fn bare(columns: usize) -> Self {
        Self {
            headings: vec![("", Align::Left); columns],
            rows: Vec::new(),
            indent: 0,
            bare: true,
        }
    }

    /// Moves it to the right.
    #[must_use]
    pub fn indent(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    /// Adds a row; cells that are missing at its end are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<_> = cells.into_iter().collect();
        row.resize(self.headings.len(), Cell::default());
        self.rows.push(row);
    }

    /// Without the columns in which nothing stands.
    #[must_use]
    pub fn without_empty(mut self) -> Self {
        let rows = &self.rows;
        let is_kept = |column: usize| rows.is_empty() || rows.iter().any(|row| !row[column].text.is_empty());
        let kept: Vec<bool> = (0..self.headings.len()).map(is_kept).collect();
        let mut each = kept.iter();
        self.headings.retain(|_| each.next().copied().unwrap_or(true));
        for row in &mut self.rows {
            let mut each = kept.iter();
            row.retain(|_| each.next().copied().unwrap_or(true));
        }
        self
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, each line ended by a newline. A last column in which nothing stands is left out.
    pub fn render(&self, style: Style) -> String {
        let mut widths = self.widths();
        if self
            .rows
            .iter()
            .all(|row| row.last().is_none_or(|cell| cell.text.is_empty()))
            && widths.len() > 1
        {
            widths.pop();
        }
        let mut text = String::new();
        if !self.bare {
            let headings: Vec<_> = self.headings.iter().map(|(heading, _)| Cell::from(*heading)).collect();
            self.render_row(&headings, &widths, style, &mut text);
        }
        for row in &self.rows {
            self.render_row(row, &widths, style, &mut text);
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> = self.headings.iter().map(|(heading, _)| width(heading)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = width(&cell.text).max(*widest);
            }
        }
        widths
    }

    fn render_row(&self, row: &[Cell], widths: &[usize], style: Style, text: &mut String) {
        let last = widths.len() - 1;
        let before: usize = self.indent + widths[..last].iter().map(|width| width + GAP).sum::<usize>();
        let whole: Vec<_> = row[last].text.split('\n').collect();
        // Where the last cell's lines are, and all of them.
        let (at, lines) = match style.width {
            Some(terminal) if self.headings[last].1 == Align::Left => {
                let room = terminal.saturating_sub(before);
                if room >= NARROWEST {
                    (before, wrap(&row[last].text, room))
                } else if whole.iter().all(|line| width(line) <= room) {
                    (before, whole)
                } else {
                    let at = self.indent + BELOW;
                    let below = wrap(&row[last].text, terminal.saturating_sub(at));
                    (at, [vec![""], below].concat())
                }
            }
            _ => (before, whole),
        };

        let mut line = " ".repeat(self.indent);
        for (i, cell) in row.iter().enumerate().take(widths.len()) {
            let shown = if i == last { lines[0] } else { &cell.text };
            let blanks = widths[i].saturating_sub(width(shown));
            let painted = cell.paint.on(shown, style);
            // Writing to a string cannot fail.
            let _ = match self.headings[i].1 {
                Align::Right => write!(line, "{:blanks$}{painted}", ""),
                Align::Left => write!(line, "{painted}{:blanks$}", ""),
            };
            line.push_str(if i == last { "" } else { "  " });
        }
        text.push_str(line.trim_end());
        text.push('\n');
        for rest in &lines[1..] {
            let _ = writeln!(text, "{:at$}{}", "", row[last].paint.on(rest, style));
        }
    }
}

/// How many columns a text takes. Names of containers, networks and interfaces are ASCII by their makers' rules; the
/// rest is ours.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Breaks at blanks so that no line is longer than `room`, unless a word is, and where the text itself breaks.
pub fn wrap(text: &str, room: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    for mut rest in text.split('\n') {
        while width(rest) > room {
            // The last blank that leaves a line within the room; failing that, the first one.
            let blanks = || {
                rest.char_indices()
                    .enumerate()
                    .filter(|(_, (at, c))| *c == ' ' && *at > 0)
            };
            let fitting = blanks().take_while(|(columns, _)| *columns <= room).last();
            let Some((_, (at, _))) = fitting.or_else(|| blanks().next()) else {
                break;
            };
            lines.push(rest[..at].trim_end());
            rest = rest[at..].trim_start();
        }
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&["NAME", ">PACKETS", "REASON"]);
        table.row([
            "web".into(),
            "12,345".into(),
            "shares the namespace of another container".into(),
        ]);
        table.row(["database".into(), "7".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_where_the_text_ends() {
        assert_eq!(
            example().render(Style::default()),
            "NAME      PACKETS  REASON\n\
             web        12,345  shares the namespace of another container\n\
             database        7\n"
        );
    }

    #[test]
    fn the_last_column_is_wrapped_to_the_terminal() {
        let style = Style {
            width: Some(46),
            color: false,
        };
        assert_eq!(
            example().indent(2).render(style),
            "  NAME      PACKETS  REASON\n\
             \x20 web        12,345  shares the namespace of\n\
             \x20                    another container\n\
             \x20 database        7\n"
        );
    }

    #[test]
    fn where_there_is_no_room_beside_a_row_there_is_some_below() {
        let style = Style {
            width: Some(40),
            color: false,
        };
        assert_eq!(
            example().render(style),
            "NAME      PACKETS  REASON\n\
             web        12,345\n\
             \x20   shares the namespace of another\n\
             \x20   container\n\
             database        7\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::bare(2);
        table.row([Cell::painted("ok", Paint::Green), "yes".into()]);
        table.row([Cell::painted("fail", Paint::Red), "no".into()]);
        let text = table.render(Style {
            width: None,
            color: true,
        });
        assert_eq!(text, "\x1b[32mok\x1b[0m    yes\n\x1b[31mfail\x1b[0m  no\n");
    }

    #[test]
    fn a_last_column_of_nothing_is_left_out() {
        let mut table = Table::new(&["NAME", "REASON"]);
        table.row(["web".into(), "".into()]);
        assert_eq!(table.render(Style::default()), "NAME\nweb\n");
    }

    #[test]
    fn long_words_are_not_broken() {
        assert_eq!(wrap("a verylongwordindeed b", 5), ["a", "verylongwordindeed", "b"]);
        assert_eq!(wrap("short", 5), ["short"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
