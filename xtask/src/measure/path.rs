//! The ways that are measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way that packets take through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Between two containers on the default bridge.
    Docker0,
    /// Between two containers on a user-defined bridge.
    User,
    /// From the outside to a published port.
    Published,
    /// From a container to the outside.
    Masquerade,
    /// From the host to a container.
    Host,
    /// From the host to a published port at a loopback address: through docker-proxy, or past it.
    Localhost,
    /// Between two containers on a macvlan network of the host's uplink.
    Macvlan,
    /// Between two containers of two hosts on an overlay network of a swarm.
    Overlay,
    /// Between two pods of two hosts, by flannel's backend `vxlan`.
    Flannel,
}

impl Path {
    /// What tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Docker0 => "docker0, container to container",
            Self::User => "user-defined bridge, container to container",
            Self::Published => "outside to published port",
            Self::Masquerade => "container to outside (masquerade)",
            Self::Host => "host to container",
            Self::Localhost => "host to published port at 127.0.0.1",
            Self::Macvlan => "macvlan, container to container",
            Self::Overlay => "overlay, container to container of two hosts",
            Self::Flannel => "flannel (vxlan), pod to pod of two hosts",
        }
    }

    /// What the command line calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker0 => "docker0",
            Self::User => "user",
            Self::Published => "published",
            Self::Masquerade => "masquerade",
            Self::Host => "host",
            Self::Localhost => "localhost",
            Self::Macvlan => "macvlan",
            Self::Overlay => "overlay",
            Self::Flannel => "flannel",
        }
    }
}
