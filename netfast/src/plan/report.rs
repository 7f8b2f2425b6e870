//! What the plan says of every network and every endpoint, for people: fast, or slow and why.

use std::net::IpAddr;

use netfast_common::device::DeviceKey;
use serde::{Deserialize, Serialize};

/// Which path the packets of a network or an endpoint take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Their flows are learned and used.
    #[default]
    Fast,
    /// The kernel's own path, always.
    Slow(Slow),
}

impl Path {
    /// The slow path, with the usual text of the cause.
    pub fn slow(why: Why) -> Self {
        Self::Slow(Slow::new(why, why.text()))
    }

    /// The slow path, with a text that names the thing.
    pub fn slow_since(why: Why, text: impl Into<String>) -> Self {
        Self::Slow(Slow::new(why, text))
    }

    /// Whether it is the fast path.
    pub fn is_fast(&self) -> bool {
        matches!(self, Self::Fast)
    }
}

/// Why something stays on the slow path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The cause, for programs.
    pub why: Why,
    /// The cause, for people.
    pub text: String,
}

impl Slow {
    /// A cause with its text.
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
}

macro_rules! whys {
    ($($variant:ident $text:literal;)+) => {
        /// A cause for staying on the slow path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Why {
            $(#[doc = $text] $variant,)+
        }

        impl Why {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// One line of explanation.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

whys! {
    HostNetwork "shares the host's own namespace: there is no path to shorten";
    NoNetwork "has no network";
    SharedNamespace "shares another container's namespace: its packets are that container's";
    Macvlan "macvlan: the packets do not pass the host's stack";
    Ipvlan "ipvlan is not accelerated";
    Overlay "netfast is not in its network namespace";
    OtherDriver "this network driver is not accelerated";
    DisabledByLabel "switched off by the label netfast.enable=false";
    DisabledByConfig "switched off by the configuration";
    NoBridge "its bridge device does not exist";
    BridgeDown "its bridge device is down";
    BridgeShaped "its bridge device has a queueing discipline that must see every packet";
    ForeignPrograms "another program on tc must see every packet";
    RateRules "a packet-filter rule must see every packet";
    Accounting "conntrack accounting is on: it would count one packet a second of a flow";
    NoNamespace "its network namespace could not be entered";
    NoVeth "it has no veth that ends on the network's bridge";
    VethDown "its veth is down";
    NoMac "its MAC address is not known yet";
    NotLearned "the bridge does not learn where it is, and sends frames for it to all ports";
    SeveralMacs "several MAC addresses are behind its veth";
    TooManyDevices "the table of devices is full";
    NotAttached "attaching failed; netfast retries";
    DirectOff "direct forwarding is switched off by the configuration";
    BridgeNetfilter "packets within its bridge are shown to the packet filter";
    BridgeRules "packet-filter rules see the frames of its bridge";
    BridgeVlans "its bridge filters by VLAN";
    BridgeForgets "its bridge forgets where containers are within seconds";
    BridgeAnswers "its bridge answers itself for neighbours";
    PortNotForwarding "its port of the bridge does not forward";
    PortRestricted "its port of the bridge is restricted";
    PortShaped "its veth has a queueing discipline that must see every packet";
    PeerUnknown "its end of the veth cannot be asked about";
    VirtualAddresses "netfast itself translates its packets, for virtual addresses";
    NotHeard "the bridge has not heard from it";
    OvsUnwatched "what Open vSwitch does with packets cannot be watched";
    OvsHost "Open vSwitch hands packets to the host in another run of the kernel";
    OvsFlows "the flows of Open vSwitch decide about its packets";
}

/// What netfast knows of a network, and does for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// The runtime's identifier; empty without a runtime.
    pub id: String,
    /// Its name; without a runtime that of the bridge.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// `local`, `swarm` or `global`.
    pub scope: String,
    /// Without a way out.
    pub internal: bool,
    /// Its address pools.
    pub pools: Vec<PoolReport>,
    /// The name of its bridge device.
    pub bridge: Option<String>,
    /// The interface that its containers send by, if it is one of macvlan or ipvlan.
    #[serde(default)]
    pub parent: Option<String>,
    /// The index of its bridge device, if that exists.
    pub bridge_ifindex: Option<u32>,
    /// Which path its packets take.
    pub path: Path,
    /// Which path the packets between its containers and the host itself take: its bridge device's.
    #[serde(default)]
    pub host: Path,
    /// Which path its IPv6 packets take.
    #[serde(default)]
    pub ipv6: Path,
    /// Who else decides about its packets of IPv4.
    #[serde(default)]
    pub deciders: Deciders,
    /// Who else decides about those of IPv6.
    #[serde(default)]
    pub deciders6: Deciders,
    /// Whether packets between its containers are forwarded directly, since nobody judges them; `None`: it has no bridge.
    #[serde(default)]
    pub direct: Option<Path>,
    /// How big its containers' segments of TCP may be, in words, and why not bigger; `None`: nobody asked for bigger ones.
    #[serde(default)]
    pub segments: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

impl NetworkReport {
    /// Who else decides about packets to and from an address.
    pub const fn deciders_of(&self, ip: IpAddr) -> &Deciders {
        if ip.is_ipv4() { &self.deciders } else { &self.deciders6 }
    }
}

/// Who decides about the packets of a network besides what netfast knows, in words; `None`: nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deciders {
    /// About those that one container sends to another.
    pub within: Option<String>,
    /// About those that the host forwards from it or to it.
    pub routed: Option<String>,
    /// About those between a container and the host itself.
    pub host: Option<String>,
    /// Rules are asked about packets while they are within the bridge (`br_netfilter`), and may translate them there; and
    /// so may others, or nobody knows: what the host sends to a published port by DNAT stays slow.
    pub bridged: bool,
}

/// One address pool of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The subnet.
    pub subnet: Option<String>,
    /// The part of it that containers get addresses from.
    pub ip_range: Option<String>,
    /// The host's address on it.
    pub gateway: Option<String>,
}

/// What netfast knows of an endpoint, and does for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// The container's identifier; empty without a runtime.
    pub container_id: String,
    /// The container's name; without a runtime that of the veth.
    pub container: String,
    /// The interface's name in the container.
    pub interface: Option<String>,
    /// Its addresses, with the prefix where that is known.
    pub addresses: Vec<String>,
    /// Its MAC address.
    pub mac: Option<String>,
    /// The name of the host's side of the veth.
    pub veth: Option<String>,
    /// The index of the host's side of the veth.
    pub ifindex: Option<u32>,
    /// Its port of the bridge is isolated: nothing passes between it and another such port.
    #[serde(default)]
    pub isolated: bool,
    /// The container's side of its veth is down: nothing passes.
    #[serde(default)]
    pub is_cut_off: bool,
    /// Its published ports.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Which path its packets take.
    pub path: Path,
    /// Whether those between it and other containers of its bridge are forwarded directly, if any are there.
    #[serde(default)]
    pub direct: Option<Path>,
    /// Where its veth is, if that is in the namespace of an overlay network.
    #[serde(default)]
    pub sandbox: Option<InSandbox>,
}

