//! Virtual addresses of aliases (mode `vip`): which there are, who is given how often, and who may ask.
//!
//! Only on bridges of this host: the programs give a connection to its member by the MAC address. An alias has an address of
//! each family in which a member has one. What cannot be had falls back to rotation, with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netfast_common::{
    alias::{MemberKey, address},
    device::DeviceKey,
    net::AnyIp,
    vip::{Backend, MEMBERS, SERVICES, SLOTS},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::VipPool,
    host::{Attachment, Container, ContainerState, Health, Host, IpNet, Mac, Network, NetworkId, OUR_PROTOCOL},
    plan::{
        DeviceSpec,
        report::{EndpointReport, NetworkReport, Path, Why},
    },
};

mod memory;
mod slots;

pub use memory::{VipMemory, hash, next_hop};

/// What should be done for virtual addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vips {
    /// What the programs know.
    pub table: VipTable,
    /// The endpoints whose packets are translated, by the ifindex of the veth, with the interface's name.
    pub endpoints: BTreeMap<DeviceKey, String>,
    /// Where the clients' ways there are, with the container that each is of.
    pub clients: BTreeMap<Client, (Way, String)>,
    /// The pools of which anything is in use: the host says of all of them that there is no way there.
    pub pools: BTreeSet<VipPool>,
    /// Who has which address.
    pub memory: VipMemory,
    /// What of this host a pool overlaps, if it does: then there are no virtual addresses of its family.
    pub conflicts: BTreeMap<VipPool, String>,
}

/// The entries of the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VipTable {
    /// By virtual address.
    pub services: BTreeMap<IpAddr, VipService>,
    /// The members, and whether each may be given.
    pub members: BTreeMap<MemberKey, bool>,
}

/// What a virtual address stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VipService {
    /// The number of the alias.
    pub id: u64,
    /// The ifindex of the network's bridge.
    pub bridge: u32,
    /// The slot is chosen by the client's address.
    pub affinity: bool,
    /// Whose turn it is, slot by slot; empty: nobody may be given.
    pub slots: Vec<Backend>,
}

/// An interface inside a container's network namespace. The process belongs to it, as to a
/// [`Loopback`](crate::plan::Loopback).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Client {
    /// The inode of the namespace.
    pub netns: u64,
    /// A process in it.
    pub pid: u32,
    /// The interface's index there.
    pub ifindex: u32,
}

impl Client {
    /// The container's end of a veth, whose other one has this index on the host.
    pub fn of(container: &Container, veth: u32) -> Option<Self> {
        let interface = container.interfaces.iter().find(|one| one.host_ifindex == Some(veth))?;
        Some(Self {
            netns: container.netns?.ino,
            pid: Some(container.pid).filter(|pid| *pid != 0)?,
            ifindex: interface.ifindex,
        })
    }
}

/// How a client's packets to virtual addresses leave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The first addresses of the blocks of 256 that are routed over the interface.
    pub blocks: BTreeSet<IpAddr>,
    /// The MAC address of their next hops: the bridge's.
    pub mac: Mac,
}

/// Where a client's way begins.
struct Place {
    /// The interface inside.
    client: Client,
    /// Its veth.
    device: DeviceKey,
    /// The bridge's MAC address.
    mac: Mac,
    /// The pools of its families.
    pools: Vec<VipPool>,
}

/// A member of an alias as a virtual address needs it.
pub(super) struct Candidate {
    backend: Backend,
    weight: u32,
    /// How well it is: the best are given.
    rank: Rank,
}

/// Whether a member may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It may not.
    Not,
    /// Only if all are so: its health check has not said yet that it is well.
    Starting,
    /// It may.
    Well,
}

/// The plan of virtual addresses while it is made.
pub(super) struct Builder<'a> {
    host: &'a Host,
    reports: &'a [NetworkReport],
    devices: &'a BTreeMap<DeviceKey, DeviceSpec>,
    /// Of IPv4, and of IPv6.
    pools: [VipPool; 2],
    slots: usize,
    /// Networks with a virtual address, and those of their pools that have it.
    networks: BTreeMap<NetworkId, BTreeSet<VipPool>>,
    /// Aliases that keep their address, by network: those that have it, and those that only cannot have it now.
    kept: BTreeSet<(NetworkId, String)>,
    /// What was planned.
    pub vips: Vips,
}

impl<'a> Builder<'a> {
    /// Begins with what is remembered.
    pub fn new(
        host: &'a Host,
        reports: &'a [NetworkReport],
        devices: &'a BTreeMap<DeviceKey, DeviceSpec>,
        pools: [VipPool; 2],
        memory: &VipMemory,
    ) -> Self {
        let mut memory = memory.clone();
        memory.retain(pools, |network, _| {
            host.networks.contains_key(&NetworkId(network.into()))
        });
        let vips = Vips {
            memory,
            conflicts: pools
                .into_iter()
                .filter_map(|pool| Some((pool, conflict(host, pool)?)))
                .collect(),
            ..Vips::default()
        };
        Self {
            host,
            reports,
            devices,
            pools,
            slots: 0,
            networks: BTreeMap::new(),
            kept: BTreeSet::new(),
            vips,
        }
    }

