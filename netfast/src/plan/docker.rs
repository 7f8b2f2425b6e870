//! With a container runtime: its networks and containers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    host::{Attachment, Container, ContainerInterface, IpNet, Mac, Network, NetworkMode},
    plan::{
        Build, Endpoint, is_cut_off, labels, macvlan,
        report::{EndpointReport, NetworkReport, Path, PoolReport, Published, Why},
        swarm, vip,
    },
};

/// The container forwards for others: its source addresses are not checked.
const LABEL_ANY_SOURCE: &str = "netfast.any-source";

/// The runtime's networks by name, and behind them the containers that share another's namespace.
pub fn networks(build: &mut Build<'_>) -> Vec<NetworkReport> {
    let host = build.host;
    let mut networks: Vec<&Network> = host.networks.values().collect();
    networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let mut reports: Vec<NetworkReport> = networks.into_iter().map(|network| report(build, network)).collect();
    reports.extend(unlisted_networks(build));
    reports.extend(shared_namespaces(build));
    reports
}

/// Containers on networks that the runtime does not list: podman's own names for the host's network and for none.
fn unlisted_networks(build: &Build<'_>) -> Vec<NetworkReport> {
    let mut reports: BTreeMap<&str, NetworkReport> = BTreeMap::new();
    let is_listed = |container: &Container| {
        let mut places = container.attachments.iter();
        places.any(|place| build.host.networks.contains_key(&place.network))
    };
    for container in build.host.containers.values().filter(|one| !is_listed(one)) {
        let (name, driver, why) = match container.network_mode {
            NetworkMode::Host => ("host", "host", Why::HostNetwork),
            NetworkMode::None => ("none", "null", Why::NoNetwork),
            NetworkMode::Bridge | NetworkMode::Container(_) | NetworkMode::Network(_) => continue,
        };
        let report = reports.entry(name).or_insert_with(|| NetworkReport {
            name: name.into(),
            driver: driver.into(),
            scope: "local".into(),
            path: Path::slow(why),
            ..NetworkReport::default()
        });
        report.endpoints.push(EndpointReport {
            container_id: container.id.to_string(),
            container: container.name.clone(),
            path: Path::slow(why),
            ..EndpointReport::default()
        });
    }
    reports.into_values().collect()
}

fn report(build: &mut Build<'_>, network: &Network) -> NetworkReport {
    let (bridge_ifindex, path) = judge(build, network);
    let members = build.index.members(&network.id).to_vec();
    let gateways = swarm::gateways(build, network, bridge_ifindex);
    let mut endpoints: Vec<EndpointReport> = members
        .into_iter()
        .chain(gateways.iter().map(|(container, attachment)| (*container, attachment)))
        .map(|(container, attachment)| endpoint(build, container, attachment, bridge_ifindex, &path))
        .collect();
    endpoints.sort_by(|a, b| (&a.container, &a.container_id).cmp(&(&b.container, &b.container_id)));
    // The runtime tells the gateway only if its user chose one; otherwise it is the bridge's own address.
    let own = |subnet: IpNet| {
        let mut addresses = build
            .host
            .served()
            .addresses_of(bridge_ifindex?)
            .map(|address| address.net.addr);
        addresses.find(|ip| subnet.contains(*ip))
    };
    let pools = network.ipam.iter().map(|pool| PoolReport {
        subnet: pool.subnet.map(|net| net.to_string()),
        ip_range: pool.ip_range.map(|net| net.to_string()),
        gateway: pool.gateway.or_else(|| own(pool.subnet?)).map(|ip| ip.to_string()),
    });
    NetworkReport {
        id: network.id.to_string(),
        name: network.name.clone(),
        driver: network.driver.clone(),
        scope: network.scope.clone(),
        internal: network.internal,
        pools: pools.collect(),
        bridge: network.bridge_name.clone(),
        parent: macvlan::parent(network).map(Into::into),
        bridge_ifindex,
        path,
        endpoints,
        ..NetworkReport::default()
    }
}