/// A place in the namespace of an overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSandbox {
    /// What the daemon's directories for that namespace are called.
    pub directory: String,
    /// The index of the veth there.
    pub ifindex: u32,
}

impl EndpointReport {
    /// The host's side of the veth.
    pub fn device(&self) -> Option<DeviceKey> {
        self.ifindex.map(DeviceKey::served)
    }
}

/// A port of a container that is reached by the host's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The host's address that it is published on; unspecified for all.
    pub host_ip: IpAddr,
    /// The port there.
    pub host_port: u16,
    /// The port in the container.
    pub port: u16,
}

/// Puts an endpoint that could not be attached on the slow path in the reports.
pub fn report_failure(networks: &mut [NetworkReport], device: DeviceKey, text: &str) {
    let endpoints = networks.iter_mut().flat_map(|network| &mut network.endpoints);
    for endpoint in endpoints.filter(|endpoint: &&mut EndpointReport| endpoint.device() == Some(device)) {
        endpoint.path = Path::slow_since(Why::NotAttached, text);
    }
}

/// Puts endpoints that are still to be attached on the slow path in the reports.
pub fn report_waiting(networks: &mut [NetworkReport], is_attached: impl Fn(DeviceKey) -> bool) {
    let endpoints = networks.iter_mut().flat_map(|network| &mut network.endpoints);
    for endpoint in endpoints.filter(|endpoint: &&mut EndpointReport| endpoint.path.is_fast()) {
        if !endpoint.device().is_some_and(&is_attached) {
            endpoint.path = Path::slow_since(Why::NotAttached, "netfast is not attached to it yet");
        }
    }
}
