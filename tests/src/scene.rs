//! The host that the packet ring's rows and the fuzz targets' scripts play on: interfaces, addresses, and conversations
//! between who is behind them.

use std::net::Ipv4Addr;

use netfast_common::{
    device::{Device, Kind},
    flow::{Exit, Origin},
    net::{Ip4, Ip6},
};

use crate::packet::{Mac, TCP, six};

mod way;

pub use way::{Look, Way};

/// An interface of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dev {
    /// Endpoint 172.17.0.2 on the bridge.
    A,
    /// Endpoint 172.17.0.3 on the bridge.
    B,
    /// Endpoint 172.18.0.4 on another bridge.
    C,
    /// The bridge device of A and B, 172.17.0.1.
    Bridge,
    /// An uplink, 192.0.2.1.
    Uplink,
    /// Another uplink.
    Uplink2,
    /// An interface that netfast is not attached to.
    Stranger,
}

impl Dev {
    /// All of them, in the order of their slots.
    pub const ALL: [Self; 7] = [
        Self::A,
        Self::B,
        Self::C,
        Self::Bridge,
        Self::Uplink,
        Self::Uplink2,
        Self::Stranger,
    ];

    /// Its name in the namespace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "ep-a",
            Self::B => "ep-b",
            Self::C => "ep-c",
            Self::Bridge => "br0",
            Self::Uplink => "up1",
            Self::Uplink2 => "up2",
            Self::Stranger => "stranger",
        }
    }

    /// What it is, if netfast knows it.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::A | Self::B | Self::C => Some(Kind::Endpoint),
            Self::Bridge => Some(Kind::Bridge),
            Self::Uplink | Self::Uplink2 => Some(Kind::Uplink),
            Self::Stranger => None,
        }
    }

    /// Its place in the maps of generations and traffic.
    pub const fn slot(self) -> u16 {
        self as u16 + 1
    }

    /// Its generation in the beginning: different for each, so that a mix-up shows.
    pub fn generation(self) -> u32 {
        100 + u32::from(self.slot())
    }

    /// The MAC address that packets to it carry: the container's for an endpoint.
    pub const fn mac(self) -> Mac {
        match self {
            Self::A => [0x02, 0x42, 0xac, 0x11, 0x00, 0x02],
            Self::B => [0x02, 0x42, 0xac, 0x11, 0x00, 0x03],
            Self::C => [0x02, 0x42, 0xac, 0x12, 0x00, 0x04],
            Self::Bridge => BRIDGE_MAC,
            Self::Uplink => UPLINK_MAC,
            Self::Uplink2 => [0x02, 0, 0, 0, 0x03, 0x01],
            Self::Stranger => [0x02, 0, 0, 0, 0x04, 0x01],
        }
    }

    /// The address of whoever is there.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::A => Ipv4Addr::new(172, 17, 0, 2),
            Self::B => Ipv4Addr::new(172, 17, 0, 3),
            Self::C => Ipv4Addr::new(172, 18, 0, 4),
            Self::Bridge => BRIDGE,
            Self::Uplink | Self::Uplink2 => HOST,
            Self::Stranger => Ipv4Addr::new(10, 9, 9, 9),
        }
    }

    /// What the daemon tells the programs of it.
    pub fn device(self) -> Option<Device> {
        let kind = self.kind()?;
        let flags = Device::ACCELERATED | Device::IPV6 | Device::ECHO;
        let mut device = Device::new(kind, flags, self.slot());
        if kind == Kind::Endpoint {
            device.flags |= Device::PEER_IN_OTHER_NETNS;
            device.mac = self.mac();
            device.address4 = Ip4::from_bytes(self.address().octets());
            device.address6 = six::address(self.address()).map_or(Ip6::default(), |ip| Ip6::from_bytes(ip.octets()));
        }
        Some(device)
    }
}

/// MAC address of the bridge device.
pub const BRIDGE_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x01];
/// MAC address of the uplink.
pub const UPLINK_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0x01];
/// MAC address of the router behind the uplink.
pub const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0xfe];
/// The host on the bridge.
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// The host on the uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Somebody off the host.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// A conversation: the first packet's way, and that of the answers.
pub type Pair = (Way, Way);

/// The same with no bridge device to pass on the way.
pub fn direct((mut there, mut back): Pair) -> Pair {
    there.via = Some(there.enters);
    back.via = Some(back.enters);
    (there, back)
}

/// The same by ICMP echo: requests there, replies back.
pub fn echo((there, back): Pair) -> Pair {
    (there.echo(true), back.echo(false))
}

