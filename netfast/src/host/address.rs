//! Addresses of every layer, and the tables that lead from one to another: neighbours, FDB, routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet address, in transmission order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it is a group address (multicast or broadcast).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A text that is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address (expected six hexadecimal bytes joined by ':')")]
pub struct MacParseError(pub String);

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| MacParseError(text.into()))?;
        }
        if parts.next().is_some() {
            return Err(MacParseError(text.into()));
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An address with a prefix length. The host bits are kept: it is used for interface addresses and for subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNet {
    /// The address; in a subnet its host bits are usually 0.
    pub addr: IpAddr,
    /// The prefix length in bits, at most 32 or 128.
    pub prefix: u8,
}

impl IpNet {
    /// An address with a prefix length, `None` when the length does not fit the family.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { addr, prefix })
    }

    /// Whether `ip` is of the same family and shares the prefix.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                (u32::from(net) ^ u32::from(ip)) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix.min(128)))
                    .unwrap_or(0);
                (u128::from(net) ^ u128::from(ip)) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = ();

    /// `ADDRESS/PREFIX`; an address alone has the full prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| ())?;
        let full = if addr.is_ipv4() { 32 } else { 128 };
        Self::new(addr, prefix.unwrap_or(full)).ok_or(())
    }
}

impl Serialize for IpNet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How far an address or a route is valid (`RT_SCOPE_*`, linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressScope {
    /// Everywhere.
    Universe,
    /// IPv6 site.
    Site,
    /// On this link.
    Link,
    /// On this host.
    Host,
    /// Nowhere, or a user-defined scope.
    Other(u8),
}

/// One address of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Address {
    /// The link that has it.
    pub ifindex: u32,
    /// The local address with the prefix of its subnet. The family is the address's.
    pub net: IpNet,
    /// The other end of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// How far it is valid.
    pub scope: AddressScope,
}

impl Address {
    /// What no address of a link comes before.
    pub(super) const fn lowest_of(ifindex: u32) -> Self {
        Self {
            ifindex,
            net: IpNet {
                addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                prefix: 0,
            },
            peer: None,
            scope: AddressScope::Universe,
        }
    }
}

/// A neighbour is known per link and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// The link behind which the neighbour is.
    pub ifindex: u32,
    /// Its network-layer address.
    pub ip: IpAddr,
}

impl Serialize for NeighbourKey {
    /// As `IP%IFINDEX`, since a JSON object's keys are texts.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%{}", self.ip, self.ifindex))
    }
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Its link-layer address, when it is resolved.
    pub mac: Option<Mac>,
    /// Its state when the snapshot was taken. It flips all the time between reachable, stale, delay and probe.
    pub state: NeighbourState,
}

/// The state of a neighbour (`NUD_*`, linux/neighbour.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourState {
    /// `NUD_NONE`.
    None,
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Usable, to be confirmed on next use.
    Stale,
    /// In use, waiting for a confirmation from above.
    Delay,
    /// Being asked.
    Probe,
    /// No answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by hand.
    Permanent,
}

impl NeighbourState {
    /// Whether a packet can be sent with its link-layer address (the kernel's `NUD_VALID`).
    pub fn is_valid(self) -> bool {
        !matches!(self, Self::None | Self::Incomplete | Self::Failed)
    }
}

/// Where a forwarding entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbState {
    /// Learned from a packet; ages.
    Learned,
    /// Set by hand or by a control plane; does not age.
    Static,
    /// The port's or the bridge's own address.
    Local,
}

/// One forwarding entry of a bridge (`bridge fdb`), or of a vxlan device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FdbEntry {
    /// The bridge, or `None` for an entry in the device's own table (vxlan, or a NIC's unicast filter).
    pub bridge: Option<u32>,
    /// The port that leads to the address.
    pub ifindex: u32,
    /// The station.
    pub mac: Mac,
    /// The VLAN, on a bridge that filters by VLAN.
    pub vlan: Option<u16>,
    /// The remote tunnel end, for a vxlan entry.
    pub remote: Option<IpAddr>,
    /// Where the entry came from.
    pub state: FdbState,
}

impl FdbEntry {
    /// Whether it says where a VXLAN device sends frames to stations that it does not know: to each end that has such an entry.
    pub fn is_of_unknown(&self) -> bool {
        self.mac == Mac([0; 6]) && self.bridge.is_none() && self.remote.is_some()
    }
}

/// What a route does (`RTN_*`, linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteType {
    /// Forward to a gateway or link.
    Unicast,
    /// Deliver here.
    Local,
    /// A broadcast address.
    Broadcast,
    /// IPv6 anycast.
    Anycast,
    /// A multicast address.
    Multicast,
    /// Drop silently.
    Blackhole,
    /// Answer "unreachable".
    Unreachable,
    /// Answer "prohibited".
    Prohibit,
    /// Go on in another table.
    Throw,
    /// Anything else, by the kernel's number.
    Other(u8),
}

/// The protocol number of routes that netfast makes: one that iproute2's list (`rt_protos`) and the routing daemons that
/// are known leave free.
pub const OUR_PROTOCOL: u8 = 0x6e;

/// One route, or one hop of a multipath route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// The routing table; 254 is main, 255 local.
    pub table: u32,
    /// The destination; prefix 0 for the default route.
    pub dst: IpNet,
    /// The preference among routes of one destination; lower wins.
    pub priority: u32,
    /// The next hop. It may be of the other family.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by.
    pub oif: Option<u32>,
    /// What it does.
    pub kind: RouteType,
    /// Who made it (`RTPROT_*`, linux/rtnetlink.h): 2 the kernel, 3 an administrator; see [`OUR_PROTOCOL`].
    pub protocol: u8,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The MTU metric in bytes, if one is set.
    pub mtu: Option<u32>,
    /// Whether the route has more hops than this one.
    pub multipath: bool,
    /// Whether BPF programs see what is routed by it (`encap bpf`).
    pub has_programs: bool,
}

/// The policy routing rules (`ip rule`) as a count and a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyRules {
    /// How many IPv4 rules there are; 3 in a fresh namespace.
    pub v4: usize,
    /// How many IPv6 rules there are; 2 in a fresh namespace.
    pub v6: usize,
    /// A hash of all of them, equal within one run of netfast when they are the same.
    pub hash: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_texts() {
        let mac: Mac = "02:42:ac:11:00:02".parse().expect("a good address");
        assert_eq!(mac, Mac([2, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
            "02:42:ac:11:00:zz",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(MacParseError(bad.into())), "{bad}");
        }
    }

    #[test]
    fn subnets_contain() {
        let check = |net: &str, ip: &str, expected| {
            let net: IpNet = net.parse().expect("a good subnet");
            assert_eq!(
                net.contains(ip.parse().expect("a good address")),
                expected,
                "{net} {ip}"
            );
        };
        check("172.17.0.0/16", "172.17.255.1", true);
        check("172.17.0.1/16", "172.18.0.1", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("1.2.3.4", "1.2.3.4", true);
        check("1.2.3.4/32", "1.2.3.5", false);
        check("::/0", "1.2.3.4", false);
        check("::/0", "fd00::1", true);
        check("fd00:1::/64", "fd00:1::ffff", true);
        check("fd00:1::/64", "fd00:1:0:1::", false);
        assert_eq!("1.2.3.4/33".parse::<IpNet>(), Err(()));
        assert_eq!("::1/129".parse::<IpNet>(), Err(()));
    }
}
