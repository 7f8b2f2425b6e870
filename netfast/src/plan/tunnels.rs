//! Tunnels: VXLAN devices that packets of containers leave by, and whose outer headers may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::{
    device::{DeviceKey, Kind},
    tunnel::Tunnel,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    host::{BridgeInfo, BridgePort, Link, LinkKind, Namespace, PortState, VxlanInfo},
    plan::{Build, openvswitch, plain, tc},
};

/// A VXLAN device that containers' packets leave by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its network identifier.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
    /// The bridge with containers that it is a port of, if it is one.
    #[serde(default)]
    pub bridge: Option<u32>,
    /// Whether its outer packets have UDP checksums: then those that are still to be segmented are the kernel's.
    #[serde(default)]
    pub checksums: bool,
    /// Why the kernel must write the outer header of each packet, if it must.
    pub why: Option<String>,
    /// Where outer headers are repeated: why the kernel must take off those of the packets that come in, if it must.
    #[serde(default)]
    pub why_in: Option<String>,
}

/// The shortest time, in seconds, after which a device may forget an end: it hears of each conversation once a second.
const SHORTEST_AGEING: u32 = 3;

/// Adds the VXLAN devices that are ports of bridges with containers: they lead off the host as well as one with routes of its
/// own.
pub fn add(build: &mut Build<'_>) {
    if !build.config.tunnels && build.config.sandbox.is_none() {
        return;
    }
    let netns = build.netns;
    for link in netns.links.values() {
        let key = netns.key(link.ifindex);
        if matches!(link.kind, LinkKind::Vxlan(_)) && !build.devices.contains_key(&key) && is_fit_port(build, link) {
            build.devices.insert(key, plain(link, Kind::Uplink));
        }
    }
}

/// What a link is to a bridge with containers, if it is a port of one.
fn port(build: &Build<'_>, link: &Link) -> Option<(BridgePort, BridgeInfo)> {
    let bridge = build.netns.links.get(&link.master?)?;
    let LinkKind::Bridge(info) = bridge.kind else {
        return None;
    };
    let device = build.devices.get(&build.netns.key(bridge.ifindex))?;
    (device.kind == Kind::Bridge).then_some((link.port?, info))
}

/// The datapath of Open vSwitch with containers that it is a port of, if it is one.
fn of_datapath(build: &Build<'_>, link: &Link) -> Option<u32> {
    let master = link.master.filter(|_| openvswitch::is_port(build.netns, link))?;
    let mut devices = build.devices.values();
    devices
        .any(|spec| spec.identity.master == Some(master))
        .then_some(master)
}

/// Whether a link is a port of a bridge with containers, and may be a way off it.
pub fn is_fit_port(build: &Build<'_>, link: &Link) -> bool {
    port(build, link).is_some() && unfit(build, link).is_none()
}

/// Why a device is no way off the host. As a port of a bridge it must be sent what the bridge has heard from there: what that
/// floods may be for somebody else.
fn unfit(build: &Build<'_>, link: &Link) -> Option<String> {
    let named = &build.config.uplinks;
    let is_named = named.is_empty() || named.contains(&link.name);
    let of_itself = [
        (!link.up, "it is down"),
        (!link.is_ethernet(), "its packets have no Ethernet header"),
        (
            !is_named,
            "other interfaces are named as uplinks, and it is not (uplinks)",
        ),
    ];
    let as_port = port(build, link).map(|(port, bridge)| unfit_as_port(port, bridge));
    let why = of_itself.into_iter().chain(as_port.into_iter().flatten());
    why.into_iter()
        .find_map(|(is_so, why)| is_so.then(|| why.to_owned()))
        .or_else(|| tc::foreign_on_ingress(build.netns, build.facts, link))
}

