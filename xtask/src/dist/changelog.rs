//! CHANGELOG.md as Debian's tools read a changelog (deb-changelog(5)).

use std::{env, process::Command};

use anyhow::{Context as _, Result};
use netfast_tests::cmd;

use crate::workspace::root;

/// Columns of a line.
const WIDTH: usize = 80;

/// The text for this version. What is not released yet is this version's, in one entry with what stands under its number.
pub fn debian(markdown: &str, version: &str, maintainer: &str) -> Result<String> {
    let mut entries: Vec<(&str, String, String)> = Vec::new();
    for section in markdown.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        // `[0.2.0] - 2026-12-01` or `[Unreleased]`
        let name = heading.split(']').next().unwrap_or_default().trim_start_matches('[');
        let date = heading.split(" - ").nth(1).map(str::trim);
        let (number, date) = match date {
            Some(date) => (name, rfc5322(&["--date", date])?),
            None => (version, rfc5322(&["--date", &format!("@{}", last_change()?)])?),
        };
        let changes = changes(body);
        if changes.is_empty() {
            continue;
        }
        match entries.last_mut() {
            Some((same, text, _)) if *same == number => text.push_str(&changes),
            Some(_) | None => entries.push((number, changes, date)),
        }
    }
    let entries = entries.into_iter().map(|(number, changes, date)| {
        format!("netfast ({number}) unstable; urgency=medium\n\n{changes}\n -- {maintainer}  {date}\n")
    });
    Ok(entries.collect::<Vec<_>>().join("\n"))
}

/// Each point of the lists, with its heading's first word where it begins.
fn changes(body: &str) -> String {
    let mut text = String::new();
    for part in body.split("\n### ").skip(1) {
        let (kind, list) = part.split_once('\n').unwrap_or((part, ""));
        for point in format!("\n{list}").split("\n- ").skip(1) {
            let point = point.split_whitespace().collect::<Vec<_>>().join(" ");
            wrap(&format!("{}: {point}", kind.trim()), &mut text);
        }
    }
    text
}

fn wrap(point: &str, text: &mut String) {
    let mut line = "  *".to_owned();
    for word in point.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 4 {
            text.push_str(&line);
            text.push('\n');
            "   ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// When the sources were changed last, in seconds since 1970, so that the same sources give the same package.
pub fn last_change() -> Result<u64> {
    if let Ok(seconds) = env::var("SOURCE_DATE_EPOCH") {
        return seconds.trim().parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let mut git = Command::new("git");
    let said = cmd::run(git.args(["log", "-1", "--format=%ct"]).current_dir(root()));
    // Sources that are in no repository have no such time.
    said.map_or(Ok(0), |said| said.trim().parse().context("what git says"))
}

fn rfc5322(when: &[&str]) -> Result<String> {
    let mut date = Command::new("date");
    cmd::run(date.args(["--utc", "--rfc-email"]).args(when).env("LC_ALL", "C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_become_entries() {
        let markdown = "# Changelog\n\nWords.\n\n## [Unreleased]\n\n### Added\n\n- One thing\n  and more.\n- Two.\n\n\
                        ## [0.1.0] - 2026-01-02\n\n### Fixed\n\n- Three.\n\n## [0.0.1] - 2026-01-01\n";
        let text = debian(markdown, "0.2.0", "M <m@example.org>").expect("a changelog");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "netfast (0.2.0) unstable; urgency=medium",
                "",
                "  * Added: One thing and more.",
                "  * Added: Two.",
                ""
            ]
        );
        assert!(
            text.contains("\nnetfast (0.1.0) unstable; urgency=medium\n\n  * Fixed: Three.\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n -- M <m@example.org>  Fri, 02 Jan 2026 00:00:00 +0000\n"),
            "{text}"
        );
    }

    /// Else a snapshot's changelog would begin with two entries of one version.
    #[test]
    fn what_came_after_a_release_of_the_same_number_is_in_its_entry() {
        let markdown =
            "# Changelog\n\n## [Unreleased]\n\n### Fixed\n\n- Two.\n\n## [0.2.0] - 2026-01-02\n\n### Added\n\n- One.\n";
        let text = debian(markdown, "0.2.0", "M <m@example.org>").expect("a changelog");
        assert_eq!(text.matches("netfast (").count(), 1, "{text}");
        assert!(text.contains("  * Fixed: Two.\n  * Added: One.\n\n -- M"), "{text}");
    }

    #[test]
    fn the_changelog_of_this_version_is_readable() {
        let markdown = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("a changelog");
        let text = debian(&markdown, "1", "M <m@example.org>").expect("a changelog");
        assert!(text.lines().filter(|line| line.starts_with("  * ")).count() > 50);
        let words = |line: &str| line.split_whitespace().count() > 2;
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH || !words(line)),
            "{text}"
        );
    }
}
