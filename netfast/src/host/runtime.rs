//! What the container runtime tells (Docker Engine API), and what its containers' namespaces hold.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::{IpNet, Mac};

/// Whether a container runtime is asked, and answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum RuntimeState {
    /// No runtime is configured: endpoints are known from rtnetlink alone.
    #[default]
    None,
    /// It answers.
    Connected {
        /// Its name, "Docker Engine - Community" or "Podman Engine" for instance, as it gives it.
        engine: String,
        /// Its version.
        version: String,
        /// The API version it speaks.
        api: String,
    },
    /// It does not answer; what is known of it is as it was.
    Disconnected {
        /// Since when.
        since: SystemTime,
        /// Why, in words.
        error: String,
    },
}

/// A network's identifier: 64 hexadecimal digits with Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NetworkId(pub String);

/// A container's identifier: 64 hexadecimal digits with Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ContainerId {
    /// The first twelve characters, as people know it.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl NetworkId {
    /// The first twelve characters, as people know it.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// One of the runtime's networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one switch of the runtime each")]
pub struct Network {
    /// Its identifier.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Its driver: `bridge`, `host`, `null`, `macvlan`, `ipvlan`, `overlay`, or a plug-in's name.
    pub driver: String,
    /// `local`, `swarm` or `global`.
    pub scope: String,
    /// Without a way out.
    pub internal: bool,
    /// Containers get IPv6 addresses.
    pub enable_ipv6: bool,
    /// Containers may join an overlay by hand.
    pub attachable: bool,
    /// It is the swarm's ingress network.
    pub ingress: bool,
    /// Its address pools.
    pub ipam: Vec<IpamPool>,
    /// The driver's options. Empty with podman.
    pub options: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Names are resolved at the network's gateway, in the host's namespace, as with podman's aardvark-dns; else inside the
    /// containers' namespaces, as by Docker.
    pub resolved_at_gateway: bool,
    /// The bridge device of a network with driver `bridge`: the option `com.docker.network.bridge.name`, else
    /// `docker0` for Docker's default network, else `br-` and twelve digits of the identifier. Where there is no such
    /// link it is the bridge that has the gateway's address. It need not exist. podman tells no name and makes the bridge with
    /// the first container: `None` until then.
    pub bridge_name: Option<String>,
}

/// One address pool of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IpamPool {
    /// The subnet.
    pub subnet: Option<IpNet>,
    /// The part of it that containers get addresses from.
    pub ip_range: Option<IpNet>,
    /// The host's address on it.
    pub gateway: Option<IpAddr>,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// It runs.
    #[default]
    Running,
    /// It is frozen; its interfaces are there.
    Paused,
    /// It runs, and was told to end.
    Stopping,
    /// It is being restarted; it has no interfaces for a moment.
    Restarting,
}

/// The verdict of a container's health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has no health check.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// Which namespace a container's interfaces are in (`HostConfig.NetworkMode`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Its own, first attached to the runtime's default bridge (`bridge` or `default`).
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// Its own, with loopback only.
    None,
    /// That of another container.
    Container(ContainerId),
    /// Its own, first attached to the network of this name or identifier.
    Network(String),
}

impl NetworkMode {
    /// Reads the API's text.
    pub fn parse(text: &str) -> Self {
        match text {
            "" | "default" | "bridge" => Self::Bridge,
            "host" => Self::Host,
            "none" => Self::None,
            other => match other.strip_prefix("container:") {
                Some(id) => Self::Container(ContainerId(id.into())),
                None => Self::Network(other.into()),
            },
        }
    }
}

/// A network namespace's identity: device and inode of its nsfs file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NetnsId {
    /// The device of nsfs.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

/// A running or paused container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Its identifier.
    pub id: ContainerId,
    /// Its name, without the leading slash.
    pub name: String,
    /// Its first process, in the PID namespace of the runtime; 0 when it has none.
    pub pid: u32,
    /// Whether it runs.
    pub state: ContainerState,
    /// What its health check says.
    pub health: Health,
    /// Which namespace its interfaces are in.
    pub network_mode: NetworkMode,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Its attachments to networks, in order of the network's name.
    pub attachments: Vec<Attachment>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// The namespace that its first process was found in, `None` if it could not be entered.
    pub netns: Option<NetnsId>,
    /// The links of that namespace, loopback left out; empty if the namespace is the observed one itself or could not
    /// be entered. Containers that share a namespace list the same links.
    pub interfaces: Vec<ContainerInterface>,
}

/// A container's place on a network, as the runtime tells it (`NetworkSettings.Networks`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The network's identifier; with podman, which gives the name here, resolved to the identifier.
    pub network: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// The runtime's identifier of the endpoint; empty with podman.
    pub endpoint_id: String,
    /// Its IPv4 address with the subnet's prefix.
    pub ipv4: Option<IpNet>,
    /// Its IPv6 address with the subnet's prefix.
    pub ipv6: Option<IpNet>,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Names that resolve to it on this network.
    pub aliases: Vec<String>,
    /// The IPv4 gateway.
    pub gateway: Option<IpAddr>,
}

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PublishedPort {
    /// The transport.
    pub protocol: Protocol,
    /// The host address it is published on; unspecified for all.
    pub host_ip: IpAddr,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
}

/// A link in a container's namespace, as netlink tells it there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContainerInterface {
    /// Its name in the container.
    pub name: String,
    /// Its index in the container.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// For a veth whose other end is in the observed namespace: that end's index here.
    pub host_ifindex: Option<u32>,
    /// Whether it is set up.
    pub up: bool,
    /// The kind of device, see [`super::LinkKind::name`].
    pub kind: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}
