//! The host that scripts play on: devices, and conversations between who is behind them. The same as that of the packet
//! tests' rows, reduced to what a script needs.

use std::net::Ipv4Addr;

use netfast_common::{
    device::{Device, Kind},
    net::Ip4,
};
use netfast_tests::packet::{Mac, Packet};

/// An interface of the host, by its place in [`DEVICES`].
pub type Dev = usize;

/// What scripts know of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// What it is; `None`: netfast is not attached to it.
    pub kind: Option<Kind>,
    /// The MAC address that packets to it carry.
    pub mac: Mac,
    /// The address of whoever is there.
    pub address: Ipv4Addr,
}

/// MAC address of the router behind the uplinks.
const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0xfe];
/// The host on the bridge.
pub const BRIDGE_IP: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// The host on the uplink.
pub const HOST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Somebody off the host.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

const fn interface(kind: Option<Kind>, mac: Mac, address: Ipv4Addr) -> Interface {
    Interface { kind, mac, address }
}

/// Endpoints on a bridge.
const A: Dev = 0;
const B: Dev = 1;
/// An endpoint on another bridge.
const C: Dev = 2;
/// The bridge device of A and B.
pub const BRIDGE: Dev = 3;
const UPLINK: Dev = 4;
const UPLINK2: Dev = 5;

/// All of them; the last is a stranger's.
pub const DEVICES: [Interface; 7] = [
    interface(
        Some(Kind::Endpoint),
        [0x02, 0x42, 0xac, 0x11, 0x00, 0x02],
        Ipv4Addr::new(172, 17, 0, 2),
    ),
    interface(
        Some(Kind::Endpoint),
        [0x02, 0x42, 0xac, 0x11, 0x00, 0x03],
        Ipv4Addr::new(172, 17, 0, 3),
    ),
    interface(
        Some(Kind::Endpoint),
        [0x02, 0x42, 0xac, 0x12, 0x00, 0x04],
        Ipv4Addr::new(172, 18, 0, 4),
    ),
    interface(Some(Kind::Bridge), [0x02, 0x42, 0, 0, 0, 0x01], BRIDGE_IP),
    interface(Some(Kind::Uplink), [0x02, 0, 0, 0, 0x02, 0x01], HOST_IP),
    interface(Some(Kind::Uplink), [0x02, 0, 0, 0, 0x03, 0x01], HOST_IP),
    interface(None, [0x02, 0, 0, 0, 0x04, 0x01], Ipv4Addr::new(10, 9, 9, 9)),
];

/// A device's place in the maps of generations and traffic.
pub fn slot(dev: Dev) -> u16 {
    u16::try_from(dev).expect("few") + 1
}

/// A device's generation in the beginning: different for each, so that a mix-up shows.
pub fn generation(dev: Dev) -> u32 {
    100 + u32::from(slot(dev))
}

/// What the daemon tells the programs of a device.
pub fn device(dev: Dev) -> Option<Device> {
    let Interface { kind, mac, address } = DEVICES[dev];
    let mut device = Device::new(kind?, Device::ACCELERATED, slot(dev));
    if kind == Some(Kind::Endpoint) {
        device.flags |= Device::PEER_ELSEWHERE;
        device.mac = mac;
        device.address4 = Ip4::from_bytes(address.octets());
    }
    Some(device)
}

/// An address and a port.
type End = (Ipv4Addr, u16);

/// What of a packet NAT and routing may change.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Destination and source MAC address.
    pub macs: (Mac, Mac),
    /// Source address and port.
    pub source: End,
    /// Destination address and port.
    pub destination: End,
}

/// One direction of a conversation, as the kernel forwards it.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Where its packets enter.
    pub enters: Dev,
    /// From the host's own stack.
    pub is_hosts: bool,
    /// Where they leave; the bridge: they are for the host.
    pub leaves: Dev,
    /// Whether the TTL falls by one.
    pub routed: bool,
    /// As they enter.
    pub before: Look,
    /// As they leave.
    pub after: Look,
}

impl Way {
    /// A packet of it, as it enters.
    pub fn packet(&self, is_udp: bool) -> Packet {
        let Look {
            macs,
            source,
            destination,
        } = self.before;
        let packet = if is_udp {
            Packet::udp(source, destination)
        } else {
            Packet::tcp(source, destination)
        };
        packet.macs(macs.0, macs.1)
    }

