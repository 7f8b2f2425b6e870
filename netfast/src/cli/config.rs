//! `netfast config`.

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::{
    cli::{CliError, ConfigCheckArgs, Exit, Global, output},
    config::{Config, RawConfig},
};

/// What helps against a wrong configuration.
pub const REMEDY: &str = "The netfast.toml that comes with netfast (in /usr/share/doc/netfast, or netfast/dist in the \
    sources) shows every key with its default.";

/// How the file says that something is not to be.
const NOWHERE: &str = "";

/// Reads the file as `netfast run` would, and prints what it comes to.
pub fn check(args: &ConfigCheckArgs, global: &Global) -> Result<(), CliError> {
    let config = Config::load(Some(&args.file), RawConfig::default())
        .map_err(|error| CliError::new(Exit::BadConfig, error).remedy(REMEDY))?;
    let text = render(&config).context("cannot write the configuration")?;
    output::print_report(global.json, &config, |_| text)
}

/// One line per key, as the file would have it; the default of those that differ.
pub fn render(config: &Config) -> serde_json::Result<String> {
    let keys = |config: &Config| -> serde_json::Result<Map<String, Value>> {
        serde_json::from_value(serde_json::to_value(config)?)
    };
    let defaults = keys(&Config::default())?;
    let lines = keys(config)?.into_iter().map(|(key, value)| {
        let shown = |value: &Value| if value.is_null() { NOWHERE.into() } else { value.clone() };
        let value_shown = shown(&value);
        // Strings, numbers, truth values and lists of these look alike in JSON and TOML.
        match defaults.get(&key).filter(|default| **default != value) {
            Some(default) => format!("{key} = {value_shown}  # default: {}\n", shown(default)),
            None => format!("{key} = {value_shown}\n"),
        }
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_a_configuration_file_again() {
        let config = Config {
            flows: 4096,
            metrics: None,
            uplinks: ["eth0".to_owned(), "bond0.7".to_owned()].into(),
            docker_host: "unix:///run/\"odd\"/docker.sock".into(),
            ..Config::default()
        };
        let text = render(&config).expect("text");
        assert!(text.contains("flows = 4096  # default: 262144\n"), "{text}");
        assert!(text.contains("revalidate_ms = 1000\n"), "{text}");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("netfast.toml");
        std::fs::write(&file, text).expect("a file");
        let again = Config::load(Some(&file), RawConfig::default()).expect("it is right");
        assert_eq!(again, config);
    }
}
