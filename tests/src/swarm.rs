//! A swarm of two Docker hosts, which have a link of their own to each other: sites do not see each other otherwise.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;

use crate::{cmd, docker_host::DockerHost, netns::veth_pair};

/// The hosts' addresses on that link.
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// Its name on both.
const LINK: &str = "swarm";
/// A network that was made on one host is known on the other within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Joins them; the first is the manager.
pub fn join(hosts: [&DockerHost; 2]) -> Result<()> {
    let [first, second] = hosts;
    veth_pair((first.host(), LINK), (second.host(), LINK))?;
    for (host, ip) in hosts.into_iter().zip(ADDRESSES) {
        host.in_host(&format!("ip addr add {ip}/24 dev {LINK}; ip link set {LINK} up"))?;
    }
    let [here, there] = ADDRESSES.map(|ip| ip.to_string());
    first.docker(&["swarm", "init", "--advertise-addr", &here])?;
    let token = first.docker(&["swarm", "join-token", "-q", "worker"])?;
    let manager = format!("{here}:2377");
    let join = [
        "swarm",
        "join",
        "--advertise-addr",
        &there,
        "--token",
        token.trim(),
        &manager,
    ];
    second.docker(&join)?;
    Ok(())
}

/// Makes an overlay network that containers may be attached to, on the manager.
pub fn create_network(manager: &DockerHost, name: &str, subnet: &str) -> Result<()> {
    manager.create_network(name, &["--driver=overlay", "--attachable", "--subnet", subnet])
}

/// Waits until one container reaches another one, so that the bridges of both know where they are.
pub fn meet(host: &DockerHost, container: &str, to: Ipv4Addr) -> Result<()> {
    let ping = format!("busybox ping -c1 -W1 {to}");
    cmd::poll("an answer", PATIENCE, || host.in_container_netns(container, &ping).ok())?;
    Ok(())
}
