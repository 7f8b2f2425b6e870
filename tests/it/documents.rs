//! What the documents tell users to type is what netfast understands.

use std::{error::Error as _, fs};

use clap::error::ErrorKind;
use netfast::{
    cli,
    config::{Config, RawConfig},
};
use netfast_tests::documents::{all, code, is_placeholder, misunderstood};

#[test]
fn commands_in_documents_are_understood() {
    let parse = |words: &[String]| cli::command().try_get_matches_from(words).map(drop);
    let is_fine = |kind: ErrorKind, words: &[String]| {
        let has_placeholder = words.iter().any(|word| word.split(['=', ' ']).any(is_placeholder));
        // A command may be named without what it is told.
        let is_short = matches!(
            kind,
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                | ErrorKind::MissingSubcommand
                | ErrorKind::MissingRequiredArgument
        );
        let is_value = matches!(
            kind,
            ErrorKind::InvalidSubcommand | ErrorKind::InvalidValue | ErrorKind::ValueValidation
        );
        is_short || (is_value && has_placeholder)
    };
    let (seen, wrong) = misunderstood("netfast", parse, is_fine).expect("documents");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 100, "{seen}");
}

#[test]
fn keys_in_documents_are_keys() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("netfast.toml");
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, text) in all().expect("documents") {
        for (kind, code) in code(&text) {
            let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || "_6".contains(c));
            let is_setting = kind.is_empty() && code.split_once(" = ").is_some_and(|(key, _)| is_key(key));
            if kind != "toml" && !is_setting {
                continue;
            }
            seen += 1;
            fs::write(&file, &code).expect("a file");
            if let Err(error) = Config::load(Some(&file), RawConfig::default()) {
                wrong.push(format!(
                    "{name}: {code}: {error}: {:?}",
                    error.source().map(ToString::to_string)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 10, "{seen}");
}
