//! What the tests have seen, in Markdown.

use netfast_tests::matrix::Cell;

/// Two tables: a line for each path with a column for each engine as it was set up, and a line for each rule that was
/// kept with a column for each engine.
pub fn of(cells: &[Cell]) -> String {
    let (paths, rules): (Vec<&Cell>, Vec<&Cell>) = cells.iter().partition(|cell| cell.fast_share.is_some());
    let setting = |cell: &Cell| format!("{}, {}", engine(cell), cell.setting);
    let tables = [("path", grid(&paths, setting)), ("rules", grid(&rules, engine))];
    let written = tables.iter().filter_map(|(corner, lines)| {
        let (first, rest) = lines.split_first()?;
        let head = line(corner, first);
        let rule = line("---", &vec!["---".to_owned(); first.len()]);
        let rest = rest.iter().filter_map(|row| {
            let (name, cells) = row.split_first()?;
            Some(line(name, cells))
        });
        Some([head, rule].into_iter().chain(rest).collect::<Vec<_>>().join("\n"))
    });
    written.collect::<Vec<_>>().join("\n\n")
}

fn engine(cell: &Cell) -> String {
    if cell.kernel.is_empty() {
        cell.engine.clone()
    } else {
        format!("{}, Linux {}", cell.engine, cell.kernel)
    }
}

/// The names of the columns, then the rows, each with its name first. Nothing if there are no cells.
fn grid(cells: &[&Cell], column: impl Fn(&Cell) -> String) -> Vec<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    // What belongs to one path stands together, although the families are asked by tests of their own.
    let mut paths: Vec<(&str, Vec<&str>)> = Vec::new();
    for cell in cells {
        let name = column(cell);
        if !columns.contains(&name) {
            columns.push(name);
        }
        let place = paths
            .iter()
            .position(|(path, _)| *path == cell.path)
            .unwrap_or_else(|| {
                paths.push((&cell.path, Vec::new()));
                paths.len() - 1
            });
        if let Some((_, protocols)) = paths.get_mut(place)
            && !protocols.contains(&cell.protocol.as_str())
        {
            protocols.push(&cell.protocol);
        }
    }
    if columns.is_empty() {
        return Vec::new();
    }
    let rows = paths
        .iter()
        .flat_map(|(path, protocols)| protocols.iter().map(move |protocol| (*path, *protocol)));
    let rows: Vec<Vec<String>> = rows
        .map(|(path, protocol)| {
            let said = columns.iter().map(|name| {
                let mut found = cells
                    .iter()
                    .filter(|cell| column(cell) == *name && cell.path == path && cell.protocol == protocol);
                // Of several the last: a test that was repeated has repeated them all.
                found.next_back().map_or_else(|| "-".to_owned(), |cell| told(cell))
            });
            [format!("{path}, {protocol}")].into_iter().chain(said).collect()
        })
        .collect();
    [columns].into_iter().chain(rows).collect()
}

fn line(first: &str, others: &[String]) -> String {
    format!("| {first} | {} |", others.join(" | "))
}

fn told(cell: &Cell) -> String {
    let Some(share) = cell.fast_share else {
        return "kept".to_owned();
    };
    let fast = format!("{:.2} %", share * 100.0);
    if cell.exact_bytes > 0 {
        format!("{fast}, {} MiB", cell.exact_bytes >> 20)
    } else {
        fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(engine: &str, setting: &str, protocol: &str, fast_share: Option<f64>) -> Cell {
        Cell {
            engine: engine.into(),
            setting: setting.into(),
            kernel: String::new(),
            path: "docker0".into(),
            protocol: protocol.into(),
            fast_share,
            exact_bytes: if protocol == "TCP" { 1 << 20 } else { 0 },
        }
    }

    #[test]
    fn what_was_not_run_is_a_gap_and_not_a_success() {
        let emulated = Cell {
            kernel: "6.1.0".into(),
            ..cell("Docker 28.5.2", "a", "TCP", Some(0.9))
        };
        let cells = [
            cell("Docker 28.5.2", "a", "TCP", Some(0.998)),
            cell("Docker 28.5.2", "b", "UDP", Some(1.0)),
            cell("podman 5.8.2", "a", "isolation", None),
            cell("Docker 28.5.2", "c", "icc", None),
            emulated,
        ];
        assert_eq!(
            of(&cells),
            "| path | Docker 28.5.2, a | Docker 28.5.2, b | Docker 28.5.2, Linux 6.1.0, a |\n\
             | --- | --- | --- | --- |\n\
             | docker0, TCP | 99.80 %, 1 MiB | - | 90.00 %, 1 MiB |\n\
             | docker0, UDP | - | 100.00 % | - |\n\
             \n\
             | rules | podman 5.8.2 | Docker 28.5.2 |\n\
             | --- | --- | --- |\n\
             | docker0, isolation | kept | - |\n\
             | docker0, icc | - | kept |"
        );
    }

    #[test]
    fn both_families_of_a_path_stand_together() {
        let mut cells = vec![
            cell("a", "", "TCP", Some(1.0)),
            cell("a", "", "TCP over IPv6", Some(1.0)),
        ];
        cells.insert(
            1,
            Cell {
                path: "other".into(),
                ..cells[0].clone()
            },
        );
        let text = of(&cells);
        let rows: Vec<&str> = text
            .lines()
            .skip(2)
            .filter_map(|line| line.split(" | ").next())
            .collect();
        assert_eq!(rows, ["| docker0, TCP", "| docker0, TCP over IPv6", "| other, TCP"]);
    }
}
