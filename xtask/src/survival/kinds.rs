//! Other kinds of networks on the host: a macvlan network whose containers the host reaches, and a VXLAN tunnel to the outside client,
//! with flannel's device and route.

use std::net::Ipv4Addr;

use anyhow::Result;
use netfast_tests::{
    docker_host::DockerHost,
    netns::NetNs,
    site::{HOST_IP, LAN_IP},
};

use super::bed::{Ends, IPERF};

/// What the path from the host to it is called.
pub const MACVLAN: &str = "macvlan";
/// The container of the macvlan network.
pub const OWN: &str = "own";
/// iperf3's port behind the tunnel.
pub const IPERF_TUNNEL: u16 = 5203;
/// The client's address behind the tunnel.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

/// Makes both.
pub fn make(host: &DockerHost) -> Result<()> {
    let options = [
        "--driver=macvlan",
        "--subnet=198.18.0.0/24",
        "--ip-range=198.18.0.64/28",
        "--gateway=198.18.0.100",
        "--opt=parent=eth0",
        "--label=netfast.macvlan-host=true",
    ];
    host.create_network("lan", &options)?;
    host.run_container(OWN, "lan", &[], &[])?;
    let ends = [(host.host(), HOST_IP, LAN_IP, 0), (host.lan(), LAN_IP, HOST_IP, 1)];
    for (ns, near, far, number) in ends {
        tunnel(ns, near, far, number)?;
    }
    Ok(())
}

/// One end of it; the other host's has the other number.
fn tunnel(ns: &NetNs, near: Ipv4Addr, far: Ipv4Addr, number: u8) -> Result<()> {
    let (own, other) = (
        format!("02:00:00:00:01:0{number}"),
        format!("02:00:00:00:01:0{}", 1 - number),
    );
    ns.ip(&format!(
        "link add flannel.1 address {own} mtu 1450 type vxlan id 1 dstport 8472 local {near} dev eth0 nolearning"
    ))?;
    ns.ip(&format!("addr add 10.244.{number}.1/32 dev flannel.1"))?;
    ns.ip("link set flannel.1 up")?;
    let net = format!("10.244.{}", 1 - number);
    ns.ip(&format!("neigh add {net}.1 lladdr {other} dev flannel.1 nud permanent"))?;
    ns.sh(&format!(
        "bridge fdb add {other} dev flannel.1 dst {far} self permanent"
    ))?;
    ns.ip(&format!("route add {net}.0/24 via {net}.1 dev flannel.1 onlink"))?;
    Ok(())
}

/// Who asks whom on them.
pub fn paths(host: &DockerHost) -> Result<[Ends; 2]> {
    Ok([
        Ends {
            name: MACVLAN,
            client: host.host().handle(),
            address: host.container_ip(OWN, "lan")?,
            iperf: IPERF,
        },
        Ends {
            name: "tunnel",
            client: host.container_netns("client")?,
            address: FAR,
            iperf: IPERF_TUNNEL,
        },
    ])
}
