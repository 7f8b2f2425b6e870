//! Labels of networks and containers, and what their values mean.

use std::collections::BTreeMap;

use crate::{config::Config, host::Network, plan::report::Why};

/// Switches a network or a container off.
pub const ENABLE: &str = "netfast.enable";

/// Whether a network or a container is switched off.
pub fn is_off(labels: &BTreeMap<String, String>) -> bool {
    labels.get(ENABLE).is_some_and(|value| is_false(value))
}

/// Who has switched a network off, if it is.
pub fn why_off(network: &Network, config: &Config) -> Option<Why> {
    let disabled = &config.disabled_networks;
    if disabled.contains(&network.name) || disabled.contains(&network.id.0) {
        Some(Why::DisabledByConfig)
    } else if is_off(&network.labels) {
        Some(Why::DisabledByLabel)
    } else {
        None
    }
}

/// Whether a network is switched off.
pub fn is_switched_off(network: &Network, config: &Config) -> bool {
    why_off(network, config).is_some()
}

/// Whether a label's value means no.
pub fn is_false(value: &str) -> bool {
    ["false", "0", "no", "off"]
        .iter()
        .any(|no| value.eq_ignore_ascii_case(no))
}

/// Whether a label is there and its value means yes.
pub fn is_set(labels: &BTreeMap<String, String>, label: &str) -> bool {
    let is_true = |value: &String| {
        ["true", "1", "yes", "on"]
            .iter()
            .any(|yes| value.eq_ignore_ascii_case(yes))
    };
    labels.get(label).is_some_and(is_true)
}