/// A and B on one bridge: nothing is changed.
pub fn bridged() -> Pair {
    let look = |from: Dev, to: Dev, source: u16, destination: u16| Look {
        to_mac: to.mac(),
        from_mac: from.mac(),
        source: (from.address(), source),
        destination: (to.address(), destination),
    };
    let way = |from: Dev, to: Dev, look: Look| Way {
        protocol: TCP,
        enters: from,
        origin: Origin::Wire,
        via: Some(from),
        leaves: to,
        exit: Exit::Peer,
        routed: false,
        before: look,
        after: look,
    };
    (
        way(Dev::A, Dev::B, look(Dev::A, Dev::B, 40000, 80)),
        way(Dev::B, Dev::A, look(Dev::B, Dev::A, 80, 40000)),
    )
}

/// A to somebody outside, masqueraded: the source port changes too.
pub fn masquerade() -> Pair {
    let inside = ((Dev::A.address(), 40000), (OUTSIDE, 443));
    let outside = ((HOST, 61000), (OUTSIDE, 443));
    routed(Dev::A, inside, Dev::Uplink, outside)
}

/// Somebody outside to a port that A publishes.
pub fn published() -> Pair {
    let outside = ((OUTSIDE, 51000), (HOST, 8080));
    let inside = ((OUTSIDE, 51000), (Dev::A.address(), 80));
    routed(Dev::Uplink, outside, Dev::A, inside)
}

/// A, from a port, to one that B publishes, by the host's address: both ends are translated, and both are on one bridge.
pub fn hairpin(port: u16, published: u16) -> Pair {
    let before = ((Dev::A.address(), port), (HOST, published));
    let after = ((BRIDGE, port), (Dev::B.address(), 80));
    routed(Dev::A, before, Dev::B, after)
}

/// A to C on another bridge: routed, no NAT.
pub fn between_bridges() -> Pair {
    let ends = ((Dev::A.address(), 40000), (Dev::C.address(), 80));
    routed(Dev::A, ends, Dev::C, ends)
}

/// From one uplink to another: no container is concerned.
pub fn transit() -> Pair {
    let ends = ((OUTSIDE, 9), (OUTSIDE, 10));
    routed(Dev::Uplink, ends, Dev::Uplink2, ends)
}

/// Source and destination.
type Ends = ((Ipv4Addr, u16), (Ipv4Addr, u16));

/// A routed conversation; each side told as its first packet shows it.
fn routed(enters: Dev, before: Ends, leaves: Dev, after: Ends) -> Pair {
    let way = |enters: Dev, before: Ends, leaves: Dev, after: Ends| {
        let ((in_host, in_other), (out_host, out_other)) = (macs(enters), macs(leaves));
        Way {
            protocol: TCP,
            enters,
            origin: Origin::Wire,
            via: Some(if enters.kind() == Some(Kind::Endpoint) {
                Dev::Bridge
            } else {
                enters
            }),
            leaves,
            exit: if leaves.kind() == Some(Kind::Endpoint) {
                Exit::Peer
            } else {
                Exit::Device
            },
            routed: true,
            before: Look {
                to_mac: in_host,
                from_mac: in_other,
                source: before.0,
                destination: before.1,
            },
            after: Look {
                to_mac: out_other,
                from_mac: out_host,
                source: after.0,
                destination: after.1,
            },
        }
    };
    let turned = |ends: Ends| (ends.1, ends.0);
    (
        way(enters, before, leaves, after),
        way(leaves, turned(after), enters, turned(before)),
    )
}

/// MAC addresses on a link: the host's, and of whoever is at the other end.
fn macs(dev: Dev) -> (Mac, Mac) {
    match dev {
        Dev::Uplink | Dev::Uplink2 => (dev.mac(), ROUTER_MAC),
        Dev::A | Dev::B | Dev::C | Dev::Bridge | Dev::Stranger => (BRIDGE_MAC, dev.mac()),
    }
}

/// The host's own packets to A, and A's answers.
pub fn host_to_container() -> Pair {
    let host = (BRIDGE, 33000);
    let container = (Dev::A.address(), 80);
    let out = Look {
        to_mac: Dev::A.mac(),
        from_mac: BRIDGE_MAC,
        source: host,
        destination: container,
    };
    let back = Look {
        to_mac: BRIDGE_MAC,
        from_mac: Dev::A.mac(),
        source: container,
        destination: host,
    };
    (
        Way {
            protocol: TCP,
            enters: Dev::Bridge,
            origin: Origin::Host,
            via: None,
            leaves: Dev::A,
            exit: Exit::Device,
            routed: false,
            before: out,
            after: out,
        },
        Way {
            protocol: TCP,
            enters: Dev::A,
            origin: Origin::Wire,
            via: Some(Dev::A),
            leaves: Dev::Bridge,
            exit: Exit::Host,
            routed: false,
            before: back,
            after: back,
        },
    )
}
