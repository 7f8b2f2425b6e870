//! Between which containers packets are forwarded directly: those of a bridge on which nobody judges what one sends to another, by
//! rule, queue, program or the bridge itself. Then there is no verdict to wait for.
//!
//! Each condition has a cause of its own. What is not known counts as a judge.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::{
    device::{Device, DeviceKey},
    flow::Exit,
};

use crate::{
    host::{BridgeInfo, FdbState, Link, LinkKind, Mac, Namespace, NetworkId, NftChain, PortState},
    plan::{
        Build, Facts, deciders,
        report::{EndpointReport, NetworkReport, Path, Why},
        tc,
    },
};

/// The hook of nftables' family inet that is a device's (`NF_INET_INGRESS`, linux/netfilter.h).
const INET_INGRESS: u32 = 5;
/// The shortest ageing time, in hundredths of a second: one packet a second of each pair passes the bridge.
const MIN_AGEING: u32 = 300;

/// A port between which and others of its bridge packets are forwarded directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectPort {
    /// The bridge.
    pub bridge: u32,
    /// The MAC address behind it.
    pub mac: Mac,
    /// Bytes of the longest packet that it takes, network layer and up.
    pub max_length: u32,
    /// How packets to it leave.
    pub exit: Exit,
}

/// Says of each network and endpoint whether its packets are forwarded directly; returns the ports between which they are.
/// `translated` are the endpoints whose packets netfast itself changes at their veths, for virtual addresses.
pub(super) fn add(
    build: &Build<'_>,
    networks: &mut [NetworkReport],
    translated: &BTreeMap<DeviceKey, String>,
) -> BTreeMap<DeviceKey, DirectPort> {
    let heard = heard(build.netns);
    let mut ports = BTreeMap::new();
    for network in networks {
        let bridge = network
            .bridge_ifindex
            .and_then(|ifindex| build.netns.links.get(&ifindex));
        let Some(bridge) = bridge else { continue };
        let path = of_bridge(build, bridge, network);
        for endpoint in &mut network.endpoints {
            let port = if path.is_fast() {
                of_port(build, bridge, endpoint, translated, &heard)
            } else {
                Err(path.clone())
            };
            endpoint.direct = Some(match port {
                Ok((key, port)) => {
                    ports.insert(key, port);
                    Path::Fast
                }
                Err(path) => path,
            });
        }
        network.direct = Some(path);
    }
    ports
}

/// Whether nobody judges what the ports of a bridge send to each other, as far as that is a matter of the bridge.
fn of_bridge(build: &Build<'_>, bridge: &Link, network: &NetworkReport) -> Path {
    let netns = build.netns;
    if !build.config.direct {
        return Path::slow(Why::DirectOff);
    }
    if !network.path.is_fast() {
        return network.path.clone();
    }
    if bridge.kind == LinkKind::Openvswitch {
        return Path::slow(Why::OvsFlows);
    }
    let LinkKind::Bridge(info) = bridge.kind else {
        return Path::slow(Why::NoBridge);
    };
    shown_to_netfilter(netns, bridge, info)
        .or_else(|| rules(netns, bridge))
        .or_else(|| of_engine(build, network))
        .or_else(|| by_itself(build.index.ports_of(bridge.ifindex), bridge, info))
        .unwrap_or_default()
}

/// Whether `br_netfilter` shows packets within the bridge to iptables, whatever the rules there are: conntrack may see them.
/// What it shows to arptables is ARP alone (`br_nf_forward_arp`, `net/bridge/br_netfilter_hooks.c`), which stays with the bridge.
fn shown_to_netfilter(netns: &Namespace, bridge: &Link, info: BridgeInfo) -> Option<Path> {
    let switches = [
        ("iptables", info.nf_call_iptables),
        ("ip6tables", info.nf_call_ip6tables),
    ];
    let of_this = || {
        switches
            .into_iter()
            .find_map(|(name, on)| on.then_some((name, bridge.name.as_str())))
    };
    let of_all = netns.sysctls.bridged_shown_to().map(|name| (name, "all bridges"));
    let (name, whose) = of_all.or_else(of_this)?;
    Some(Path::slow_since(
        Why::BridgeNetfilter,
        format!("br_netfilter shows packets within {whose} to {name} (bridge-nf-call-{name})"),
    ))
}

/// Rules for frames.
fn rules(netns: &Namespace, bridge: &Link) -> Option<Path> {
    let ruleset = &netns.ruleset;
    let judged = |text: String| Some(Path::slow_since(Why::BridgeRules, text));
    if ruleset.unreadable.is_some() {
        return judged("rules that could not be read may see its frames".into());
    }
    if let Some(chain) = ruleset
        .nft_chains
        .iter()
        .find(|chain| sees_frames(netns, bridge, chain))
    {
        let NftChain {
            family, table, name, ..
        } = chain;
        return judged(format!("the nftables chain {family} {table} {name} sees its frames"));
    }
    let is_other = |table: &&String| !table.starts_with("ip/") && !table.starts_with("ip6/");
    let table = ruleset.legacy.keys().find(is_other)?;
    judged(format!("the table {table} of ebtables sees its frames"))
}

/// What the engine is asked for needs rules within the bridge, whether or not they are there at the moment.
fn of_engine(build: &Build<'_>, network: &NetworkReport) -> Option<Path> {
    let network = build.host.networks.get(&NetworkId(network.id.clone()));
    deciders::is_without_icc(network).then(|| {
        let text = "the engine is to keep its containers from each other (icc=false)";
        Path::slow_since(Why::BridgeRules, text)
    })
}