fn unfit_as_port(port: BridgePort, bridge: BridgeInfo) -> [(bool, &'static str); 4] {
    [
        (
            bridge.ageing_time == 0,
            "its bridge remembers no station (ageing time 0)",
        ),
        (
            port.state != PortState::Forwarding,
            "its port of the bridge does not forward",
        ),
        (
            !port.learning || port.locked,
            "its bridge learns no station from it (learning, locked)",
        ),
        (port.vlan_tunnel, "its bridge maps VLANs to network identifiers"),
    ]
}

/// The VXLAN devices whose outer headers may be repeated, and of all that packets of containers leave by whether and why not.
pub fn ends(build: &Build<'_>) -> (BTreeMap<DeviceKey, Tunnel>, Vec<TunnelReport>) {
    let netns = build.netns;
    let (mut ends, mut reports) = (BTreeMap::new(), Vec::new());
    for link in netns.links.values() {
        let LinkKind::Vxlan(info) = link.kind else { continue };
        let key = netns.key(link.ifindex);
        let is_uplink = build.devices.get(&key).is_some_and(|spec| spec.kind == Kind::Uplink);
        let has_route = || netns.routes.iter().any(|route| route.oif == Some(link.ifindex));
        let of_ovs = of_datapath(build, link);
        let bridge = port(build, link).and(link.master).or(of_ovs);
        if !is_uplink && bridge.is_none() && !has_route() {
            continue;
        }
        let why = of_ovs
            .and_then(|_| by_itself(info).map(Into::into))
            .or_else(|| off(build.config))
            .or_else(|| unfit(build, link))
            .or_else(|| (!is_uplink).then(|| "it is no uplink".into()))
            .or_else(|| by_itself(info).map(Into::into))
            .or_else(|| several_ends(netns, link))
            .or_else(|| by_others(build, link));
        let why_in = why.is_none().then(|| stays_on(build, info)).flatten();
        if why.is_none() {
            let tunnel = Tunnel::new(info.vni, info.port);
            let tunnel = if info.checksum { tunnel.with_checksums() } else { tunnel };
            let has_way_in = why_in.is_none();
            ends.insert(key, if has_way_in { tunnel.with_way_in() } else { tunnel });
        }
        reports.push(TunnelReport {
            ifindex: link.ifindex,
            name: link.name.clone(),
            vni: info.vni,
            port: info.port,
            bridge,
            checksums: info.checksum,
            why,
            why_in,
        });
    }
    (ends, reports)
}

/// Who wants no header repeated.
fn off(config: &Config) -> Option<String> {
    let why = match config.sandbox {
        // What is sent to the device itself meets all that the kernel has for it.
        Some(_) => "its outer packets leave by another network namespace",
        None if !config.tunnels => "switched off (tunnels = false in netfast.toml)",
        None => return None,
    };
    Some(why.into())
}

/// A frame to a station that the device does not know goes to each of these ends: one copy after the other, of which only one is
/// seen in the run of the kernel that it was given in, and if the others leave by ways that netfast is not attached to, that one
/// would be repeated alone.
fn several_ends(netns: &Namespace, link: &Link) -> Option<String> {
    let entries = netns.fdb.iter();
    let entries = entries.filter(|entry| entry.ifindex == link.ifindex && entry.is_of_unknown());
    let ends: BTreeSet<_> = entries.filter_map(|entry| entry.remote).collect();
    (ends.len() > 1).then(|| {
        format!(
            "it sends frames to unknown stations to {} ends (`bridge fdb show dev {}`)",
            ends.len(),
            link.name
        )
    })
}

/// What of a device's own makes each outer header another.
fn by_itself(info: VxlanInfo) -> Option<&'static str> {
    let reasons = [
        (info.external, "its ends come with each packet (external)"),
        (
            info.extended,
            "its headers have group policies, other protocols or remote checksums",
        ),
        (info.ipv6, "its outer packets are IPv6"),
        (
            info.ttl_inherit,
            "the outer TTL is that of the packet inside (ttl inherit)",
        ),
        (info.df_inherit, "DF is that of the packet inside (df inherit)"),
        (info.answers, "it answers or routes by itself (proxy, rsc)"),
        (
            info.vni >= 1 << 24 || info.port == 0,
            "its network identifier or port is none",
        ),
    ];
    reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why)
}

/// Who must see each packet on its way to the uplink.
fn by_others(build: &Build<'_>, link: &Link) -> Option<String> {
    let netns = build.netns;
    if let Some(why) = &build.facts.tunnels_off {
        return Some(why.clone());
    }
    if let Some(text) = tc::anything_on(netns, build.facts, link).or_else(|| tc::on_the_way(netns)) {
        return Some(text);
    }
    if let Some(kind) = tc::shaper(netns, link.ifindex) {
        return Some(format!(
            "the queueing discipline {kind} on {} must see every packet",
            link.name
        ));
    }
    if netns.sysctls.counts_each_packet(build.config.allow_accounting) {
        return Some("conntrack counts each packet (nf_conntrack_acct)".into());
    }
    if netns.ruleset.unreadable.is_some() && !build.config.allow_rate_rules {
        return Some("rules that could not be read may judge outer packets".into());
    }
    let uplinks = uplinks(build, netns);
    let rule = build.rules.concerning_tunnels(&uplinks)?;
    Some(format!(
        "this rule must see every outer packet (see allow_rate_rules): {rule}"
    ))
}

/// Why the kernel must see the outer header of each packet that comes in.
fn stays_on(build: &Build<'_>, info: VxlanInfo) -> Option<String> {
    if let Some(why) = &build.facts.way_in_off {
        return Some(why.clone());
    }
    if info.ageing.is_some_and(|seconds| seconds < SHORTEST_AGEING) {
        return Some("it forgets at once which end a station is behind (ageing)".into());
    }
    let rule = build.rules.concerning_way_in(&uplinks(build, build.netns))?;
    Some(format!(
        "this rule must see every outer packet that comes in (see allow_rate_rules): {rule}"
    ))
}

/// The interfaces that outer packets may leave by.
fn uplinks<'a>(build: &Build<'_>, netns: &'a Namespace) -> Vec<&'a str> {
    let devices = build.devices.iter().filter(|(_, spec)| spec.kind == Kind::Uplink);
    devices
        .filter_map(|(key, _)| netns.links.get(&key.ifindex))
        .filter(|link| !matches!(link.kind, LinkKind::Vxlan(_)))
        .map(|link| link.name.as_str())
        .collect()
}
