//! A host namespace with an uplink, and an outside client at the other end of it.
//!
//! Neither namespace has a way to the machine's own interfaces, so nothing can leave the machine. Every site has the
//! same addresses: sites do not see each other.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::{NetNs, veth_pair};

/// The host's address on its uplink `eth0`, /24; from the range set aside for benchmarks (RFC 2544).
pub const HOST_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The outside client's address, on its `eth0`.
pub const LAN_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 100);
/// The host's IPv6 address, /64.
pub const HOST_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 1);
/// The outside client's IPv6 address.
pub const LAN_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 0x100);

/// The two namespaces.
#[derive(Debug)]
pub struct Site {
    /// The container host: uplink `eth0`, default route through the outside client.
    pub host: NetNs,
    /// The outside: one `eth0`, no route but to the host's network, and it forwards nothing.
    pub lan: NetNs,
}

impl Site {
    /// Makes and joins both.
    pub fn new() -> Result<Self> {
        let (host, lan) = (NetNs::new("host")?, NetNs::new("lan")?);
        veth_pair((&host, "eth0"), (&lan, "eth0"))?;
        for (ns, mac, ip, ip6) in [
            (&host, "02:00:00:00:00:01", HOST_IP, HOST_IP6),
            (&lan, "02:00:00:00:00:64", LAN_IP, LAN_IP6),
        ] {
            ns.ip(&format!("link set eth0 address {mac}"))?;
            ns.ip(&format!("addr add {ip}/24 dev eth0"))?;
            if has_ipv6(ns) {
                ns.ip(&format!("-6 addr add {ip6}/64 dev eth0 nodad"))?;
            }
            ns.ip("link set eth0 up")?;
            // Enough ports for measurements of new connections.
            ns.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
            ns.set_sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        }
        // A new namespace may inherit the machine's own setting.
        lan.set_sysctl("net/ipv4/ip_forward", "0")?;
        host.ip(&format!("route add default via {LAN_IP}"))?;
        Ok(Self { host, lan })
    }
}

/// Whether the namespace can have IPv6 addresses.
pub fn has_ipv6(ns: &NetNs) -> bool {
    ns.sysctl("net/ipv6/conf/all/disable_ipv6")
        .is_ok_and(|disabled| disabled == "0")
}
