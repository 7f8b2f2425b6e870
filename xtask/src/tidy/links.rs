//! Links between documents, and from them to sources: what they lead to must be there, headings included.

use std::{fs, iter, path::Path};

/// Checks the links of one document.
pub fn check(text: &str, path: &Path, found: &mut impl FnMut(usize, String)) {
    let dir = path.parent().unwrap_or(path);
    for (number, line) in text.lines().enumerate() {
        for target in targets(line) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let there = if file.is_empty() {
                path.to_owned()
            } else {
                dir.join(file)
            };
            if !file.is_empty() && !there.exists() {
                found(number + 1, format!("link to {file}, which does not exist"));
            } else if !heading.is_empty() && !has_heading(text, path, &there, heading) {
                found(number + 1, format!("link to {target}: there is no such heading"));
            }
        }
    }
}

/// Whether a document has this heading, by the name that GitHub gives it. Of other files nothing is known.
fn has_heading(text: &str, path: &Path, there: &Path, heading: &str) -> bool {
    if there.extension().is_none_or(|extension| extension != "md") {
        return true;
    }
    if there == path {
        return headings(text).any(|name| name == heading);
    }
    fs::read_to_string(there).is_ok_and(|other| headings(&other).any(|name| name == heading))
}

/// The names of a document's headings: in lower case, blanks as hyphens, without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split("```").step_by(2);
    let lines = parts.flat_map(str::lines).filter(|line| line.starts_with('#'));
    lines.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// What stands between `](` and `)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    iter::from_fn(move || {
        let (_, after) = rest.split_once("](")?;
        let (target, after) = after.split_once(')')?;
        rest = after;
        Some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn links_to_missing_files_and_headings_are_found() {
        let text = "# Here, `it` is\n[a](../README.md) [b](https://x.y/z) [c](#here-it-is)\n[d](missing.md#there)\n[e](#nowhere)\n\
                    [f](../README.md#limits)\n[g](../README.md#no-limits)\n```\n# not-a-heading\n```\n[h](#not-a-heading)\n";
        let path = root().join("docs/example.md");
        let mut lines = Vec::new();
        check(text, &path, &mut |line, _| lines.push(line));
        assert_eq!(lines, [3, 4, 6, 10]);
    }
}
