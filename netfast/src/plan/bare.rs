//! Without a container runtime: every bridge is a network, every veth on it is a container.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netfast_common::device::Device;

use crate::{
    host::{FdbState, Link, LinkKind, Mac, Namespace},
    plan::{
        Build, Endpoint, is_cut_off,
        joins::joins,
        report::{EndpointReport, NetworkReport, Path, Why},
    },
};

/// The bridges, each with the veths that are its ports.
pub fn networks(build: &mut Build<'_>) -> Vec<NetworkReport> {
    let netns = build.netns;
    let mut bridges: Vec<&Link> = netns
        .links
        .values()
        .filter(|link| matches!(link.kind, LinkKind::Bridge(_)) && !is_the_hosts(build, link))
        .collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    bridges.into_iter().map(|bridge| network(build, bridge)).collect()
}

/// Whether a bridge is the host's own way out: by the operator's word, or because it has ports and behind none of them is a
/// container of this host or another.
fn is_the_hosts(build: &Build<'_>, bridge: &Link) -> bool {
    let ports = || build.netns.ports_of(bridge.ifindex);
    let is_of_containers = |port: &Link| matches!(port.kind, LinkKind::Veth { .. } | LinkKind::Vxlan(_));
    build.config.uplinks.contains(&bridge.name) || (ports().next().is_some() && !ports().any(is_of_containers))
}

fn network(build: &mut Build<'_>, bridge: &Link) -> NetworkReport {
    let netns = build.netns;
    let (bridge_ifindex, mut path) = build.judge_bridge(&bridge.name);
    if build.config.disabled_networks.contains(&bridge.name) {
        path = Path::slow(Why::DisabledByConfig);
    }
    let veths: Vec<&Link> = netns
        .ports_of(bridge.ifindex)
        .filter(|port| matches!(port.kind, LinkKind::Veth { .. }) && !joins(netns, port))
        .collect();
    let endpoints = veths
        .into_iter()
        .map(|veth| endpoint(build, bridge, veth, &path))
        .collect();
    NetworkReport {
        name: bridge.name.clone(),
        driver: "bridge".into(),
        scope: "local".into(),
        bridge: Some(bridge.name.clone()),
        bridge_ifindex,
        path,
        endpoints,
        ..NetworkReport::default()
    }
}

fn endpoint(build: &mut Build<'_>, bridge: &Link, veth: &Link, network: &Path) -> EndpointReport {
    let macs = macs_behind(build.netns, bridge.ifindex, veth.ifindex);
    let known = build.facts.endpoints.get(&build.netns.key(veth.ifindex));
    let mac = match macs.len() {
        // The bridge forgets who is silent. A veth belongs to one container for life, so it has not changed hands.
        0 => known.map(|device| Mac(device.mac)),
        1 => macs.first().copied(),
        _ => None,
    };
    let (address4, address6) = mac.map_or((None, None), |mac| {
        let known = known.filter(|device| device.mac == mac.0);
        addresses(build.netns, bridge.ifindex, mac, known)
    });
    let is_off = |mac: &Mac| {
        let sandbox = build.config.sandbox.as_ref();
        sandbox.is_some_and(|sandbox| sandbox.off.contains(&mac.to_string()))
    };
    let path = if !network.is_fast() {
        network.clone()
    } else if macs.iter().chain(mac.as_ref()).any(is_off) {
        Path::slow(Why::DisabledByLabel)
    } else if macs.len() > 1 {
        Path::slow_since(Why::SeveralMacs, several(&macs, bridge))
    } else {
        let endpoint = Endpoint {
            veth: veth.ifindex,
            mac,
            address4,
            address6,
            any_source: false,
            virtual_addresses: false,
        };
        build.add_endpoint(&endpoint, &Path::Fast)
    };
    let addresses = address4.map(IpAddr::from).into_iter().chain(address6.map(IpAddr::from));
    EndpointReport {
        container: veth.name.clone(),
        addresses: addresses.map(|ip| ip.to_string()).collect(),
        mac: mac.map(|mac| mac.to_string()),
        veth: Some(veth.name.clone()),
        ifindex: Some(veth.ifindex),
        is_cut_off: is_cut_off(veth),
        isolated: veth.port.is_some_and(|port| port.isolated),
        path,
        ..EndpointReport::default()
    }
}

/// Which addresses are behind a veth, and until when at most.
fn several(macs: &BTreeSet<Mac>, bridge: &Link) -> String {
    /// A container can invent any number.
    const MOST: usize = 4;
    let mut named: Vec<String> = macs.iter().take(MOST).map(ToString::to_string).collect();
    if macs.len() > MOST {
        named.push("...".into());
    }
    let forgotten = if let LinkKind::Bridge(info) = bridge.kind
        && info.ageing_time != 0
    {
        format!(", {} s after it last heard from it", info.ageing_time.div_ceil(100))
    } else {
        String::new()
    };
    format!(
        "{} MAC addresses are behind its veth ({}): it is fast again once the bridge has forgotten all but one{forgotten}",
        macs.len(),
        named.join(", ")
    )
}

/// The addresses in an entry of the devices map.
fn told(device: &Device) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let (v4, v6) = (
        Ipv4Addr::from(device.address4.bytes()),
        Ipv6Addr::from(device.address6.bytes()),
    );
    (
        (!v4.is_unspecified()).then_some(v4),
        (!v6.is_unspecified()).then_some(v6),
    )
}

/// The MAC addresses that the bridge has heard from behind a port.
fn macs_behind(netns: &Namespace, bridge: u32, port: u32) -> BTreeSet<Mac> {
    netns
        .fdb
        .iter()
        .filter(|entry| entry.bridge == Some(bridge) && entry.ifindex == port && entry.state != FdbState::Local)
        .map(|entry| entry.mac)
        .filter(|mac| !mac.is_multicast())
        .collect()
}

/// The addresses that the host has resolved to a MAC address, of each family the only one. With more than one it is the
/// one that is known already: whoever is there may have claimed the others. If none is, it is not known which sources are
/// right. The host forgets, too, if only because the bridge got another MAC address: then it is what is known already.
fn addresses(netns: &Namespace, bridge: u32, mac: Mac, known: Option<&Device>) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let resolved = netns
        .neighbours
        .iter()
        .filter(|(key, neighbour)| key.ifindex == bridge && neighbour.mac == Some(mac) && neighbour.state.is_valid());
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for (key, _) in resolved {
        match key.ip {
            IpAddr::V4(ip) => {
                v4.insert(ip);
            }
            IpAddr::V6(ip) if !ip.is_unicast_link_local() => {
                v6.insert(ip);
            }
            IpAddr::V6(_) => {}
        }
    }
    let (known4, known6) = known.map_or((None, None), told);
    let has_many = v4.len() > 1 || v6.len() > 1;
    if has_many && known4.is_none() && known6.is_none() {
        return (None, None);
    }
    let v4 = if v4.len() == 1 { v4.pop_first() } else { known4 };
    let v6 = if v6.len() == 1 { v6.pop_first() } else { known6 };
    (v4, v6)
}
