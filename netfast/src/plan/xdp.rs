//! XDP at uplinks: at which, and which containers' interfaces take frames from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use netfast_common::device::{Device, DeviceKey, Kind};
use serde::{Deserialize, Serialize};

use crate::{
    config::XdpMode,
    host::{Link, LinkKind},
    plan::Build,
};

/// Frames can be passed on, and sent on (`NETDEV_XDP_ACT_BASIC` and `NETDEV_XDP_ACT_REDIRECT`, linux/netdev.h).
const NATIVE: u64 = 1 | 2;
/// Frames can be sent to it (`NETDEV_XDP_ACT_NDO_XMIT`).
const TAKES_FRAMES: u64 = 4;
/// The largest MTU, in bytes, whose frames fit into one page of 4 KiB with what the kernel keeps there besides
/// (`veth_xdp_set`, drivers/net/veth.c, has 3506; drivers differ by a few bytes, and have the last word).
const LARGEST_MTU: u32 = 3498;

/// What only those can know who ask drivers and namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpFacts {
    /// Why there can be no XDP at all.
    pub off: Option<String>,
    /// What each interface can do with frames.
    pub features: BTreeMap<u32, u64>,
    /// Interfaces that take VLAN tags off what they receive, or of which that is not known.
    pub untagging: BTreeSet<u32>,
    /// The XDP programs that are netfast's own.
    pub own: BTreeSet<u32>,
    /// The namespaces of containers by the number that this namespace has for them: inode, and a file that leads there.
    pub namespaces: BTreeMap<i32, (u64, PathBuf)>,
    /// Interfaces that have refused, and why: uplinks, and containers' veths.
    pub refused: BTreeMap<u32, String>,
}

/// The interface of a container, which takes frames that are sent to its host-side veth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct XdpEnd {
    /// Index of the veth on the host.
    pub veth: u32,
    /// The inode of the container's namespace.
    pub netns: u64,
    /// A file that leads there.
    pub path: PathBuf,
    /// Index of the interface there.
    pub ifindex: u32,
}

/// What is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpWish {
    /// The veth's name, for people.
    pub name: String,
    /// It must be told to: GRO is off there.
    pub gro: bool,
    /// It is up. One that is down keeps what was done to it: what its veth says of it may be old when it comes back.
    pub up: bool,
}

/// What should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xdp {
    /// The uplinks that the program is attached to, by name.
    pub uplinks: BTreeMap<DeviceKey, String>,
    /// The interfaces that take frames.
    pub ends: BTreeMap<XdpEnd, XdpWish>,
    /// All uplinks, if somebody asked for XDP.
    pub reports: Vec<XdpReport>,
}

/// What became of an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XdpReport {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Why there is no XDP, if there is none.
    pub why: Option<String>,
}

/// Plans it.
pub fn plan(build: &Build<'_>) -> Xdp {
    let mut xdp = Xdp::default();
    if build.config.xdp == XdpMode::Off || build.config.sandbox.is_some() {
        return xdp;
    }
    let of_kind = |kind| build.devices.iter().filter(move |(_, spec)| spec.kind == kind);
    for (key, spec) in of_kind(Kind::Uplink) {
        let Some(link) = build.netns.links.get(&key.ifindex) else {
            continue;
        };
        let why = why_not(build, link);
        if why.is_none() {
            xdp.uplinks.insert(*key, spec.name.clone());
        }
        xdp.reports.push(XdpReport {
            ifindex: key.ifindex,
            name: spec.name.clone(),
            why,
        });
    }
    if xdp.uplinks.is_empty() {
        return xdp;
    }
    for (key, spec) in of_kind(Kind::Endpoint) {
        let wanted = Device::ACCELERATED | Device::PEER_IN_OTHER_NETNS;
        if spec.flags & wanted != wanted || spec.flags & Device::EGRESS_QDISC != 0 {
            continue;
        }
        if let Some(link) = build.netns.links.get(&key.ifindex)
            && let Some((end, wish)) = end(build, link)
        {
            xdp.ends.insert(end, wish);
        }
    }
    xdp
}

/// A container's interface behind a veth that can take frames, if it can be looked at.
fn end(build: &Build<'_>, link: &Link) -> Option<(XdpEnd, XdpWish)> {
    let facts = &build.facts.xdp;
    let LinkKind::Veth {
        peer_ifindex: Some(ifindex),
        peer_netns: Some(nsid),
    } = link.kind
    else {
        return None;
    };
    if facts.refused.contains_key(&link.ifindex) {
        return None;
    }
    let (netns, path) = facts.namespaces.get(&nsid)?.clone();
    let features = facts.features.get(&link.ifindex)?;
    let end = XdpEnd {
        veth: link.ifindex,
        netns,
        path,
        ifindex,
    };
    let wish = XdpWish {
        name: link.name.clone(),
        gro: features & TAKES_FRAMES == 0,
        up: link.lower_up,
    };
    Some((end, wish))
}

/// Why an uplink has no XDP, in words.
fn why_not(build: &Build<'_>, link: &Link) -> Option<String> {
    let facts = &build.facts.xdp;
    if let Some(why) = &facts.off {
        return Some(why.clone());
    }
    if let Some(why) = facts.refused.get(&link.ifindex) {
        return Some(why.clone());
    }
    let is_veth = matches!(link.kind, LinkKind::Veth { .. });
    let is_card = matches!(link.kind, LinkKind::Physical);
    let is_native = facts
        .features
        .get(&link.ifindex)
        .is_some_and(|has| has & NATIVE == NATIVE);
    let is_foreign = |id: Option<u32>| id.is_some_and(|id| !facts.own.contains(&id));
    let xdp = link.xdp;
    let tcx = build.facts.foreign.get(&build.netns.key(link.ifindex));
    let tcx = tcx.and_then(|foreign| foreign.ingress.first());
    let words = [
        (link.master.is_some(), "it is a port of a bridge or bond".to_owned()),
        (
            !is_veth && !is_card,
            "it is neither a network card nor a veth".to_owned(),
        ),
        (
            is_veth && build.config.xdp != XdpMode::On,
            "it is a veth, whose sender would lose segmentation (`xdp = \"on\"` takes it nevertheless)".to_owned(),
        ),
        (!is_native, "its driver has no XDP that sends frames on".to_owned()),
        (
            is_foreign(xdp.native) || xdp.generic.is_some() || xdp.offloaded.is_some(),
            "another XDP program is attached to it".to_owned(),
        ),
        (
            tcx.is_some(),
            format!(
                "the program {} on its ingress must see every packet",
                tcx.map_or("", String::as_str)
            ),
        ),
        (
            link.mtu > LARGEST_MTU,
            format!(
                "its MTU is {}, and frames of more than {LARGEST_MTU} bytes need more than a page",
                link.mtu
            ),
        ),
        (
            is_card && facts.untagging.contains(&link.ifindex),
            format!(
                "it takes VLAN tags off, which XDP cannot see then (`ethtool -K {} rxvlan off`)",
                link.name
            ),
        ),
    ];
    words.into_iter().find_map(|(is_so, words)| is_so.then_some(words))
}