/// Whether a base chain is asked about frames of a bridge. One of devices whose names are not all known may be.
fn sees_frames(netns: &Namespace, bridge: &Link, chain: &NftChain) -> bool {
    let of_devices = chain.family == "netdev" || (chain.family == "inet" && chain.hook == INET_INGRESS);
    let is_elsewhere = |name: &String| {
        let link = netns.link_by_name(name);
        link.is_some_and(|link| link.ifindex != bridge.ifindex && link.master != Some(bridge.ifindex))
    };
    chain.family == "bridge" || (of_devices && !chain.device.as_ref().is_some_and(is_elsewhere))
}

/// What a bridge does by itself.
fn by_itself(ports: &[&Link], bridge: &Link, info: BridgeInfo) -> Option<Path> {
    if info.vlan_filtering {
        return Some(Path::slow_since(
            Why::BridgeVlans,
            format!("{} filters by VLAN", bridge.name),
        ));
    }
    if info.ageing_time < MIN_AGEING {
        return Some(Path::slow_since(
            Why::BridgeForgets,
            format!(
                "{} forgets where containers are after {} ms",
                bridge.name,
                u64::from(info.ageing_time) * 10
            ),
        ));
    }
    let answers = |port: &&&Link| port.port.is_some_and(|port| port.neigh_suppress);
    let port = ports.iter().find(answers)?;
    Some(Path::slow_since(
        Why::BridgeAnswers,
        format!(
            "{} answers itself for neighbours (neigh_suppress on {})",
            bridge.name, port.name
        ),
    ))
}

/// Where each station of each bridge is.
type Heard = BTreeSet<(u32, Mac, u32)>;

/// The stations that bridges send frames to by one port.
fn heard(netns: &Namespace) -> Heard {
    let entries = netns.fdb.iter();
    entries
        .filter(|entry| entry.state != FdbState::Local && entry.vlan.is_none())
        .filter_map(|entry| Some((entry.bridge?, entry.mac, entry.ifindex)))
        .collect()
}

/// Whether nobody judges what comes in or goes out by a port; as what it goes into the map.
fn of_port(
    build: &Build<'_>,
    bridge: &Link,
    endpoint: &EndpointReport,
    translated: &BTreeMap<DeviceKey, String>,
    heard: &Heard,
) -> Result<(DeviceKey, DirectPort), Path> {
    if !endpoint.path.is_fast() {
        return Err(endpoint.path.clone());
    }
    let key = endpoint.device().ok_or_else(|| Path::slow(Why::NoVeth))?;
    let (Some(spec), Some(link)) = (build.devices.get(&key), build.netns.links.get(&key.ifindex)) else {
        return Err(Path::slow(Why::NoVeth));
    };
    if translated.contains_key(&key) {
        return Err(Path::slow(Why::VirtualAddresses));
    }
    let judge = restricted(link).or_else(|| watched(build.netns, build.facts, link));
    if let Some(path) = judge {
        return Err(path);
    }
    if spec.mac.is_multicast() || !heard.contains(&(bridge.ifindex, spec.mac, link.ifindex)) {
        return Err(Path::slow_since(
            Why::NotHeard,
            format!("{} has no entry of {} behind {}", bridge.name, spec.mac, link.name),
        ));
    }
    let to_peer = spec.flags & Device::PEER_IN_OTHER_NETNS != 0 && spec.flags & Device::EGRESS_QDISC == 0;
    let port = DirectPort {
        bridge: bridge.ifindex,
        mac: spec.mac,
        max_length: link.mtu,
        exit: if to_peer { Exit::Peer } else { Exit::Device },
    };
    Ok((key, port))
}

/// What the bridge does not let a port do.
fn restricted(link: &Link) -> Option<Path> {
    let Some(port) = link.port else {
        return Some(Path::slow(Why::PortNotForwarding));
    };
    if port.state != PortState::Forwarding || !link.lower_up {
        return Some(Path::slow_since(
            Why::PortNotForwarding,
            format!("the bridge does not forward by {} ({:?})", link.name, port.state),
        ));
    }
    let restrictions = [
        (port.isolated, "is isolated"),
        (port.locked, "is locked"),
        (!port.learning, "does not learn"),
        (!port.unicast_flood, "is not flooded"),
        (port.vlan_tunnel, "maps VLANs to tunnels"),
    ];
    let (_, what) = restrictions.into_iter().find(|(is_so, _)| *is_so)?;
    Some(Path::slow_since(
        Why::PortRestricted,
        format!("{} {what}, as a port of the bridge", link.name),
    ))
}

/// Queues and programs of others at either end of a veth.
fn watched(netns: &Namespace, facts: &Facts, link: &Link) -> Option<Path> {
    let name = &link.name;
    if let Some(kind) = tc::shaper(netns, link.ifindex) {
        return Some(Path::slow_since(
            Why::PortShaped,
            format!("the queueing discipline {kind} on {name} must see every packet"),
        ));
    }
    if let Some(text) = tc::anything_on(netns, facts, link) {
        return Some(Path::slow_since(Why::ForeignPrograms, text));
    }
    let inside = if link.peer_in_other_netns() {
        netns.peers.get(&link.ifindex).map(|peer| peer.xdp)
    } else if let LinkKind::Veth {
        peer_ifindex: Some(peer),
        ..
    } = link.kind
    {
        netns.links.get(&peer).map(|peer| peer.xdp)
    } else {
        None
    };
    match inside {
        None => Some(Path::slow_since(
            Why::PeerUnknown,
            format!("the container's end of {name} cannot be asked about"),
        )),
        Some(xdp) if xdp.is_attached() => Some(Path::slow_since(
            Why::ForeignPrograms,
            format!("the XDP program on the container's end of {name} must see every packet"),
        )),
        Some(_) => None,
    }
}
