//! Two namespaces and a veth pair: the limit of what any path can reach.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use netfast_tests::{
    netns::{NetNs, veth_pair},
    site::has_ipv6,
};

/// The server's addresses on the direct pair.
pub const DIRECT_SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
/// The same of IPv6.
pub const DIRECT_SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 2);

/// Client and server.
pub fn direct_pair() -> Result<(NetNs, NetNs)> {
    let (client, server) = (NetNs::new("direct-client")?, NetNs::new("direct-server")?);
    veth_pair((&client, "eth0"), (&server, "eth0"))?;
    let client6 = Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 1);
    for (ns, address, address6) in [
        (&client, Ipv4Addr::new(172, 31, 0, 1), client6),
        (&server, DIRECT_SERVER, DIRECT_SERVER6),
    ] {
        ns.ip(&format!("addr add {address}/24 dev eth0"))?;
        if has_ipv6(ns) {
            ns.ip(&format!("-6 addr add {address6}/64 dev eth0 nodad"))?;
        }
        ns.ip("link set eth0 up")?;
    }
    Ok((client, server))
}
