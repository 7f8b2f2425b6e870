//! Names and addresses of everything in a scenario's host. All scenarios have the same: hosts do not see each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{family::Family, scenario::Place, step::Device};

/// A bridge of the host.
pub fn bridge(number: usize) -> String {
    format!("br-{number}")
}

/// An address below 172.30.0.0/16 or `fd00:30::/32`: of a network, and of who is in it.
fn inside(bridge: usize, last: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 30, octet(bridge), last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x30, octet(bridge).into(), 0, 0, 0, 0, last.into()).into(),
    }
}

/// An address on an uplink: from the range set aside for benchmarks (RFC 2544), or one like it.
fn outside(uplink: usize, last: u8, family: Family) -> IpAddr {
    let network = 18 + octet(uplink);
    match family {
        Family::V4 => Ipv4Addr::new(198, network, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x198, network.into(), 0, 0, 0, 0, last.into()).into(),
    }
}

/// The host's address on a bridge; its network has [`Family::prefix`] bits.
pub fn gateway(bridge: usize, family: Family) -> IpAddr {
    inside(bridge, 1, family)
}

/// The network of a bridge.
pub fn network(bridge: usize, family: Family) -> String {
    format!("{}/{}", inside(bridge, 0, family), family.prefix())
}

/// The first two addresses that containers of a bridge have, as a range.
pub fn first_two(bridge: usize, family: Family) -> String {
    format!("{}-{}", inside(bridge, 2, family), inside(bridge, 3, family))
}

/// An interface of the host that leads off it.
pub fn uplink(number: usize) -> String {
    format!("eth{number}")
}

/// The host's address on an uplink.
pub fn uplink_ip(number: usize, family: Family) -> IpAddr {
    outside(number, 1, family)
}

/// One more address that the host may get there.
pub fn second_ip(uplink: usize, family: Family) -> IpAddr {
    outside(uplink, 2, family)
}

/// What is behind the outside clients (RFC 5737, RFC 3849); a route of the host says behind which.
pub fn behind(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 7).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 7).into(),
    }
}

/// An address of nobody's (the same RFCs).
pub fn nobody(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 9).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 9).into(),
    }
}

/// An address of one link in the place of another; who has the one answers to the other, as far as there are links.
pub fn link_local(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::new(169, 254, 0, ip.octets()[3]).into(),
        IpAddr::V6(ip) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, ip.segments()[7]).into(),
    }
}

/// The routing table of policy rules: everything by the second uplink.
pub const TABLE: u32 = 77;

/// The mark that is routed by that table.
pub const MARK: u32 = 7;

/// The address of who is there.
pub fn ip(place: Place, family: Family) -> IpAddr {
    match place {
        Place::Container(bridge, index) => inside(bridge, octet(index) + 2, family),
        Place::Outside(uplink) => outside(uplink, 100, family),
    }
}

/// Whether two addresses are in one network of a scenario.
pub fn is_one_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..8] == other.octets()[..8],
        _ => false,
    }
}

/// Whether these are two of a network who need no router, nor are one.
pub fn are_neighbours(one: IpAddr, other: IpAddr) -> bool {
    let is_station = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[3] > 1,
        IpAddr::V6(ip) => ip.segments()[7] > 1,
    };
    one != other && is_one_network(one, other) && is_station(one) && is_station(other)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_network_are_told_from_others() {
        for family in [Family::V4, Family::V6] {
            let of = |bridge, index| ip(Place::Container(bridge, index), family);
            assert!(is_one_network(of(1, 0), of(1, 5)) && is_one_network(of(1, 0), gateway(1, family)));
            assert!(!is_one_network(of(0, 0), of(1, 0)));
            assert!(network(1, family).starts_with(&of(1, 0).to_string()[..7]));
        }
    }
}
