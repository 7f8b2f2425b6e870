//! The host by other keys than its own: what is asked for each network or endpoint must not look through all links and containers
//! each time, since hosts have hundreds of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::{Attachment, Container, ContainerInterface, FdbState, Host, Link, Mac, Namespace, NetworkId};

/// Made once for each plan.
pub struct Index<'a> {
    /// Links by name.
    pub links: BTreeMap<&'a str, &'a Link>,
    /// The links that have a master, by that: ports of bridges.
    ports: BTreeMap<u32, Vec<&'a Link>>,
    /// The containers on each network.
    members: BTreeMap<&'a NetworkId, Vec<(&'a Container, &'a Attachment)>>,
    /// The containers' interfaces whose other ends are ports of a bridge, by that.
    interfaces: BTreeMap<u32, Vec<(&'a Container, &'a ContainerInterface)>>,
    /// Where bridges have heard whom: links and MAC addresses behind them.
    heard: BTreeSet<(u32, Mac)>,
}

impl<'a> Index<'a> {
    /// That of a host, and of a namespace of it.
    pub fn of(host: &'a Host, netns: &'a Namespace) -> Self {
        let mut interfaces: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        let mut members: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for container in host.containers.values() {
            for on in &container.attachments {
                members.entry(&on.network).or_default().push((container, on));
            }
            for interface in &container.interfaces {
                let end = interface.host_ifindex.and_then(|ifindex| netns.links.get(&ifindex));
                if let Some(master) = end.and_then(|link| link.master) {
                    interfaces.entry(master).or_default().push((container, interface));
                }
            }
        }
        let entries = netns.fdb.iter().filter(|entry| entry.state != FdbState::Local);
        let mut ports: BTreeMap<u32, Vec<&Link>> = BTreeMap::new();
        for link in netns.links.values() {
            if let Some(master) = link.master {
                ports.entry(master).or_default().push(link);
            }
        }
        Self {
            ports,
            links: netns.links.values().map(|link| (link.name.as_str(), link)).collect(),
            members,
            interfaces,
            heard: entries.map(|entry| (entry.ifindex, entry.mac)).collect(),
        }
    }

    /// The containers on a network, each with its place there.
    pub fn members(&self, network: &NetworkId) -> &[(&'a Container, &'a Attachment)] {
        self.members.get(network).map_or(&[], Vec::as_slice)
    }

    /// The containers' interfaces on a bridge.
    pub fn interfaces_on(&self, bridge: u32) -> &[(&'a Container, &'a ContainerInterface)] {
        self.interfaces.get(&bridge).map_or(&[], Vec::as_slice)
    }

    /// The ports of a bridge.
    pub fn ports_of(&self, bridge: u32) -> &[&'a Link] {
        self.ports.get(&bridge).map_or(&[], Vec::as_slice)
    }

    /// Whether a bridge has heard from a MAC address by a link, or was told of it.
    pub fn has_heard(&self, ifindex: u32, mac: Mac) -> bool {
        self.heard.contains(&(ifindex, mac))
    }
}
