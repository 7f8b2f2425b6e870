//! Text tables.

use super::{
    lab::Path,
    metric::{FIGURES, Figure},
    sample::{Samples, Spread, Variant},
};

/// Rows of cells; the first column is set left, the others right.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }

    /// The text, columns two blanks apart.
    pub fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.0
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.0 {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    if column == 0 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// One path's figures: median (and, of more than one round, smallest and largest) of each variant, and netfast's
/// ratio to the others.
pub fn of_path(samples: &Samples, path: Path, variants: &[Variant]) -> String {
    let mut table = Table::default();
    let others: Vec<Variant> = variants
        .iter()
        .copied()
        .filter(|variant| *variant != Variant::Netfast)
        .collect();
    let mut head = vec![path.title().to_owned(), String::new()];
    head.extend(variants.iter().map(|variant| variant.title().to_owned()));
    if variants.contains(&Variant::Netfast) {
        head.extend(others.iter().map(|other| format!("netfast/{}", other.title())));
    }
    table.row(head);
    for figure in FIGURES {
        let spreads: Vec<Option<Spread>> = variants
            .iter()
            .map(|variant| samples.spread(path, *variant, figure.name))
            .collect();
        if spreads.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![format!("  {}", figure.title), figure.unit.to_owned()];
        row.extend(
            spreads
                .into_iter()
                .map(|spread| spread.map_or_else(String::new, |spread| with_range(spread, &figure))),
        );
        for other in &others {
            let ratio = samples.ratio(path, *other, figure.name);
            row.push(ratio.map_or_else(String::new, |ratio| format!("{:.2}x", ratio.median)));
        }
        table.row(row);
    }
    table.render()
}

/// The median, and the range if there is one.
pub fn with_range(spread: Spread, figure: &Figure) -> String {
    let median = number(spread.median, figure);
    if spread.min < spread.max {
        format!(
            "{median} ({}-{})",
            number(spread.min, figure),
            number(spread.max, figure)
        )
    } else {
        median
    }
}

/// A figure with the digits that mean something.
pub fn number(value: f64, figure: &Figure) -> String {
    match figure.unit {
        "packets/s" => format!("{:.0}k", value / 1e3),
        "Gb/s" | "µs" => format!("{value:.1}"),
        "%" => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(["a", "bb", "c"]);
        table.row(["long", "1", "333"]);
        assert_eq!(table.render(), "a     bb    c\nlong   1  333\n");
    }
}