    /// What the kernel makes of a packet's frame.
    pub fn leaving(&self, packet: &Packet) -> Packet {
        packet.clone().with(|packet| {
            (packet.to_mac, packet.from_mac) = self.after.macs;
            // Somebody else's packet is translated only where it is this way's.
            if packet.source == self.before.source {
                packet.source = self.after.source;
            }
            if packet.destination == self.before.destination {
                packet.destination = self.after.destination;
            }
            packet.ttl = packet.ttl.wrapping_sub(u8::from(self.routed));
        })
    }

    /// Whether a bridge device hands its packets to the host on their way.
    pub fn passes_bridge(&self) -> bool {
        self.enters < C && self.routed
    }
}

/// Conversations that there can be, there and back.
pub fn talks() -> [[Way; 2]; 7] {
    let port = |address: Ipv4Addr, port: u16| (address, port);
    let [a, b, c] = [A, B, C].map(|dev| DEVICES[dev].address);
    [
        bridged((a, 40000), (b, 80)),
        // Masqueraded, and the source port changes too.
        routed(
            A,
            (port(a, 40000), port(OUTSIDE, 443)),
            UPLINK,
            (port(HOST_IP, 61000), port(OUTSIDE, 443)),
        ),
        // Published.
        routed(
            UPLINK,
            (port(OUTSIDE, 51000), port(HOST_IP, 8080)),
            A,
            (port(OUTSIDE, 51000), port(a, 80)),
        ),
        // By the host's address to a neighbour: both ends are translated.
        routed(
            A,
            (port(a, 40001), port(HOST_IP, 8081)),
            B,
            (port(BRIDGE_IP, 40001), port(b, 80)),
        ),
        routed(A, (port(a, 40000), port(c, 80)), C, (port(a, 40000), port(c, 80))),
        host_to_container((BRIDGE_IP, 33000), (a, 80)),
        // No container is concerned.
        routed(
            UPLINK,
            (port(OUTSIDE, 9), port(OUTSIDE, 10)),
            UPLINK2,
            (port(OUTSIDE, 9), port(OUTSIDE, 10)),
        ),
    ]
}

fn bridged(a: End, b: End) -> [Way; 2] {
    let way = |from: Dev, to: Dev, source: End, destination: End| {
        let look = Look {
            macs: (DEVICES[to].mac, DEVICES[from].mac),
            source,
            destination,
        };
        Way {
            enters: from,
            is_hosts: false,
            leaves: to,
            routed: false,
            before: look,
            after: look,
        }
    };
    [way(A, B, a, b), way(B, A, b, a)]
}

fn host_to_container(host: End, container: End) -> [Way; 2] {
    let (to, from) = (DEVICES[A].mac, DEVICES[BRIDGE].mac);
    let way = |enters, is_hosts, leaves, macs, source, destination| {
        let look = Look {
            macs,
            source,
            destination,
        };
        Way {
            enters,
            is_hosts,
            leaves,
            routed: false,
            before: look,
            after: look,
        }
    };
    [
        way(BRIDGE, true, A, (to, from), host, container),
        way(A, false, BRIDGE, (from, to), container, host),
    ]
}

/// Each side told as its first packet shows it: source and destination.
fn routed(enters: Dev, before: (End, End), leaves: Dev, after: (End, End)) -> [Way; 2] {
    // The host's MAC address on a link, and that of who is at the other end.
    let macs = |dev: Dev| match DEVICES[dev].kind {
        Some(Kind::Uplink) => (DEVICES[dev].mac, ROUTER_MAC),
        _ => (DEVICES[BRIDGE].mac, DEVICES[dev].mac),
    };
    let way = |enters: Dev, before: (End, End), leaves: Dev, after: (End, End)| {
        let ((in_host, in_other), (out_host, out_other)) = (macs(enters), macs(leaves));
        Way {
            enters,
            is_hosts: false,
            leaves,
            routed: true,
            before: Look {
                macs: (in_host, in_other),
                source: before.0,
                destination: before.1,
            },
            after: Look {
                macs: (out_other, out_host),
                source: after.0,
                destination: after.1,
            },
        }
    };
    let turned = |ends: (End, End)| (ends.1, ends.0);
    [
        way(enters, before, leaves, after),
        way(leaves, turned(after), enters, turned(before)),
    ]
}
