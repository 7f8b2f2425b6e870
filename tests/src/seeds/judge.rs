//! What others attach to the host and to containers, and what else can stop a packet without being a rule.

use serde::{Deserialize, Serialize};

use super::{family::Family, scenario::Place, step::Device};

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spot {
    /// Of the host.
    Host(Device),
    /// A container's, in its own namespace.
    Inside(Place),
}

/// Where on an interface something is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// tcx, before or behind what is there.
    Tcx {
        /// Or ingress.
        egress: bool,
        /// Before all others, or behind them.
        first: bool,
    },
    /// A filter of the clsact queueing discipline.
    Filter {
        /// Or ingress.
        egress: bool,
    },
    /// A filter of a block that clsact shares.
    Block {
        /// Or ingress.
        egress: bool,
    },
    /// XDP in the driver, where the interface has it.
    XdpNative,
    /// XDP in the stack.
    XdpGeneric,
    /// A chain of nftables' family netdev.
    Netdev {
        /// Or ingress.
        egress: bool,
    },
}

/// What it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prey {
    /// All of its family.
    All,
    /// Frames of more than [`LONG`] bytes.
    Long,
    /// What bears the mark [`MARK`](super::names::MARK); XDP knows no marks, and takes the long ones.
    Marked,
}

/// Longer frames are long: so much more than ordinary ones, and less than a link carries, that no header matters.
pub const LONG: u16 = 600;

/// Somebody else's program or chain, attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Packets of which family it looks at.
    pub family: Family,
    /// To what.
    pub spot: Spot,
    /// Where there.
    pub hook: Hook,
    /// What it drops.
    pub prey: Prey,
}

impl Foreign {
    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match (self.hook, self.spot) {
            (Hook::Tcx { .. }, Spot::Inside(_)) => "tcx inside a container",
            (
                Hook::Tcx {
                    egress: false,
                    first: true,
                },
                _,
            ) => "tcx, ingress, before",
            (
                Hook::Tcx {
                    egress: false,
                    first: false,
                },
                _,
            ) => "tcx, ingress, behind",
            (
                Hook::Tcx {
                    egress: true,
                    first: true,
                },
                _,
            ) => "tcx, egress, before",
            (
                Hook::Tcx {
                    egress: true,
                    first: false,
                },
                _,
            ) => "tcx, egress, behind",
            (Hook::Filter { egress: false }, _) => "tc filter, ingress",
            (Hook::Filter { egress: true }, _) => "tc filter, egress",
            (Hook::Block { egress: false }, _) => "shared tc block, ingress",
            (Hook::Block { egress: true }, _) => "shared tc block, egress",
            (Hook::XdpNative, Spot::Inside(_)) => "native XDP inside a container",
            (Hook::XdpNative, Spot::Host(_)) => "native XDP on the host",
            (Hook::XdpGeneric, Spot::Inside(_)) => "generic XDP inside a container",
            (Hook::XdpGeneric, Spot::Host(_)) => "generic XDP on the host",
            (Hook::Netdev { egress: false }, _) => "netdev chain, ingress",
            (Hook::Netdev { egress: true }, _) => "netdev chain, egress",
        }
    }

    /// On what, for the coverage table.
    pub const fn place(self) -> &'static str {
        match self.spot {
            Spot::Host(Device::Veth(_)) => "attached to a veth",
            Spot::Host(Device::Bridge(_)) => "attached to a bridge",
            Spot::Host(Device::Uplink(_)) => "attached to an uplink",
            Spot::Inside(_) => "attached inside a container",
        }
    }
}

/// What makes the host drop what it would forward, without a packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hole {
    /// A blackhole route to a container.
    Route(Place, Family),
    /// A policy rule: what comes from a container is dropped.
    Rule(Place, Family),
    /// The route to the host behind the uplinks goes by a nexthop object, by which it arrives.
    Nexthop,
    /// That object becomes a blackhole, and the route stays as it was.
    NexthopGone,
    /// A policy of xfrm: what comes from a container is not forwarded.
    Xfrm(Place, Family),
    /// A static FDB entry: the first container's MAC address is at the second's port.
    Station(Place, Place),
}

impl Hole {
    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Route(..) => "blackhole route",
            Self::Rule(..) => "blackhole policy rule",
            Self::Nexthop => "route by a nexthop object",
            Self::NexthopGone => "nexthop object replaced by a blackhole",
            Self::Xfrm(..) => "xfrm policy",
            Self::Station(..) => "static FDB entry",
        }
    }
}

/// Switches that each interface has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switch {
    /// Strict reverse path filter (`rp_filter` 1).
    ReversePath,
    /// `forwarding` 0.
    Forwarding,
    /// `accept_local` 1.
    AcceptLocal,
    /// `route_localnet` 1.
    RouteLocalnet,
}

impl Switch {
    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ReversePath => "an interface's rp_filter",
            Self::Forwarding => "an interface's forwarding",
            Self::AcceptLocal => "an interface's accept_local",
            Self::RouteLocalnet => "an interface's route_localnet",
        }
    }

    /// Its name below `net/ipv4/conf`, what it is set to, and what it was.
    pub const fn setting(self) -> (&'static str, u8, u8) {
        match self {
            Self::ReversePath => ("rp_filter", 1, 0),
            Self::Forwarding => ("forwarding", 0, 1),
            Self::AcceptLocal => ("accept_local", 1, 0),
            Self::RouteLocalnet => ("route_localnet", 1, 0),
        }
    }
}

/// Queueing disciplines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shaper {
    /// First in, first out.
    Fifo,
    /// A token bucket that frames over [`LONG`] bytes do not fit into, and so fast that no other has to wait.
    Bucket,
}

/// Kinds of steps that a long run must have had often enough; not that a bridge filters by VLAN, which not every kernel can
/// (`CONFIG_BRIDGE_VLAN_FILTERING`).
pub const KINDS: [&str; 50] = [
    "tcx inside a container",
    "tcx, ingress, before",
    "tcx, ingress, behind",
    "tcx, egress, before",
    "tcx, egress, behind",
    "tc filter, ingress",
    "tc filter, egress",
    "shared tc block, ingress",
    "shared tc block, egress",
    "native XDP inside a container",
    "native XDP on the host",
    "generic XDP inside a container",
    "generic XDP on the host",
    "netdev chain, ingress",
    "netdev chain, egress",
    "attached to a veth",
    "attached to a bridge",
    "attached to an uplink",
    "attached inside a container",
    "blackhole route",
    "blackhole policy rule",
    "route by a nexthop object",
    "nexthop object replaced by a blackhole",
    "xfrm policy",
    "static FDB entry",
    "an interface's rp_filter",
    "an interface's forwarding",
    "an interface's accept_local",
    "an interface's route_localnet",
    "qdisc added",
    "token bucket added",
    "port locked",
    "port blocked",
    "interface down",
    "interface up",
    "conntrack forgets",
    "packet filter inside a container",
    "port not flooded",
    "port that does not learn",
    "port that the bridge answers for",
    "datagrams that nobody answers",
    "late answer",
    "packet: extension header",
    "packet: link-local address",
    "packet: neighbour discovery",
    "open, IPv6",
    "transfer, IPv6",
    "datagrams, IPv6",
    "route changed, IPv6",
    "rule added, IPv6",
];
