//! A scenario: a container host, rules, conversations, and what happens to them in which order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{family::Family, rule::Rule, step::Step};

/// Somebody who sends and receives packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Container: its bridge, and its number there.
    Container(usize, usize),
    /// Outside client 0 or 1, behind the uplink of that number.
    Outside(usize),
}

impl Place {
    /// A name for notes and namespaces.
    pub fn name(self) -> String {
        match self {
            Self::Container(bridge, index) => format!("c{bridge}{index}"),
            Self::Outside(uplink) => format!("lan{uplink}"),
        }
    }
}

/// What a host is made of. Scenarios with the same shape can share namespaces, one after the other.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, of the host or of its kernel"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Containers on each bridge.
    pub bridges: Vec<usize>,
    /// Everybody has IPv6 addresses besides, and the engine rules for them.
    pub six: bool,
    /// Whether bridged packets pass iptables, and ip6tables where there is IPv6.
    pub br_netfilter: bool,
    /// netfast's interval of revalidation, in milliseconds.
    pub revalidate_ms: u64,
    /// Packets of each direction that netfast only counts before it learns.
    pub learn_after: u8,
    /// conntrack does not check checksums (`nf_conntrack_checksum` 0), with netfast off and on, so packets with wrong
    /// ones are translated like others; else it leaves them alone.
    pub unsummed: bool,
    /// conntrack judges windows (`nf_conntrack_tcp_be_liberal` 0), with netfast off and on. netfast takes that from the
    /// connections that it carries, and only from those; so in such shapes all segments are in their windows.
    pub strict: bool,
    /// netfast sends datagrams that come from outside to containers by XDP. With a program at a veth's driver the kernel takes
    /// segmentation from its other end, so in such shapes nobody sends segments at once.
    #[serde(default)]
    pub xdp: bool,
}

impl Shape {
    /// Families that everybody has addresses of.
    pub const fn families(&self) -> &'static [Family] {
        if self.six {
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        }
    }

    /// Its containers.
    pub fn containers(&self) -> Vec<Place> {
        let bridges = self.bridges.iter().enumerate();
        bridges
            .flat_map(|(bridge, count)| (0..*count).map(move |index| Place::Container(bridge, index)))
            .collect()
    }
}

/// A published port; netfast's lab does what an engine would for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Bridge and number of the container.
    pub container: (usize, usize),
    /// On one address of the host only: that of this uplink.
    pub address: Option<usize>,
}

/// What the engine's own rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Bridges that are internal networks.
    pub internal: Vec<usize>,
    /// Bridges with `icc=false`.
    pub no_icc: Vec<usize>,
    /// Published ports: number N is [`PUBLISHED_PORT`] + N on the host, [`CONTAINER_PORT`] + N in the container.
    pub published: Vec<Published>,
    /// `userland-proxy=false`: containers reach published ports by translation.
    pub hairpin: bool,
    /// The host is a router between its uplinks, too.
    pub routes_between_uplinks: bool,
}

/// First of the published ports on the host.
pub const PUBLISHED_PORT: u16 = 8080;
/// First of the published ports in containers.
pub const CONTAINER_PORT: u16 = 8000;
/// Real sockets have ports from here on: the same published ports again, this much higher, and those of
/// transfers. What has no such port is sent and received by raw sockets.
pub const REAL_PORTS: u16 = 40_000;
/// The port of the host's own listener.
pub const HOST_PORT: u16 = 7100;

/// Transport protocols that have conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As rules spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How a client gets to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Way {
    /// By its own address.
    Direct(Place),
    /// By a published port, on the host's address on this uplink.
    Published(usize, usize),
    /// To the host that is behind the uplinks: a route says behind which.
    Behind,
    /// To the host's own listener.
    Host,
}

/// Two who talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Address family.
    pub family: Family,
    /// Protocol.
    pub protocol: Protocol,
    /// Who begins.
    pub client: Place,
    /// Its port.
    pub port: u16,
    /// To whom.
    pub way: Way,
    /// Port of the server, unless the way says.
    pub to_port: u16,
}

impl Talk {
    /// The port that the client sends datagrams from which nobody answers, or somebody late.
    pub const fn lone_port(&self) -> u16 {
        self.port - 10_000
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The seed that it was made from.
    pub seed: u64,
    /// The host.
    pub shape: Shape,
    /// The engine's rules.
    pub base: Base,
    /// Others' rules, there from the beginning.
    pub rules: Vec<Rule>,
    /// Conversations.
    pub talks: Vec<Talk>,
    /// What happens, in this order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.shape)?;
        writeln!(f, "  {:?}", self.base)?;
        for (number, rule) in self.rules.iter().enumerate() {
            writeln!(f, "  rule {number}: {rule:?}")?;
        }
        for (number, talk) in self.talks.iter().enumerate() {
            writeln!(f, "  talk {number}: {talk:?}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  step {number}: {step:?}")?;
        }
        Ok(())
    }
}
