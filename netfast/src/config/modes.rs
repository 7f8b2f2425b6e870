//! Keys with a few words for values.

use serde::{Deserialize, Serialize};

/// The container runtime that is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Docker, or anything that speaks its API.
    #[default]
    Docker,
    /// None: every bridge port with a veth is taken for a container.
    None,
}

/// What is done with the resolver's answers for a name that several containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AliasMode {
    /// Each answer begins with the next member.
    #[default]
    Rr,
    /// The answer is one address of netfast's own, and each connection to it goes to the next member.
    Vip,
    /// Nothing.
    Off,
}

impl AliasMode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Vip => "vip",
            Self::Off => "off",
        }
    }
}