    /// Keeps the address of an alias that should have it, whether it can be used or not.
    pub fn keep(&mut self, network: &Network, alias: &str) {
        self.kept.insert((network.id.clone(), alias.into()));
    }

    /// Why a network's aliases cannot have virtual addresses, if they cannot.
    pub fn obstacle(&self, network: &Network, off: Option<&str>) -> Option<String> {
        let because = |text: &str| Some(format!("no virtual address: {text}"));
        if let Some(off) = off {
            return because(off);
        }
        if network.driver != "bridge" {
            return because(&format!("the network's driver is {}, not bridge", network.driver));
        }
        let Some(report) = self.report(network) else {
            return because("the network is not known");
        };
        match &report.path {
            Path::Slow(slow) if !is_passing(slow.why) => because(&slow.text),
            _ if report.bridge_ifindex.is_none() => because("its bridge device does not exist"),
            Path::Fast | Path::Slow(_) => None,
        }
    }

    /// Adds an alias with an address of a pool; returns it, or why there is none.
    pub fn add(
        &mut self,
        pool: VipPool,
        network: &Network,
        alias: &str,
        id: u64,
        affinity: bool,
        members: &[Candidate],
    ) -> Result<IpAddr, String> {
        if let Some(conflict) = self.vips.conflicts.get(&pool) {
            return Err(conflict.clone());
        }
        let slots = slots_of(affinity, members);
        let too_many = self.slots + slots.len() > SLOTS as usize / 2
            || self.vips.table.services.len() >= SERVICES as usize
            || self.vips.table.members.len() + members.len() > MEMBERS as usize;
        if too_many {
            return Err("the tables are full".into());
        }
        let bridge = self.report(network).and_then(|report| report.bridge_ifindex);
        let bridge = bridge.ok_or("the bridge is gone")?;
        self.keep(network, alias);
        let vip = self.vips.memory.give(pool, &network.id, alias);
        let vip = vip.ok_or_else(|| format!("all of {} = {pool} is given", pool.key()))?;
        self.slots += slots.len();
        for member in members {
            let key = key(id, &member.backend.address);
            let eligible = slots.contains(&member.backend);
            self.vips.table.members.insert(key, eligible);
        }
        let service = VipService {
            id,
            bridge,
            affinity,
            slots,
        };
        self.vips.table.services.insert(vip, service);
        self.networks.entry(network.id.clone()).or_default().insert(pool);
        Ok(vip)
    }

    /// The pools of both families.
    pub const fn pools(&self) -> [VipPool; 2] {
        self.pools
    }

    /// Whether an alias had an address of a pool before.
    pub fn had(&self, pool: VipPool, network: &Network, alias: &str) -> bool {
        self.vips.memory.get(pool, &network.id, alias).is_some()
    }

    /// Whether a container's packets to the virtual addresses of all of its networks find their way; those of one with
    /// addresses of the pools do not. Who has no IPv6 does without that of IPv6.
    pub fn reaches_all(&self, container: &Container) -> bool {
        let on = container.attachments.iter();
        on.filter(|on| self.networks.contains_key(&on.network))
            .all(|on| self.place(container, on).is_some())
    }

    /// The plan, with ways for all clients; nothing is remembered of aliases that have no address any more.
    pub fn finish(mut self) -> Vips {
        for container in self.host.containers.values() {
            for on in container
                .attachments
                .iter()
                .filter(|on| self.networks.contains_key(&on.network))
            {
                let Some(place) = self.place(container, on) else {
                    continue;
                };
                let mut blocks = self.vips.memory.blocks(&on.network);
                blocks.retain(|block| place.pools.iter().any(|pool| pool.contains(*block)));
                let way = Way { blocks, mac: place.mac };
                self.vips.clients.insert(place.client, (way, container.name.clone()));
                let name = self.devices[&place.device].name.clone();
                self.vips.endpoints.insert(place.device, name);
            }
        }
        self.vips.pools = self.networks.values().flatten().copied().collect();
        let kept = &self.kept;
        let is_kept = |network: &str, alias: &str| kept.contains(&(NetworkId(network.into()), alias.into()));
        self.vips.memory.retain(self.pools, is_kept);
        self.vips
    }

