//! Bigger segments: what a container's TCP hands over at once, where that gains something.
//!
//! TCP makes segments of up to 64 KiB and leaves it to the last interface to cut them up; between containers of one host nobody has
//! to, and what a bulk transfer costs is counted by segments. Since Linux 6.3 (`IFLA_GSO_IPV4_MAX_SIZE`, commit 9eefedd58ae1) they
//! may be longer for IPv4. What leaves by an interface that takes 64 KiB only is cut up by software, at less than half of the speed.
//!
//! Of IPv6 they are left as they are: up to Linux 7.0 the kernel puts a jumbo option into longer ones, which no fast path reads.

use std::{collections::BTreeMap, fmt};

use netfast_common::device::Kind;
use serde::{Deserialize, Serialize};

use crate::{
    config::Segments,
    host::{Link, Network, NetworkId},
    plan::{Build, Client, labels, report::NetworkReport},
};

/// For one network, instead of the configuration's word.
pub const LABEL: &str = "netfast.segments";
/// The size that is set, bytes: twice the usual one. With three times of it four streams gain more, but one alone, whose data then no
/// longer fit the second-level cache on their way from one CPU to the other, falls to 0.6 (docs/segments.md). A number that
/// nobody else would write, so that what is netfast's is told from what an administrator has set.
pub const BIGGER: u32 = 2 * USUAL - 16;
/// The size that interfaces begin with, bytes (`GSO_LEGACY_MAX_SIZE`, `include/linux/netdevice.h`).
pub const USUAL: u32 = 65_536;

/// An interface that takes bigger segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentEnd {
    /// On the host: a bridge, or the host's side of a veth, by its index. First, since it must take what containers send.
    Host(u32),
    /// A container's, which its TCP asks how much it takes.
    Container(Client),
}

impl fmt::Display for SegmentEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(ifindex) => write!(f, "device {ifindex}"),
            Self::Container(client) => write!(f, "interface {} of process {}", client.ifindex, client.pid),
        }
    }
}

/// The interfaces that are to take them, with a name for each; `networks` are told what became of their wish.
pub fn add(build: &Build<'_>, networks: &mut [NetworkReport]) -> BTreeMap<SegmentEnd, String> {
    let mut all = BTreeMap::new();
    for report in networks {
        let network = build.host.networks.get(&NetworkId(report.id.clone()));
        let Some(network) = network else { continue };
        let wish = wish(build, network);
        if wish == Segments::Off {
            continue;
        }
        let why_not = why_not(build, network, report, wish);
        if why_not.is_none() {
            all.extend(ends(build, report));
        }
        let words = why_not.map_or("up to 128 KiB".into(), |why| format!("up to 64 KiB: {why}"));
        report.segments = Some(words);
    }
    all
}

/// What is wanted of a network.
fn wish(build: &Build<'_>, network: &Network) -> Segments {
    let label = network.labels.get(LABEL).map(String::as_str);
    label.and_then(Segments::of_label).unwrap_or(build.config.segments)
}

fn why_not(build: &Build<'_>, network: &Network, report: &NetworkReport, wish: Segments) -> Option<String> {
    if let Some(why) = labels::why_off(network, build.config) {
        return Some(why.text().into());
    }
    let Some(bridge) = report
        .bridge_ifindex
        .and_then(|ifindex| build.netns.links.get(&ifindex))
    else {
        return Some("it has no bridge on this host".into());
    };
    if bridge.offload.gso_ipv4_max_size.is_none() {
        return Some("the kernel has no longer ones of IPv4 (Linux 6.3)".into());
    }
    if wish == Segments::On || network.internal {
        return None;
    }
    let mut uplinks = build
        .devices
        .iter()
        .filter(|(_, spec)| spec.kind == Kind::Uplink)
        .filter_map(|(key, _)| build.netns.links.get(&key.ifindex))
        .peekable();
    if uplinks.peek().is_none() {
        return Some("it is not internal, and no uplink is known".into());
    }
    let too_small = uplinks.find(|link| !takes_bigger(link))?;
    Some(format!("what leaves by {} would have to be cut up", too_small.name))
}

fn takes_bigger(link: &Link) -> bool {
    link.offload.gso_ipv4_max_size.is_some_and(|size| size >= BIGGER)
}

/// The interfaces of a network.
fn ends(build: &Build<'_>, report: &NetworkReport) -> Vec<(SegmentEnd, String)> {
    let host = |ifindex| (SegmentEnd::Host(ifindex), build.netns.links.get(&ifindex));
    let named = |(end, link): (SegmentEnd, Option<&Link>)| Some((end, link?.name.clone()));
    let mut ends: Vec<_> = report.bridge_ifindex.map(host).and_then(named).into_iter().collect();
    for endpoint in &report.endpoints {
        let Some(veth) = endpoint.ifindex else { continue };
        let containers = &mut build.host.containers.values();
        let container = containers.find(|container| container.id.0 == endpoint.container_id);
        let Some((container, client)) = container.and_then(|one| Some((one, Client::of(one, veth)?))) else {
            continue;
        };
        if labels::is_off(&container.labels) {
            continue;
        }
        ends.extend(named(host(veth)));
        ends.push((SegmentEnd::Container(client), container.name.clone()));
    }
    ends
}
