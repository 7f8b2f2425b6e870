//! Which names several containers of a network share, and what the program at the resolver's answers must know of them.
//!
//! Docker's resolver answers such a name with the addresses of all that have it: by an alias, by the container's name
//! or by its short identifier, in whatever case, with and without the network's name behind it. A container that is on
//! several networks is answered by the first of them that knows the name; so an answer is told by its name and its set of
//! addresses, and where two aliases have both in common, neither is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netfast_common::alias::{
    Alias, AliasKey, COUNTED, ENTRIES, MEMBERS, MemberKey, NAME, RecordType, address4, address6, digest, part,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{AliasMode, Config},
    plan::Facts,
    world::{Attachment, Container, ContainerState, Health, NetnsId, Network, NetworkMode, World},
};

/// `off` leaves the resolver's answers alone: on a network for its aliases, on a container for what it asks.
pub(super) const LABEL: &str = "netfast.alias";
/// The longest label of a name (RFC 1035).
const MAX_LABEL: usize = 63;

/// What should be done for aliases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aliases {
    /// What the program knows.
    pub table: AliasTable,
    /// The loopback interfaces that it is needed on, with the container that each is of.
    pub loopbacks: BTreeMap<Loopback, String>,
    /// Every alias, for people, by network and name.
    pub reports: Vec<AliasReport>,
}

/// The entries of the alias maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AliasTable {
    /// What to do with which answer.
    pub entries: BTreeMap<AliasKey, Alias>,
    /// The members that are counted.
    pub members: BTreeSet<MemberKey>,
}

impl AliasTable {
    /// The aliases that take turns.
    pub fn turns(&self) -> BTreeSet<u64> {
        self.members.iter().map(|member| member.alias).collect()
    }
}

/// The loopback interface of a container's network namespace. The process belongs to it: when a namespace's number is
/// given to another, that has another first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loopback {
    /// The inode of the namespace.
    pub netns: u64,
    /// A process in it.
    pub pid: u32,
}

/// An alias, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasReport {
    /// The name, in lower case.
    pub alias: String,
    /// The network's name.
    pub network: String,
    /// What is done with answers for it.
    pub mode: AliasMode,
    /// Why nothing is done.
    pub why: Option<String>,
    /// Its members, by the container's name.
    pub members: Vec<MemberReport>,
}

/// A member of an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The container's identifier.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// `running` or `paused`.
    pub state: String,
    /// `none` (no health check), `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// Whether clients are given it.
    pub eligible: bool,
    /// Keys of its counts.
    pub counted_by: Vec<(u64, [u64; 2])>,
}

/// Decides what should be.
pub fn aliases(world: &World, config: &Config, facts: &Facts) -> Aliases {
    let mut plan = Aliases::default();
    let mut ambiguous = BTreeSet::new();
    let mut rotated = BTreeSet::new();
    for network in world.networks.values().filter(|network| has_resolver(network)) {
        let why = off(network, config, facts);
        for (name, members) in shared_names(world, network) {
            let mut report = AliasReport {
                mode: AliasMode::Off,
                why: why.clone(),
                members: members.iter().map(|(container, on)| member(container, on)).collect(),
                network: network.name.clone(),
                alias: name,
            };
            if report.why.is_none() {
                report.why = add(&mut plan.table, &mut ambiguous, network, &mut report, &members, config);
            }
            if report.why.is_none() {
                report.mode = AliasMode::Rr;
                rotated.insert(network.id.clone());
            }
            plan.reports.push(report);
        }
    }
    plan.table.entries.retain(|key, _| !ambiguous.contains(key));
    plan.reports
        .sort_by(|a, b| (&a.network, &a.alias).cmp(&(&b.network, &b.alias)));
    for container in world.containers.values() {
        let is_asking = container.attachments.iter().any(|on| rotated.contains(&on.network));
        if let (true, Some(NetnsId { ino, .. }), true) = (is_asking, container.netns, container.pid != 0)
            && container.network_mode != NetworkMode::Host
            && !is_off(&container.labels)
        {
            let loopback = Loopback {
                netns: ino,
                pid: container.pid,
            };
            plan.loopbacks.insert(loopback, container.name.clone());
        }
    }
    plan
}

/// Docker's default bridge has no resolver of its own, and neither have the host's and no network.
fn has_resolver(network: &Network) -> bool {
    network.name != "bridge" && !matches!(network.driver.as_str(), "host" | "null")
}

fn off(network: &Network, config: &Config, facts: &Facts) -> Option<String> {
    if config.alias_mode == AliasMode::Off {
        return Some("switched off by the configuration (alias_mode)".into());
    }
    if is_off(&network.labels) {
        return Some(format!("switched off by the label {LABEL} of the network"));
    }
    facts.aliases_off.clone()
}

fn is_off(labels: &BTreeMap<String, String>) -> bool {
    labels.get(LABEL).is_some_and(|value| super::docker::is_false(value))
}

/// A member, and where it is on the network.
type Members<'a> = Vec<(&'a Container, &'a Attachment)>;