    fn report(&self, network: &Network) -> Option<&'a NetworkReport> {
        self.reports.iter().find(|report| report.id == network.id.0)
    }

    fn endpoint(&self, container: &Container, on: &Attachment) -> Option<(&'a NetworkReport, &'a EndpointReport)> {
        let report = self.reports.iter().find(|report| report.id == on.network.0)?;
        let mut endpoints = report.endpoints.iter();
        Some((
            report,
            endpoints.find(|endpoint| endpoint.container_id == container.id.0)?,
        ))
    }

    /// Where the way of a container on a network with virtual addresses begins. It must have an address of the first family
    /// in which there are any.
    fn place(&self, container: &Container, on: &Attachment) -> Option<Place> {
        let (report, endpoint) = self.endpoint(container, on)?;
        let veth = endpoint.ifindex?;
        let device = endpoint.device()?;
        let spec = self.devices.get(&device)?;
        let mut own = container.interfaces.iter().flat_map(|one| &one.addresses);
        if own.any(|net| self.pools.iter().any(|pool| overlaps(*net, pool.net()))) {
            return None;
        }
        let pools = self.networks.get(&on.network)?;
        let has = |pool: &VipPool| match pool.network() {
            IpAddr::V4(_) => spec.address4.is_some(),
            IpAddr::V6(_) => spec.address6.is_some(),
        };
        pools.first().filter(|pool| has(pool))?;
        Some(Place {
            client: Client::of(container, veth)?,
            device,
            mac: self.host.served().links.get(&report.bridge_ifindex?)?.mac?,
            pools: pools.iter().copied().filter(has).collect(),
        })
    }

    /// A member, if it has an address of a pool's family.
    pub fn candidate(&self, pool: VipPool, container: &Container, on: &Attachment, weight: u32) -> Option<Candidate> {
        let net = match pool.network() {
            IpAddr::V4(_) => on.ipv4,
            IpAddr::V6(_) => on.ipv6,
        };
        let address = net?.addr;
        let (_, endpoint) = self.endpoint(container, on)?;
        let mac: Option<Mac> = endpoint.mac.as_deref().and_then(|mac| mac.parse().ok());
        let is_there = endpoint.ifindex.is_some() && mac.is_some_and(|mac| !mac.is_multicast());
        Some(Candidate {
            backend: Backend {
                address: address.into(),
                mac: mac.unwrap_or_default().0,
                reserved: [0; 2],
            },
            weight,
            rank: match (container.state, container.health) {
                (ContainerState::Running, Health::None | Health::Healthy) if is_there && weight != 0 => Rank::Well,
                (ContainerState::Running, Health::Starting) if is_there && weight != 0 => Rank::Starting,
                _ => Rank::Not,
            },
        })
    }
}

impl VipTable {
    /// Whether a member may be given.
    pub fn is_eligible(&self, alias: u64, address: IpAddr) -> bool {
        let key = key(alias, &address.into());
        self.members.get(&key).copied().unwrap_or(false)
    }
}

/// The key of a member.
fn key(alias: u64, ip: &AnyIp) -> MemberKey {
    MemberKey {
        alias,
        address: address(ip),
    }
}

/// The members of the best rank, in the order in which they are given.
fn slots_of(affinity: bool, members: &[Candidate]) -> Vec<Backend> {
    let best = members.iter().map(|member| member.rank).max().unwrap_or(Rank::Not);
    let given: Vec<&Candidate> = members
        .iter()
        .filter(|member| best != Rank::Not && member.rank == best)
        .collect();
    let order = if affinity {
        let named = given
            .iter()
            .map(|member| (name(&member.backend.address), member.weight));
        slots::maglev(&named.collect::<Vec<_>>())
    } else {
        slots::sequence(&given.iter().map(|member| member.weight).collect::<Vec<_>>())
    };
    order.into_iter().map(|index| given[index].backend).collect()
}

/// By what a member is known in the table of a service by affinity.
fn name(ip: &AnyIp) -> u64 {
    match IpAddr::from(*ip) {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

/// Causes for the slow path that come and go, and that a virtual address is no part of: its connections must outlive them.
pub(super) fn is_passing(why: Why) -> bool {
    matches!(
        why,
        Why::RateRules | Why::Accounting | Why::ForeignPrograms | Why::BridgeShaped | Why::BridgeDown
    )
}

/// What of this host a pool overlaps. What netfast itself routes is no obstacle, and neither is what leads everywhere: a
/// default route, or the two halves of one that VPNs make.
fn conflict(host: &Host, pool: VipPool) -> Option<String> {
    let net = pool.net();
    let with = |what: String| Some(format!("{} = {pool} overlaps {what}", pool.key()));
    for network in host.networks.values() {
        let mut subnets = network.ipam.iter().filter_map(|pool| pool.subnet);
        if let Some(subnet) = subnets.find(|subnet| overlaps(*subnet, net)) {
            return with(format!("{subnet} of the Docker network {}", network.name));
        }
    }
    if let Some(address) = host
        .served()
        .addresses
        .iter()
        .find(|address| overlaps(address.net, net))
    {
        let name = host
            .served()
            .links
            .get(&address.ifindex)
            .map_or("an interface", |link| &link.name);
        return with(format!("the address {} of {name}", address.net));
    }
    let leads_there = |route: &&crate::host::Route| {
        route.dst.prefix > 1 && route.protocol != OUR_PROTOCOL && overlaps(route.dst, net)
    };
    with(format!(
        "the route to {}",
        host.served().routes.iter().find(leads_there)?.dst
    ))
}

fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(b.addr) && a.prefix <= b.prefix || b.contains(a.addr) && b.prefix <= a.prefix
}

#[cfg(test)]
mod tests;
