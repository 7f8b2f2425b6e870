//! The key and label `segments`.

use serde::{Deserialize, Serialize};

/// Whether containers' TCP may hand over bigger segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segments {
    /// As the kernel has it.
    #[default]
    Off,
    /// On networks whose packets stay on the host, and where all uplinks take them.
    Auto,
    /// On all networks.
    On,
}

impl Segments {
    /// What a label's value means; `None`: nothing.
    pub fn of_label(value: &str) -> Option<Self> {
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        match value {
            _ if is("off") || is("false") => Some(Self::Off),
            _ if is("auto") => Some(Self::Auto),
            _ if is("on") || is("true") => Some(Self::On),
            _ => None,
        }
    }
}
