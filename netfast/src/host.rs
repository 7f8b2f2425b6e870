//! The observed host: plain data about its network namespaces, networks and containers, as last seen.
//!
//! `observe` fills it, `plan` reads it. Nothing here interprets: whether a link is an endpoint or a network is
//! accelerated is the plan's business. All maps are ordered, so that two snapshots of the same state are equal and
//! print the same. Numbers are in host byte order; units are said where there are any. Interface indexes are those of
//! the namespace that holds them, unless a field says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netfast_common::device::{DeviceKey, NetnsNumber};

mod address;
mod inside;
mod link;
mod localhost;
mod ruleset;
mod runtime;

pub use address::{
    Address, AddressScope, FdbEntry, FdbState, IpNet, Mac, MacParseError, Neighbour, NeighbourKey, NeighbourState,
    OUR_PROTOCOL, PolicyRules, Route, RouteType,
};
pub use inside::{InsideRules, ResolverRules, SavedChain, SavedRule};
pub use link::{
    BridgeInfo, BridgePort, Link, LinkKind, Offload, OperState, Peer, PortState, Qdisc, TcFilter, VxlanInfo, Xdp,
};
pub use localhost::{BaseChain, ChainName, Effect, Field, HostRules, Localhost, Match, Proxy, Rule};
pub use ruleset::{NftChain, RuleFinding, RuleSource, Ruleset, Severity, Sysctls, Verdict, Way};
pub use runtime::{
    Attachment, Container, ContainerId, ContainerInterface, ContainerState, Health, IpamPool, NetnsId, Network,
    NetworkId, NetworkMode, Protocol, PublishedPort, RuntimeState,
};

/// Everything that the observers know of the host, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Whether a container runtime is asked, and whether it answers. When it does not, `networks` and `containers`
    /// are as last known.
    pub runtime: RuntimeState,
    /// The runtime's networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// The runtime's running and paused containers.
    pub containers: BTreeMap<ContainerId, Container>,
    /// The network namespaces in which packets are forwarded. The one that the daemon serves is always among them.
    pub namespaces: BTreeMap<NetnsNumber, Namespace>,
}

impl Default for Host {
    fn default() -> Self {
        Self::from(Namespace::default())
    }
}

/// A host with this namespace as the one that is served, without a runtime.
impl From<Namespace> for Host {
    fn from(served: Namespace) -> Self {
        Self {
            runtime: RuntimeState::default(),
            networks: BTreeMap::new(),
            containers: BTreeMap::new(),
            namespaces: [(NetnsNumber::SERVED, served)].into(),
        }
    }
}

impl Host {
    /// The namespace that the daemon serves.
    pub fn served(&self) -> &Namespace {
        &self.namespaces[&NetnsNumber::SERVED]
    }

    /// The namespace that the daemon serves, to be filled.
    pub fn served_mut(&mut self) -> &mut Namespace {
        self.namespaces.entry(NetnsNumber::SERVED).or_default()
    }

    /// The containers on a network, each with its place there.
    pub fn members<'a>(&'a self, network: &'a NetworkId) -> impl Iterator<Item = (&'a Container, &'a Attachment)> {
        self.containers.values().flat_map(move |container| {
            let on = container.attachments.iter().filter(move |on| on.network == *network);
            on.map(move |on| (container, on))
        })
    }

    /// The link, if there is one.
    pub fn link(&self, device: DeviceKey) -> Option<&Link> {
        self.namespaces.get(&device.netns)?.links.get(&device.ifindex)
    }
}

/// What was observed of one network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    /// What the programs that run in it call it.
    pub number: NetnsNumber,
    /// Links by interface index.
    pub links: BTreeMap<u32, Link>,
    /// The other ends of veths that end in other namespaces, by the index of the end here. One is missing where the
    /// kernel cannot be asked about it.
    pub peers: BTreeMap<u32, Peer>,
    /// Addresses of the links.
    pub addresses: BTreeSet<Address>,
    /// The neighbour tables (ARP and ND) of all links.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// Forwarding entries of bridges and of vxlan devices.
    pub fdb: BTreeSet<FdbEntry>,
    /// Routes of all tables and both families, multipath ones with one entry per hop.
    pub routes: BTreeSet<Route>,
    /// The policy routing rules, summarised.
    pub policy_rules: PolicyRules,
    /// Queueing disciplines by interface index.
    pub qdiscs: BTreeMap<u32, Vec<Qdisc>>,
    /// Classic tc filters, by interface index, where a queueing discipline can hold any.
    pub tc_filters: BTreeMap<u32, Vec<TcFilter>>,
    /// Kernel switches that matter to forwarding.
    pub sysctls: Sysctls,
    /// What is known of the packet filter's rules.
    pub ruleset: Ruleset,
    /// BPF links to netfilter hooks by their numbers, those of other namespaces included: the kernel does not tell which
    /// these are.
    pub netfilter_programs: BTreeSet<u32>,
}

impl Namespace {
    /// What an interface of this index is called outside of the namespace.
    pub const fn key(&self, ifindex: u32) -> DeviceKey {
        DeviceKey::new(self.number, ifindex)
    }

    /// The link of that name, if there is one. Names are unique within a namespace.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The links whose master is `bridge`: ports of a bridge, slaves of a bond.
    pub fn ports_of(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(bridge))
    }

    /// The addresses of one link.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        // They are ordered by link first; a host with hundreds of networks has thousands.
        let from_there = self.addresses.range(Address::lowest_of(ifindex)..);
        from_there.take_while(move |address| address.ifindex == ifindex)
    }

    /// Whether the address is one of the host's own.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.net.addr == ip)
    }
}