/// The names of a network that two or more containers have, in lower case.
fn shared_names<'a>(world: &'a World, network: &Network) -> BTreeMap<String, Members<'a>> {
    let mut names: BTreeMap<String, Members<'a>> = BTreeMap::new();
    for container in world.containers.values() {
        let on = container.attachments.iter().find(|on| on.network == network.id);
        let Some(on) = on.filter(|on| on.ipv4.is_some() || on.ipv6.is_some()) else {
            continue;
        };
        let own = [container.name.as_str(), container.id.short()];
        let all: BTreeSet<String> = on
            .aliases
            .iter()
            .map(String::as_str)
            .chain(own)
            .filter(|name| !name.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        for name in all {
            names.entry(name).or_default().push((container, on));
        }
    }
    names.retain(|_, members| members.len() > 1);
    for members in names.values_mut() {
        members.sort_by(|(a, _), (b, _)| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    }
    names
}

fn member(container: &Container, on: &Attachment) -> MemberReport {
    let addresses = on.ipv4.into_iter().chain(on.ipv6);
    MemberReport {
        container_id: container.id.to_string(),
        container: container.name.clone(),
        addresses: addresses.map(|net| net.addr).collect(),
        state: match container.state {
            ContainerState::Running => "running",
            ContainerState::Paused => "paused",
            ContainerState::Restarting => "restarting",
        }
        .into(),
        health: match container.health {
            Health::None => "none",
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
        .into(),
        eligible: is_eligible(container),
        counted_by: Vec::new(),
    }
}

/// Whether clients are given a container. One whose health is not known yet is: its check may take minutes to begin.
fn is_eligible(container: &Container) -> bool {
    container.state == ContainerState::Running && container.health != Health::Unhealthy
}

/// Adds an alias to the table; returns why it is not, if it is not.
fn add(
    table: &mut AliasTable,
    ambiguous: &mut BTreeSet<AliasKey>,
    network: &Network,
    report: &mut AliasReport,
    members: &Members<'_>,
    config: &Config,
) -> Option<String> {
    let name = &report.alias;
    let Some(bare) = wire(name) else {
        return Some(format!(
            "the name is longer than {NAME} bytes, or has an empty or too long part"
        ));
    };
    if members.len() > MEMBERS as usize {
        return Some(format!("it has more than {MEMBERS} members"));
    }
    // With the network's name it may be too long: then only the bare one is known.
    let spelled = wire(&format!("{name}.{}", network.name.to_ascii_lowercase()));
    let spellings: Vec<[u8; NAME as usize]> = [Some(bare), spelled].into_iter().flatten().collect();
    let families = RecordType::ALL.len();
    if table.entries.len() + spellings.len() * 2 * families > ENTRIES as usize
        || table.members.len() + members.len() * families > COUNTED as usize
    {
        return Some("the table of aliases is full".into());
    }
    for record_type in RecordType::ALL {
        let addresses: BTreeMap<[u64; 2], usize> = members
            .iter()
            .enumerate()
            .filter_map(|(index, (_, on))| Some((address(on, record_type)?, index)))
            .collect();
        if addresses.len() < 2 {
            continue;
        }
        let id = id(&network.id.0, name, record_type);
        let mut alias = Alias {
            id,
            eligible: 0,
            members: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            ttl: config.alias_ttl,
            ..Alias::default()
        };
        let mut sum = 0_u64;
        for (rank, (&address, &index)) in addresses.iter().enumerate() {
            alias.eligible |= u64::from(report.members[index].eligible) << rank;
            sum = sum.wrapping_add(part(address));
            table.members.insert(MemberKey { alias: id, address });
            report.members[index].counted_by.push((id, address));
        }
        for &name in &spellings {
            let key = |digest| AliasKey {
                digest,
                record_type: record_type as u32,
                reserved: 0,
                name,
            };
            // The entry by which the name is known, whatever the set.
            table.entries.insert(key(0), Alias::default());
            let key = key(digest(sum));
            if table.entries.insert(key, alias).is_some_and(|other| other.id != id) {
                ambiguous.insert(key);
            }
        }
    }
    None
}

/// A container's address of a record type.
fn address(on: &Attachment, record_type: RecordType) -> Option<[u64; 2]> {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    };
    match record_type {
        RecordType::A => Some(address4(v4(on.ipv4?.addr).as_ref().map(Ipv4Addr::octets)?)),
        RecordType::Aaaa => Some(address6(v6(on.ipv6?.addr).as_ref().map(Ipv6Addr::octets)?)),
    }
}

/// A name in lower case as it is on the wire, without the root's zero; `None` if it cannot be, or is too long.
fn wire(name: &str) -> Option<[u8; NAME as usize]> {
    let mut bytes = Vec::with_capacity(NAME as usize);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|_| label.len() <= MAX_LABEL)?;
        bytes.push(Some(length).filter(|length| *length != 0)?);
        bytes.extend(label.bytes());
    }
    // One byte stays zero: the program looks for the name's end within the key.
    let mut name = [0; NAME as usize];
    name.get_mut(..bytes.len())
        .filter(|_| bytes.len() < NAME as usize)?
        .copy_from_slice(&bytes);
    Some(name)
}

/// The number of an alias, the same in every daemon: FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>), 64 bits.
fn id(network: &str, name: &str, record_type: RecordType) -> u64 {
    let parts = [network.as_bytes(), &[0], name.as_bytes(), &[0, record_type as u8]];
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests;
