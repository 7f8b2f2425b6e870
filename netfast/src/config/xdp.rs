//! The key `xdp`.

use serde::{Deserialize, Serialize};

/// Whether datagrams that come in by uplinks may be sent to containers before there is a `struct sk_buff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// No.
    #[default]
    Off,
    /// On network cards whose driver has XDP.
    Auto,
    /// On uplinks that are veths as well.
    On,
}

impl XdpMode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::On => "on",
        }
    }
}
