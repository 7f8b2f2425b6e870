//! What Swarm gives containers besides the networks that the engine tells of: those of an overlay network have a second interface,
//! by which they reach what is not on it.

use std::net::IpAddr;

use crate::{
    host::{Attachment, Container, ContainerInterface, Network, NetworkMode},
    plan::Build,
};

/// The network that such interfaces are on (`libnGWNetwork`, libnetwork's `default_gateway.go`). An inspected container does not list it.
const GATEWAY_NETWORK: &str = "docker_gwbridge";

/// The containers that a network has besides those that list it, each with its place there, as its interface tells it.
pub fn gateways<'a>(build: &Build<'a>, network: &Network, bridge: Option<u32>) -> Vec<(&'a Container, Attachment)> {
    let Some(bridge) = bridge.filter(|_| network.name == GATEWAY_NETWORK) else {
        return Vec::new();
    };
    let interfaces = build.index.interfaces_on(bridge).iter().copied();
    interfaces
        .filter(|(container, _)| {
            let lists_it = container.attachments.iter().any(|on| on.network == network.id);
            // Who shares the namespace of another has the other's interfaces.
            !lists_it && !matches!(container.network_mode, NetworkMode::Container(_))
        })
        .map(|(container, interface)| (container, place(network, interface)))
        .collect()
}

fn place(network: &Network, interface: &ContainerInterface) -> Attachment {
    let mut addresses = interface.addresses.iter().copied();
    let is_global = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    Attachment {
        network: network.id.clone(),
        network_name: network.name.clone(),
        ipv4: addresses.clone().find(|net| net.addr.is_ipv4()),
        ipv6: addresses.find(|net| is_global(&net.addr)),
        mac: interface.mac,
        ..Attachment::default()
    }
}
