//! Which interfaces lead off the host.

use std::collections::BTreeSet;

use netfast_common::device::{Device, Kind};
use serde::{Deserialize, Serialize};

use crate::{
    host::{Link, LinkKind, Namespace},
    plan::{
        Build,
        deciders::{self, Family},
        plain, tc,
    },
};

/// Adds the uplinks; returns those that the operator named and that do not exist.
pub fn add(build: &mut Build<'_>) -> Vec<String> {
    let named = &build.config.uplinks;
    let chosen: Vec<&Link> = if named.is_empty() {
        let runtime_bridges = runtime_bridges(build);
        let links = build.netns.links.values();
        links
            .filter(|link| !runtime_bridges.contains(link.name.as_str()) && leads_off(build.netns, link))
            .collect()
    } else {
        named.iter().filter_map(|name| build.netns.link_by_name(name)).collect()
    };
    let missing = named
        .iter()
        .filter(|name| build.netns.link_by_name(name).is_none())
        .cloned()
        .collect();
    for link in chosen {
        // Filters that come after us on its ingress would not see what we redirect; those on its egress do, and so
        // does its queueing discipline.
        let skipped = tc::foreign_on_ingress(build.netns, build.facts, link).is_some()
            || translated_before(build.netns, link, Family::V4).is_some();
        if link.up && link.is_ethernet() && !skipped && !build.devices.contains_key(&build.netns.key(link.ifindex)) {
            let mut spec = plain(link, Kind::Uplink);
            if translated_before(build.netns, link, Family::V6).is_some() {
                spec.flags &= !Device::IPV6;
            }
            build.devices.insert(build.netns.key(link.ifindex), spec);
        }
    }
    missing
}

/// The bridges of the container runtime's networks.
fn runtime_bridges<'a>(build: &Build<'a>) -> BTreeSet<&'a str> {
    let networks = build.host.networks.values();
    networks.filter_map(|network| network.bridge_name.as_deref()).collect()
}

/// Why the programs on a bridge device would see what comes in too late, if they would: IP's rules are asked within the bridge. What they
/// translate (published ports, answers to masqueraded packets) has other addresses there than what goes out, so no conversation has two
/// directions. And it has the host's conntrack entry already, which kernels without "bpf: Scrub packet on `bpf_redirect_peer`"
/// (2025) let that helper take into the container, whose own conntrack and NAT would then leave it alone.
fn translated_before(netns: &Namespace, link: &Link, family: Family) -> Option<String> {
    // A VLAN of the bridge's own: at the port its packets may be untagged, and IP's rules are asked there.
    let below = if let LinkKind::Vlan { .. } = link.kind {
        netns.links.get(&link.lower?)?
    } else {
        link
    };
    let who = deciders::bridged(netns, below, family)?;
    Some(format!("before netfast sees its packets, they meet {who}"))
}

/// An interface with routes that is no uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotUplink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Why not, for people.
    pub why: String,
    /// Whether it would be one if the operator named it.
    pub can_be_named: bool,
    /// Whether it has a default route, of any table.
    pub has_default: bool,
}

/// The interfaces with routes that are neither uplinks nor anything else to netfast, with the reason, after [`add`].
pub fn left_out(build: &Build<'_>) -> Vec<NotUplink> {
    let netns = build.netns;
    let routes = || netns.routes.iter().filter(|route| !is_link_local(route.dst.addr));
    let with_routes: BTreeSet<u32> = routes().filter_map(|route| route.oif).collect();
    let defaults: BTreeSet<u32> = routes()
        .filter(|route| route.dst.prefix == 0 && route.dst.addr.is_ipv4())
        .filter_map(|route| route.oif)
        .collect();
    let runtime_bridges = runtime_bridges(build);
    let links = with_routes.into_iter().filter_map(|ifindex| netns.links.get(&ifindex));
    links
        .filter(|link| !build.devices.contains_key(&netns.key(link.ifindex)))
        .filter(|link| !matches!(link.kind, LinkKind::Loopback))
        .filter(|link| !runtime_bridges.contains(link.name.as_str()) || defaults.contains(&link.ifindex))
        .map(|link| {
            let (why, can_be_named) = why_left_out(build, link);
            NotUplink {
                ifindex: link.ifindex,
                name: link.name.clone(),
                why,
                can_be_named,
                has_default: defaults.contains(&link.ifindex),
            }
        })
        .collect()
}