/// Which path a network's packets may take.
fn judge(build: &Build<'_>, network: &Network) -> (Option<u32>, Path) {
    let other = |why, text: Option<String>| {
        (
            None,
            text.map_or_else(|| Path::slow(why), |text| Path::slow_since(why, text)),
        )
    };
    match network.driver.as_str() {
        "bridge" => {}
        "host" => return other(Why::HostNetwork, None),
        "null" => return other(Why::NoNetwork, None),
        "macvlan" => return other(Why::Macvlan, macvlan_in_words(build, network)),
        "ipvlan" => return other(Why::Ipvlan, None),
        "overlay" => return (None, overlay(build, network)),
        driver => {
            return other(
                Why::OtherDriver,
                Some(format!("the network driver {driver} is not accelerated")),
            );
        }
    }
    let (bridge, path) = match &network.bridge_name {
        Some(name) => build.judge_bridge(name),
        None => (None, Path::slow(Why::NoBridge)),
    };
    (bridge, labels::why_off(network, build.config).map_or(path, Path::slow))
}

/// Its bridge is in a namespace of its own, which another daemon serves: what that one knows takes the place of this
/// (`State::merge`).
fn overlay(build: &Build<'_>, network: &Network) -> Path {
    if let Some(why) = labels::why_off(network, build.config) {
        return Path::slow(why);
    }
    if build.index.members(&network.id).is_empty() {
        return Path::slow_since(Why::Overlay, "no container of this host is on it");
    }
    Path::slow(Why::Overlay)
}

/// What there is to say of a macvlan network, besides that it is one.
fn macvlan_in_words(build: &Build<'_>, network: &Network) -> Option<String> {
    let text = Why::Macvlan.text();
    Some(match macvlan::wish(build, network)? {
        Ok(parent) => format!(
            "{text}; its containers and the host reach each other by {}",
            parent.name
        ),
        Err(why) => format!("{text}; the label {} has no effect: {why}", macvlan::LABEL),
    })
}

fn endpoint(
    build: &mut Build<'_>,
    container: &Container,
    attachment: &Attachment,
    bridge: Option<u32>,
    network: &Path,
) -> EndpointReport {
    let interface = bridge.and_then(|bridge| interface_on(build, container, attachment, bridge));
    // Connections to virtual addresses need the device, whatever keeps its packets slow for a while.
    let is_judged = match network {
        Path::Fast => true,
        Path::Slow(slow) => vip::is_passing(slow.why) && build.vips.contains(&attachment.network),
    };
    let path = if !is_judged {
        network.clone()
    } else if labels::is_off(&container.labels) {
        Path::slow(Why::DisabledByLabel)
    } else if container.netns.is_none() {
        Path::slow(Why::NoNamespace)
    } else {
        match interface.and_then(|interface| Some((interface, interface.host_ifindex?))) {
            None => Path::slow(Why::NoVeth),
            Some((interface, veth)) => {
                let (address4, address6) = addresses(attachment, interface);
                build.add_endpoint(
                    &Endpoint {
                        veth,
                        mac: mac(build, attachment, interface, veth),
                        address4,
                        address6,
                        any_source: labels::is_set(&container.labels, LABEL_ANY_SOURCE),
                        virtual_addresses: build.vips.contains(&attachment.network),
                    },
                    network,
                )
            }
        }
    };
    let ifindex = interface.and_then(|interface| interface.host_ifindex);
    let found = ifindex.zip(interface);
    let told = attachment.ipv4.into_iter().chain(attachment.ipv6);
    let link = ifindex.and_then(|ifindex| build.netns.links.get(&ifindex));
    let published = container.ports.iter().map(|port| Published {
        host_ip: port.host_ip,
        host_port: port.host_port,
        port: port.container_port,
    });
    EndpointReport {
        container_id: container.id.to_string(),
        container: container.name.clone(),
        interface: interface.map(|interface| interface.name.clone()),
        addresses: told.map(|net| net.to_string()).collect(),
        mac: found
            .map_or(attachment.mac, |(veth, interface)| {
                mac(build, attachment, interface, veth)
            })
            .map(|mac| mac.to_string()),
        veth: link.map(|link| link.name.clone()),
        ifindex,
        isolated: link.and_then(|link| link.port).is_some_and(|port| port.isolated),
        is_cut_off: link.is_some_and(is_cut_off),
        published: published.collect(),
        path,
        direct: None,
        sandbox: None,
    }
}

