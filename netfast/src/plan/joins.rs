//! Bridges of one host joined by a veth pair: weave's bridge with its datapath, a bridge for each virtual machine with an Open vSwitch
//! (`qbr` and `br-int`). Many stations are behind such a port, so it leads off the bridge as a tunnel's does.

use netfast_common::device::Kind;

use crate::{
    host::{Link, LinkKind, Namespace},
    plan::{Build, plain, tunnels},
};

/// Whether a veth is a port of one bridge, and its other end a port of another one of the same namespace.
pub fn joins(netns: &Namespace, link: &Link) -> bool {
    let LinkKind::Veth {
        peer_ifindex: Some(peer),
        peer_netns: None,
    } = link.kind
    else {
        return false;
    };
    let other = netns.links.get(&peer).and_then(|peer| peer.master);
    link.master.is_some() && other.is_some() && other != link.master
}

/// Adds those ends that are ports of bridges with containers.
pub fn add(build: &mut Build<'_>) {
    let netns = build.netns;
    for link in netns.links.values() {
        let key = netns.key(link.ifindex);
        if joins(netns, link) && !build.devices.contains_key(&key) && tunnels::is_fit_port(build, link) {
            build.devices.insert(key, plain(link, Kind::Uplink));
        }
    }
}
