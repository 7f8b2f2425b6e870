//! What the documents tell users to type is what netfast understands.

use std::{error::Error as _, ffi::OsString, fs};

use clap::error::ErrorKind;
use netfast::{
    cli,
    config::{Config, RawConfig},
};
use netfast_tests::documents::{all, code, commands, is_placeholder};

#[test]
fn commands_in_documents_are_understood() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, text) in all().expect("documents") {
        for words in commands(&text, "netfast") {
            seen += 1;
            let has_placeholder = words.iter().any(|word| word.split(['=', ' ']).any(is_placeholder));
            let Err(error) = cli::command().try_get_matches_from(words.iter().map(OsString::from)) else {
                continue;
            };
            // A command may be named without what it is told.
            let is_short = matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::MissingRequiredArgument
            );
            let is_value = matches!(
                error.kind(),
                ErrorKind::InvalidSubcommand | ErrorKind::InvalidValue | ErrorKind::ValueValidation
            );
            let is_fine = is_short || (is_value && has_placeholder);
            if !is_fine {
                wrong.push(format!("{name}: {}: {error}", words.join(" ")));
            }
        }
    }
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
