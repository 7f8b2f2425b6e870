//! The configuration in words, for the log.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{config::Config, report::units::duration};

/// What differs from the defaults.
pub fn configuration(config: &Config) -> String {
    let said: Vec<String> = differences(&Config::default(), config)
        .into_iter()
        .map(|(key, _, value)| format!("{key} {value}"))
        .collect();
    if said.is_empty() {
        return "all as by default".into();
    }
    said.join(", ")
}

/// What changed from one to the other.
pub fn changes(old: &Config, new: &Config) -> String {
    let said: Vec<String> = differences(old, new)
        .into_iter()
        .map(|(key, before, after)| format!("{key} {before} -> {after}"))
        .collect();
    if said.is_empty() {
        return "nothing changed".into();
    }
    said.join(", ")
}

/// Keys with their values in both, where these differ.
fn differences(old: &Config, new: &Config) -> Vec<(String, String, String)> {
    let keys = |config: &Config| match serde_json::to_value(config) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    let old = keys(old);
    keys(new)
        .into_iter()
        .filter_map(|(key, after)| {
            let before = old.get(&key)?;
            if *before == after {
                return None;
            }
            let (before, after) = (value(&key, before), value(&key, &after));
            let name = key.strip_suffix(MILLISECONDS).unwrap_or(&key);
            Some((name.to_owned(), before, after))
        })
        .collect()
}

/// The end of the names of times.
const MILLISECONDS: &str = "_ms";

fn value(key: &str, value: &Value) -> String {
    match value {
        Value::Number(number) if key.ends_with(MILLISECONDS) => match number.as_u64() {
            Some(ms) if ms % 1000 == 0 => format!("{} s", ms / 1000),
            Some(ms) if ms < 1000 => format!("{ms} ms"),
            Some(ms) => duration(Duration::from_millis(ms)),
            None => number.to_string(),
        },
        Value::Null => "off".into(),
        Value::String(text) => text.clone(),
        Value::Array(parts) if parts.is_empty() => "none".into(),
        Value::Array(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| self::value("", part)).collect();
            parts.join(" and ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_words() {
        let old = Config::default();
        assert_eq!(changes(&old, &old), "nothing changed");
        let new = Config {
            revalidate_ms: 2000,
            allow_rate_rules: true,
            metrics: None,
            uplinks: ["bond0".to_owned(), "eth0".to_owned()].into(),
            ..Config::default()
        };
        assert_eq!(
            changes(&old, &new),
            "allow_rate_rules false -> true, metrics 127.0.0.1:9669 -> off, revalidate 1 s -> 2 s, uplinks none -> bond0 and \
             eth0"
        );
    }

    #[test]
    fn the_configuration_is_what_is_not_by_default() {
        assert_eq!(configuration(&Config::default()), "all as by default");
        let config = Config {
            revalidate_ms: 1500,
            runtime: crate::config::Runtime::None,
            ..Config::default()
        };
        assert_eq!(configuration(&config), "revalidate 1.5 s, runtime none");
    }
}
