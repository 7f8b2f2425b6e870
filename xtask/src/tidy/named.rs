//! Tests that documents name: each must be there, or a claim has lost its proof.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Whose claims name tests.
const DOCUMENT: &str = "SECURITY.md";
/// Where the tests are that need the whole.
const TESTS: &str = "tests/it";

/// Checks the document.
pub fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let mut tests = BTreeSet::new();
    collect(&root.join(TESTS), "", &mut tests)?;
    let missing: Vec<&str> = named(&text).filter(|name| !tests.contains(*name)).collect();
    ensure!(
        missing.is_empty(),
        "{DOCUMENT} names tests that are not there: {}",
        missing.join(", ")
    );
    Ok(())
}

/// Names of tests in a document: paths in code.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| code.contains("::"))
}

/// All tests below a directory, by the paths that the harness gives them.
fn collect(dir: &Path, module: &str, tests: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).context("a name")?;
        let within = match stem {
            "mod" | "main" => module.to_owned(),
            _ if module.is_empty() => stem.to_owned(),
            _ => format!("{module}::{stem}"),
        };
        if path.is_dir() {
            collect(&path, &within, tests)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            tests.extend(functions(&text).map(|name| format!("{within}::{name}")));
        }
    }
    Ok(())
}

/// The tests in a source.
fn functions(source: &str) -> impl Iterator<Item = &str> {
    let parts = source.split("#[test]\n").skip(1);
    parts.filter_map(|part| part.split_once("fn ")?.1.split('(').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn every_test_that_is_named_exists() {
        check(&root()).expect("they are there");
    }

    #[test]
    fn a_test_that_is_gone_is_missed() {
        let text = "not (`netns::hostile::floods_evict_nobody`, `netns::hostile::never_written`), says `netfast check`";
        let names: Vec<&str> = named(text).collect();
        assert_eq!(
            names,
            ["netns::hostile::floods_evict_nobody", "netns::hostile::never_written"]
        );
        let mut tests = BTreeSet::new();
        collect(&root().join(TESTS), "", &mut tests).expect("read");
        assert!(tests.contains(names[0]) && !tests.contains(names[1]));
        assert!(tests.len() > 200, "{}", tests.len());
    }
}