/// The interface of a container that is on a bridge. There is one, unless somebody added some by hand: then the one
/// with the MAC address or the IP address that the runtime gave.
fn interface_on<'a>(
    build: &Build<'_>,
    container: &'a Container,
    attachment: &Attachment,
    bridge: u32,
) -> Option<&'a ContainerInterface> {
    let is_there = |interface: &&ContainerInterface| {
        let link = interface
            .host_ifindex
            .and_then(|ifindex| build.netns.links.get(&ifindex));
        link.is_some_and(|link| link.master == Some(bridge))
    };
    let is_told = |interface: &&ContainerInterface| {
        let ip = attachment.ipv4.or(attachment.ipv6);
        (attachment.mac.is_some() && interface.mac == attachment.mac)
            || ip.is_some_and(|ip| interface.addresses.iter().any(|net| net.addr == ip.addr))
    };
    let candidates = || container.interfaces.iter().filter(is_there);
    candidates().find(is_told).or_else(|| candidates().next())
}

/// The MAC address that packets come from. The runtime tells which one it sets; the interface has another while that is
/// still to come, or when somebody has set it since: then it is the one that the bridge has heard from.
fn mac(build: &Build<'_>, attachment: &Attachment, interface: &ContainerInterface, veth: u32) -> Option<Mac> {
    let (Some(told), Some(seen)) = (attachment.mac, interface.mac) else {
        return interface.mac.or(attachment.mac);
    };
    let heard = |mac: Mac| build.index.has_heard(veth, mac);
    Some(if heard(seen) && !heard(told) { seen } else { told })
}

/// The address of each family that packets come from: what the runtime gave, if the interface has it, else the
/// interface's first. Packets from others are not wrong, but the kernel judges each of them.
fn addresses(attachment: &Attachment, interface: &ContainerInterface) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let told = attachment.ipv4.into_iter().chain(attachment.ipv6).map(|net| net.addr);
    let has = |ip: &IpAddr| interface.addresses.is_empty() || interface.addresses.iter().any(|net| net.addr == *ip);
    let all = || {
        told.clone()
            .filter(has)
            .chain(interface.addresses.iter().map(|net| net.addr))
    };
    let v4 = all().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let v6 = all().find_map(|ip| match ip {
        IpAddr::V6(ip) if !ip.is_unicast_link_local() => Some(ip),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    (v4, v6)
}

/// Containers that have no network of their own, each under the one whose namespace it shares.
fn shared_namespaces(build: &Build<'_>) -> Vec<NetworkReport> {
    let containers = &build.host.containers;
    let mut reports: BTreeMap<String, NetworkReport> = BTreeMap::new();
    for container in containers.values() {
        let NetworkMode::Container(owner) = &container.network_mode else {
            continue;
        };
        let owner = containers.get(owner).map_or(owner.short(), |owner| &owner.name);
        let path = Path::slow_since(
            Why::SharedNamespace,
            format!("shares the namespace of {owner}: its packets are those of {owner}"),
        );
        let report = reports.entry(owner.to_owned()).or_insert_with(|| NetworkReport {
            name: format!("container:{owner}"),
            driver: "container".into(),
            scope: "local".into(),
            path: path.clone(),
            ..NetworkReport::default()
        });
        report.endpoints.push(EndpointReport {
            container_id: container.id.to_string(),
            container: container.name.clone(),
            path,
            ..EndpointReport::default()
        });
    }
    reports.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::aliases::{LABEL, LABEL_AFFINITY, LABEL_WEIGHT};

    #[test]
    fn every_label_is_in_the_readme_s_table() {
        let readme = include_str!("../../../README.md");
        let labels = [
            labels::ENABLE,
            LABEL_ANY_SOURCE,
            LABEL,
            LABEL_WEIGHT,
            LABEL_AFFINITY,
            macvlan::LABEL,
        ];
        for label in labels {
            assert!(readme.contains(&format!("| `{label}` |")), "{label} is not documented");
        }
    }
}
