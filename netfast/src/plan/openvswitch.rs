//! Networks that no runtime lists. Datapaths of Open vSwitch: containers whose veths are ports of one (as `ovs-docker` makes them), and
//! other ports that lead off the host. The kernel knows nothing of the bridges that `ovs-vswitchd` makes of a datapath's ports; its flows say where packets go.
//! And bridges that something else has put containers on.

use std::collections::BTreeSet;

use netfast_common::device::Kind;

use crate::{
    config::Runtime,
    host::{Link, LinkKind, Namespace},
    plan::{
        Build, Endpoint, is_cut_off, labels, plain,
        report::{EndpointReport, NetworkReport, Path, Why},
        tc,
    },
};

/// The datapaths with ports, and with a runtime also bridges that it does not list and that its containers are on (weave's, one made by
/// hand): without a runtime those are networks anyway.
fn masters<'a>(build: &Build<'a>) -> Vec<&'a Link> {
    let netns = build.netns;
    let masters: BTreeSet<u32> = netns.links.values().filter_map(|link| link.master).collect();
    let links = masters.into_iter().filter_map(|master| netns.links.get(&master));
    let is_listed = |link: &Link| {
        let mut networks = build.host.networks.values();
        networks.any(|network| network.bridge_name.as_deref() == Some(&*link.name))
    };
    let is_unlisted = |link: &Link| build.config.runtime == Runtime::Docker && !is_listed(link);
    links
        .filter(|link| {
            let is_bridge = matches!(link.kind, LinkKind::Bridge(_));
            link.kind == LinkKind::Openvswitch || is_bridge && is_unlisted(link)
        })
        .collect()
}

/// Whether a link is a port of a datapath.
pub fn is_port(netns: &Namespace, link: &Link) -> bool {
    let master = link.master.and_then(|master| netns.links.get(&master));
    master.is_some_and(|master| matches!(master.kind, LinkKind::Openvswitch))
}

/// A network for each: with the containers that the runtime knows, or without a runtime with the veths among its ports.
pub fn networks(build: &mut Build<'_>) -> Vec<NetworkReport> {
    let masters = masters(build);
    let reports = masters.into_iter().map(|master| network(build, master));
    reports.filter(|report| !report.endpoints.is_empty()).collect()
}

fn network(build: &mut Build<'_>, master: &Link) -> NetworkReport {
    let (bridge_ifindex, path) = build.judge_bridge(&master.name);
    let path = if build.config.disabled_networks.contains(&master.name) {
        Path::slow(Why::DisabledByConfig)
    } else {
        path
    };
    let endpoints = match build.config.runtime {
        Runtime::Docker => of_runtime(build, master, &path),
        Runtime::None => of_ports(build, master, &path),
    };
    NetworkReport {
        name: master.name.clone(),
        driver: master.kind.name().into(),
        scope: "local".into(),
        bridge: Some(master.name.clone()),
        bridge_ifindex,
        path,
        endpoints,
        ..NetworkReport::default()
    }
}

/// The runtime's containers that have an interface there, which the runtime itself does not know of.
fn of_runtime(build: &mut Build<'_>, master: &Link, network: &Path) -> Vec<EndpointReport> {
    let interfaces = build.index.interfaces_on(master.ifindex).to_vec();
    let reports = interfaces.into_iter().filter_map(|(container, interface)| {
        let veth = build.netns.links.get(&interface.host_ifindex?)?;
        let addresses = interface.addresses.iter().map(|net| net.addr);
        let (mut address4, mut address6) = (None, None);
        for ip in addresses {
            match ip {
                std::net::IpAddr::V4(ip) => address4 = address4.or(Some(ip)),
                std::net::IpAddr::V6(ip) if !ip.is_unicast_link_local() => address6 = address6.or(Some(ip)),
                std::net::IpAddr::V6(_) => {}
            }
        }
        let path = if labels::is_off(&container.labels) {
            Path::slow(Why::DisabledByLabel)
        } else {
            let endpoint = Endpoint {
                veth: veth.ifindex,
                mac: interface.mac,
                address4,
                address6,
                any_source: false,
                virtual_addresses: false,
            };
            of_endpoint(build, &endpoint, network)
        };
        Some(EndpointReport {
            container_id: container.id.to_string(),
            container: container.name.clone(),
            interface: Some(interface.name.clone()),
            addresses: interface.addresses.iter().map(ToString::to_string).collect(),
            mac: interface.mac.map(|mac| mac.to_string()),
            path,
            ..of_link(veth)
        })
    });
    reports.collect()
}

/// The veths among its ports whose other ends are in other namespaces. `ovs-vswitchd` alone knows the stations behind them, so whoever
/// sends from the veth's own MAC address is taken for the container.
fn of_ports(build: &mut Build<'_>, datapath: &Link, network: &Path) -> Vec<EndpointReport> {
    let netns = build.netns;
    let named = &build.config.uplinks;
    let ports = netns.ports_of(datapath.ifindex);
    let veths = ports.filter(|port| port.peer_in_other_netns() && !named.contains(&port.name));
    let veths: Vec<&Link> = veths.collect();
    let reports = veths.into_iter().map(|veth| {
        let mac = netns.peers.get(&veth.ifindex).and_then(|peer| peer.mac);
        let endpoint = Endpoint {
            veth: veth.ifindex,
            mac,
            address4: None,
            address6: None,
            any_source: false,
            virtual_addresses: false,
        };
        EndpointReport {
            container: veth.name.clone(),
            mac: mac.map(|mac| mac.to_string()),
            path: of_endpoint(build, &endpoint, network),
            ..of_link(veth)
        }
    });
    reports.collect()
}

fn of_endpoint(build: &mut Build<'_>, endpoint: &Endpoint, network: &Path) -> Path {
    if network.is_fast() {
        build.add_endpoint(endpoint, network)
    } else {
        network.clone()
    }
}

fn of_link(veth: &Link) -> EndpointReport {
    EndpointReport {
        veth: Some(veth.name.clone()),
        ifindex: Some(veth.ifindex),
        is_cut_off: is_cut_off(veth),
        ..EndpointReport::default()
    }
}

/// Adds the other ports of datapaths with containers: network cards, bonds and VLANs lead off the host. What is sent to a tunnel's
/// port must be told its other end with each packet, which only the datapath knows.
pub fn add_uplinks(build: &mut Build<'_>) {
    let netns = build.netns;
    let endpoints = build.devices.values().filter(|spec| spec.kind == Kind::Endpoint);
    let masters: BTreeSet<u32> = endpoints.filter_map(|spec| spec.identity.master).collect();
    let named = &build.config.uplinks;
    for link in netns.links.values() {
        let key = netns.key(link.ifindex);
        let can_lead_off = matches!(link.kind, LinkKind::Physical | LinkKind::Bond | LinkKind::Vlan { .. });
        let leads_off = can_lead_off && named.is_empty();
        if link.master.is_some_and(|master| masters.contains(&master))
            && is_port(netns, link)
            && (leads_off || named.contains(&link.name))
            && link.up
            && link.is_ethernet()
            && !build.devices.contains_key(&key)
            && tc::foreign_on_ingress(netns, build.facts, link).is_none()
        {
            build.devices.insert(key, plain(link, Kind::Uplink));
        }
    }
}
