//! What documents tell people to type: commands, and lines of the configuration.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;

/// The project's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents for users and developers, by their paths from the project's directory. What the change log says was true of an
/// older version.
pub fn all() -> Result<Vec<(String, String)>> {
    let mut names: Vec<String> = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md"]
        .map(String::from)
        .into();
    for entry in fs::read_dir(root().join("docs")).context("docs")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    let read = names.into_iter().map(|name| {
        let text = fs::read_to_string(root().join(&name)).with_context(|| name.clone())?;
        Ok((name, text))
    });
    read.collect()
}

/// A document's code: blocks with what they are of (`sh`), and what stands in a line of text.
pub fn code(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 1 {
            let (kind, block) = part.split_once('\n').unwrap_or((part, ""));
            found.push((kind.trim(), block.replace("\\\n", " ")));
        } else {
            // A span may go on in the next line, but not in the next paragraph.
            let paragraphs = part.split("\n\n");
            let spans = paragraphs.flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
            found.extend(spans.map(|span| ("", span.replace('\n', " "))));
        }
    }
    found
}

/// How many command lines of `program` the documents have, and of those that are not understood what is wrong: what `parse` says, where
/// `is_fine` does not say that this is what a document may leave out or leave open.
pub fn misunderstood(
    program: &str,
    parse: impl Fn(&[String]) -> Result<(), clap::Error>,
    is_fine: impl Fn(ErrorKind, &[String]) -> bool,
) -> Result<(usize, Vec<String>)> {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, text) in all()? {
        for words in commands(&text, program) {
            seen += 1;
            if let Err(error) = parse(&words)
                && !is_fine(error.kind(), &words)
            {
                wrong.push(format!("{name}: {}: {error}", words.join(" ")));
            }
        }
    }
    Ok((seen, wrong))
}

/// The command lines of `program` (one word, or several) in a document, as their words. What people are to replace stays, and of
/// alternatives the first is taken; brackets around what may be left out are dropped.
fn commands(text: &str, program: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (kind, code) in code(text) {
        if !["", "sh", "yaml"].contains(&kind) {
            continue;
        }
        for line in code.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            for command in line.split([';', '&']).flat_map(|part| part.split(" | ")) {
                let command = command.trim().trim_start_matches("sudo ");
                let Some(rest) = command.strip_prefix(program) else {
                    continue;
                };
                if rest.is_empty() || rest.starts_with(' ') {
                    found.push(words(program, rest));
                }
            }
        }
    }
    found
}

fn words(program: &str, rest: &str) -> Vec<String> {
    let mut words = vec![program.to_owned()];
    // Quotes only keep words together.
    for (number, part) in rest.split(['\'', '"']).enumerate() {
        if number % 2 == 1 {
            words.push(part.into());
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with('>') || word.starts_with("2>") {
                return words;
            }
            let word = word.replace(['[', ']', '\\'], "");
            let first = word.split('|').next().unwrap_or_default();
            if !first.is_empty() && !first.contains('…') && first != "..." {
                words.push(first.into());
            }
        }
    }
    words
}

/// Whether a word stands for what people are to write: `NAME`, `DEST:PORT`.
pub fn is_placeholder(word: &str) -> bool {
    let letters: Vec<char> = word.chars().filter(|c| c.is_alphabetic()).collect();
    letters.len() > 1 && letters.iter().all(|c| c.is_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_text_and_in_blocks() {
        let text = "Say `netfast status [NETWORK\\|CONTAINER]`, or `netfast explain\n--reason NAME` or `netfast-other`.\n\n\
                    ```sh\nsudo netfast run --wait   # the daemon\nsystemctl stop x && netfast detach; netfast trace 'tcp and port 1' > f\n```\n\
                    ```toml\nnetfast = 1\n```\n";
        let found: Vec<String> = commands(text, "netfast").iter().map(|words| words.join("_")).collect();
        assert_eq!(
            found,
            [
                "netfast_status_NETWORK",
                "netfast_explain_--reason_NAME",
                "netfast_run_--wait",
                "netfast_detach",
                "netfast_trace_tcp and port 1"
            ]
        );
        assert!(is_placeholder("DEST:PORT") && !is_placeholder("-c") && !is_placeholder("Web"));
    }

    #[test]
    fn the_documents_are_there() {
        let all = all().expect("documents");
        assert!(all.len() > 15, "{}", all.len());
    }
}