fn why_left_out(build: &Build<'_>, link: &Link) -> (String, bool) {
    if !link.up {
        return ("it is down".into(), false);
    }
    if !link.is_ethernet() {
        return ("its packets have no Ethernet header".into(), false);
    }
    if let Some(text) = tc::foreign_on_ingress(build.netns, build.facts, link) {
        return (text, false);
    }
    let named = &build.config.uplinks;
    let is_meant = named.contains(&link.name) || leads_off(build.netns, link);
    if let Some(text) = translated_before(build.netns, link, Family::V4).filter(|_| is_meant) {
        return (text, false);
    }
    if !named.is_empty() && !named.contains(&link.name) {
        return ("other interfaces are named as uplinks, and it is not".into(), true);
    }
    let text = match &link.kind {
        _ if link.master.is_some() => "it is a port of a bridge or bond",
        LinkKind::Veth { .. } => "it is a veth whose other end is in this network namespace",
        LinkKind::Bridge(_) => "it is a bridge whose ports are all veths, or a network of the container runtime",
        LinkKind::Loopback | LinkKind::Macvlan | LinkKind::Ipvlan | LinkKind::Dummy => {
            "an interface of this kind is not taken for one by itself"
        }
        LinkKind::Vlan { .. }
        | LinkKind::Bond
        | LinkKind::Vxlan(_)
        | LinkKind::Tun
        | LinkKind::Wireguard
        | LinkKind::Openvswitch
        | LinkKind::Physical
        | LinkKind::Other(_) => "it is not recognised as one",
    };
    (text.into(), true)
}

/// Whether an interface leads off the host, as far as one can tell.
fn leads_off(netns: &Namespace, link: &Link) -> bool {
    // A slave's packets are its master's, except for a port of a bridge, which has no address either.
    if !link.up || !link.is_ethernet() || link.master.is_some() {
        return false;
    }
    let sort = match &link.kind {
        LinkKind::Loopback | LinkKind::Macvlan | LinkKind::Ipvlan | LinkKind::Dummy => false,
        // The host's own bridge, with a way out among its ports; one with containers only is no way out.
        LinkKind::Bridge(_) => has_way_out(netns, link),
        LinkKind::Veth { .. } => link.peer_in_other_netns(),
        LinkKind::Vlan { .. }
        | LinkKind::Bond
        | LinkKind::Vxlan(_)
        | LinkKind::Tun
        | LinkKind::Wireguard
        | LinkKind::Openvswitch
        | LinkKind::Physical
        | LinkKind::Other(_) => true,
    };
    sort && (has_address(netns, link.ifindex) || carries_route(netns, link.ifindex))
}

/// Whether a bridge has other ports than containers.
pub fn has_way_out(netns: &Namespace, bridge: &Link) -> bool {
    netns
        .ports_of(bridge.ifindex)
        .any(|port| !matches!(port.kind, LinkKind::Veth { .. }))
}

fn has_address(netns: &Namespace, ifindex: u32) -> bool {
    netns
        .addresses_of(ifindex)
        .any(|address| !is_link_local(address.net.addr))
}

fn carries_route(netns: &Namespace, ifindex: u32) -> bool {
    netns
        .routes
        .iter()
        .any(|route| route.oif == Some(ifindex) && !is_link_local(route.dst.addr))
}

/// IPv6 link-local and multicast: every interface has such addresses and routes.
pub fn is_link_local(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(_) => false,
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}
