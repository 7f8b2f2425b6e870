//! What the kernel's verdict on a learned flow depends on, besides the flow's devices: when it changes, all learned
//! flows become misses.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::device::{DeviceKey, Kind};

use crate::{
    host::{Address, BridgeInfo, LinkKind, Mac, Namespace, NeighbourKey, NftChain, PolicyRules, Route, Sysctls},
    plan::{DeviceSpec, uplinks::is_link_local},
};

/// What learned flows depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Packet-filter rules.
    Rules,
    /// Routes and policy rules.
    Routes,
    /// The host's addresses.
    Addresses,
    /// A neighbour that packets are sent to.
    Neighbours,
    /// Kernel switches.
    Sysctls,
    /// What a bridge does besides forwarding.
    Bridges,
    /// The name of an interface: rules name interfaces.
    Names,
}

impl Cause {
    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Routes => "routes",
            Self::Addresses => "addresses",
            Self::Neighbours => "neighbours",
            Self::Sysctls => "sysctls",
            Self::Bridges => "bridges",
            Self::Names => "interface names",
        }
    }
}

/// What learned flows depend on. The parts themselves are kept, not a hash: then a change has a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpochInputs {
    nft_generation: Option<u32>,
    nft_chains: BTreeSet<NftChain>,
    legacy: BTreeMap<String, u64>,
    nfqueue_bound: BTreeSet<u16>,
    routes: BTreeSet<Route>,
    policy: PolicyRules,
    addresses: BTreeSet<Address>,
    neighbours: BTreeMap<NeighbourKey, Met>,
    sysctls: Sysctls,
    bridges: BTreeMap<u32, BridgeInfo>,
    /// Names of bridges and of devices.
    names: BTreeMap<u32, String>,
}

/// A neighbour whose MAC address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Met {
    mac: Mac,
    /// It is an endpoint, so its flows have that endpoint's generation too.
    endpoint: bool,
    /// It is behind a bridge of ours. Then only flows of the endpoint with its MAC address can have been learned
    /// through it.
    bridge: bool,
    /// That endpoint's device.
    owner: Option<DeviceKey>,
}

impl EpochInputs {
    /// Takes them from the namespace; neighbours count behind the bridges and uplinks among these devices.
    pub fn of(netns: &Namespace, devices: &BTreeMap<DeviceKey, DeviceSpec>) -> Self {
        let endpoints: BTreeSet<(std::net::IpAddr, Mac)> = devices
            .values()
            .filter(|spec| spec.kind == Kind::Endpoint)
            .flat_map(|spec| {
                let v4 = spec.address4.map(std::net::IpAddr::from);
                let v6 = spec.address6.map(std::net::IpAddr::from);
                v4.into_iter().chain(v6).map(|ip| (ip, spec.mac))
            })
            .collect();
        let forwards = |ifindex: u32| {
            devices
                .get(&netns.key(ifindex))
                .is_some_and(|spec| matches!(spec.kind, Kind::Bridge | Kind::Uplink))
        };
        let mut owners = BTreeMap::new();
        for (device, spec) in devices.iter().filter(|(_, spec)| spec.kind == Kind::Endpoint) {
            // The first, if somebody else has its address, too.
            owners.entry((spec.identity.master, spec.mac)).or_insert(*device);
        }
        let neighbours = netns.neighbours.iter().filter_map(|(key, neighbour)| {
            let mac = neighbour.mac.filter(|_| neighbour.state.is_valid())?;
            // Multicast is mapped, not resolved, and such entries come and go.
            let met = Met {
                mac,
                endpoint: endpoints.contains(&(key.ip, mac)),
                bridge: devices
                    .get(&netns.key(key.ifindex))
                    .is_some_and(|spec| spec.kind == Kind::Bridge),
                owner: owners.get(&(Some(key.ifindex), mac)).copied(),
            };
            (forwards(key.ifindex) && !key.ip.is_multicast() && !mac.is_multicast()).then_some((*key, met))
        });
        let bridges = netns.links.values().filter_map(|link| {
            let LinkKind::Bridge(info) = link.kind else {
                return None;
            };
            Some((link.ifindex, BridgeInfo { ageing_time: 0, ..info }))
        });
        let names = netns
            .links
            .values()
            .filter(|link| matches!(link.kind, LinkKind::Bridge(_)) || devices.contains_key(&netns.key(link.ifindex)));
        Self {
            nft_generation: netns.ruleset.nft_generation,
            nft_chains: netns.ruleset.nft_chains.clone(),
            legacy: netns.ruleset.legacy.clone(),
            nfqueue_bound: netns.ruleset.nfqueue_bound.clone(),
            // Every veth of a container has link-local ones for a moment.
            routes: netns
                .routes
                .iter()
                .filter(|route| !is_link_local(route.dst.addr))
                .cloned()
                .collect(),
            policy: netns.policy_rules,
            addresses: netns
                .addresses
                .iter()
                .filter(|address| !is_link_local(address.net.addr))
                .cloned()
                .collect(),
            neighbours: neighbours.collect(),
            sysctls: netns.sysctls.of_verdicts(),
            bridges: bridges.collect(),
            names: names.map(|link| (link.ifindex, link.name.clone())).collect(),
        }
    }

    /// What differs in `newer` so that flows learned under `self` must not be used. A bridge or a neighbour that is
    /// new is no cause: nothing was learned through it.
    pub fn causes(&self, newer: &Self) -> BTreeSet<Cause> {
        let rules = self.nft_generation == newer.nft_generation
            && self.nft_chains == newer.nft_chains
            && self.legacy == newer.legacy
            && self.nfqueue_bound == newer.nfqueue_bound;
        let routes = self.routes == newer.routes && self.policy == newer.policy;
        let neighbours = self.lost_neighbours(newer).all(|lost| lost.bridge);
        // One that is gone took its endpoints with it.
        let bridges = self
            .bridges
            .iter()
            .all(|(ifindex, old)| newer.bridges.get(ifindex).is_none_or(|new| new == old));
        let names = self
            .names
            .iter()
            .all(|(ifindex, old)| newer.names.get(ifindex).is_none_or(|new| new == old));
        [
            (rules, Cause::Rules),
            (routes, Cause::Routes),
            (self.addresses == newer.addresses, Cause::Addresses),
            (neighbours, Cause::Neighbours),
            (self.sysctls == newer.sysctls, Cause::Sysctls),
            (bridges, Cause::Bridges),
            (names, Cause::Names),
        ]
        .into_iter()
        .filter_map(|(same, cause)| (!same).then_some(cause))
        .collect()
    }

    /// The endpoints whose flows must not be used, because a neighbour that had their MAC address has another one.
    pub fn outdated(&self, newer: &Self) -> BTreeSet<DeviceKey> {
        let lost = self.lost_neighbours(newer);
        lost.filter(|lost| lost.bridge).filter_map(|lost| lost.owner).collect()
    }

    /// Neighbours that are not who they were.
    fn lost_neighbours<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a Met> {
        let lost = self
            .neighbours
            .iter()
            .filter(|(key, old)| match newer.neighbours.get(key) {
                Some(new) => new.mac != old.mac,
                None => !old.endpoint,
            });
        lost.map(|(_, old)| old)
    }
}
