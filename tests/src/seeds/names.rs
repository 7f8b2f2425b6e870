//! Names and addresses of everything in a scenario's host. All scenarios have the same: hosts do not see each other.

use std::net::Ipv4Addr;

use super::{scenario::Place, step::Device};

/// A bridge of the host.
pub fn bridge(number: usize) -> String {
    format!("br-{number}")
}

/// The host's address on a bridge, /24.
pub fn gateway(bridge: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, octet(bridge), 1)
}

/// The network of a bridge.
pub fn network(bridge: usize) -> String {
    format!("172.30.{bridge}.0/24")
}

/// An interface of the host that leads off it.
pub fn uplink(number: usize) -> String {
    format!("eth{number}")
}

/// The host's address on an uplink, /24; from the range set aside for benchmarks (RFC 2544).
pub fn uplink_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18 + octet(number), 0, 1)
}

/// One more address that the host may get there.
pub fn second_ip(uplink: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18 + octet(uplink), 0, 2)
}

/// What is behind the outside clients (RFC 5737); a route of the host says behind which.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// An address of nobody's (RFC 5737).
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// The routing table of policy rules: everything by the second uplink.
pub const TABLE: u32 = 77;

/// The mark that is routed by that table.
pub const MARK: u32 = 7;

/// The address of who is there.
pub fn ip(place: Place) -> Ipv4Addr {
    match place {
        Place::Container(bridge, index) => Ipv4Addr::new(172, 30, octet(bridge), octet(index) + 2),
        Place::Outside(uplink) => Ipv4Addr::new(198, 18 + octet(uplink), 0, 100),
    }
}

/// Its MAC address.
pub fn mac(place: Place) -> [u8; 6] {
    match place {
        Place::Container(bridge, index) => [0x02, 0x42, 172, 30, octet(bridge), octet(index) + 2],
        Place::Outside(uplink) => [2, 0, 0, 0, octet(uplink), 0x64],
    }
}

/// The MAC address of the host on an uplink.
pub fn uplink_mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, octet(number), 1]
}

/// The MAC address of a bridge.
pub fn bridge_mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 1, octet(number), 1]
}

/// The host's end of a container's veth pair.
pub fn veth(place: Place) -> String {
    match place {
        Place::Container(bridge, index) => format!("veth{bridge}x{index}"),
        Place::Outside(uplink) => self::uplink(uplink),
    }
}

/// An interface of the host.
pub fn device(device: Device) -> String {
    match device {
        Device::Bridge(bridge) => self::bridge(bridge),
        Device::Veth(place) => veth(place),
        Device::Uplink(uplink) => self::uplink(uplink),
    }
}

/// A MAC address as commands take it.
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).expect("a handful of everything")
}
