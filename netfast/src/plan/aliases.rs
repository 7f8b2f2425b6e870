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

use netfast_common::{
    alias::{Alias, AliasKey, MemberKey, RecordType},
    device::DeviceKey,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{AliasMode, Config},
    host::{Attachment, Container, ContainerState, Health, Host, NetnsId, Network, NetworkId, NetworkMode},
    plan::{
        DeviceSpec, Facts,
        index::Index,
        labels,
        report::NetworkReport,
        vip::{Builder, Vips},
    },
};

mod table;

use table::{add, id, ip, refusal};

/// `off` leaves the resolver's answers alone: on a network for its aliases, on a container for what it asks. `vip` gives a
/// virtual address: on a network to its aliases, on a container to those that it has.
pub(super) const LABEL: &str = "netfast.alias";
/// How often a container is given for a virtual address, in proportion to others.
pub(super) const LABEL_WEIGHT: &str = "netfast.alias.weight";
/// `source`: the member that a virtual address stands for depends on the client.
pub(super) const LABEL_AFFINITY: &str = "netfast.alias.affinity";
/// The greatest weight.
const MAX_WEIGHT: u32 = 1000;
/// Why answers are as the runtime gives them where its resolver is not in the containers' namespaces.
const AT_GATEWAY: &str = "the runtime's resolver answers from the network's gateway, which netfast does not change";

/// What should be done for aliases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aliases {
    /// What the program knows.
    pub table: AliasTable,
    /// The loopback interfaces that it is needed on, with the container that each is of.
    pub loopbacks: BTreeMap<Loopback, String>,
    /// Every alias, for people, by network and name.
    pub reports: Vec<AliasReport>,
    /// Virtual addresses.
    pub vips: Vips,
}

/// The entries of the alias maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AliasTable {
    /// What to do with which answer.
    pub entries: BTreeMap<AliasKey, Alias>,
    /// The members that are counted.
    pub members: BTreeSet<MemberKey>,
    /// Aliases with a virtual address: they take turns also without members.
    pub services: BTreeSet<u64>,
}

impl AliasTable {
    /// The aliases that take turns.
    pub fn cursors(&self) -> BTreeSet<u64> {
        let members = self.members.iter().map(|member| member.alias);
        members.chain(self.services.iter().copied()).collect()
    }
}

/// The loopback interface of a container's network namespace. The process belongs to it: when a namespace's number is
/// given to another, that has another first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Loopback {
    /// The inode of the namespace.
    pub netns: u64,
    /// A process in it.
    pub pid: u32,
}

/// An alias, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AliasReport {
    /// The name, in lower case.
    pub alias: String,
    /// The network's name.
    pub network: String,
    /// What is done with answers for it.
    pub mode: AliasMode,
    /// Why nothing is done, or not what was asked for.
    pub why: Option<String>,
    /// Its virtual address of IPv4.
    pub vip: Option<Ipv4Addr>,
    /// Its virtual address of IPv6.
    pub vip6: Option<Ipv6Addr>,
    /// Answers of IPv6 name only the member whose turn it is: clients sort addresses of IPv6, and those of IPv4 name all.
    pub one6: bool,
    /// Whom a client is given depends on its address.
    pub affinity: bool,
    /// Its members, by the container's name.
    pub members: Vec<MemberReport>,
}

impl AliasReport {
    /// Its virtual addresses.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.vip.map(IpAddr::from).into_iter();
        v4.chain(self.vip6.map(IpAddr::from))
    }
}

/// A member of an alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberReport {
    /// The container's identifier.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// `running`, `stopping`, `paused` or `restarting`.
    pub state: String,
    /// `none` (no health check), `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// Whether clients are given it.
    pub eligible: bool,
    /// How often it is given for a virtual address, in proportion to the others.
    pub weight: u32,
    /// Keys of its counts.
    pub counted_by: Vec<(u64, [u64; 2])>,
}

/// Decides what should be. Of networks and their endpoints the plan is made already.
pub fn aliases(
    host: &Host,
    index: &Index<'_>,
    config: &Config,
    facts: &Facts,
    reports: &[NetworkReport],
    devices: &BTreeMap<DeviceKey, DeviceSpec>,
) -> Aliases {
    let mut plan = Aliases::default();
    let mut vips = Builder::new(host, reports, devices, [config.vip_pool, config.vip_pool6], &facts.vips);
    let mut ambiguous = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for network in host.networks.values().filter(|network| has_resolver(network)) {
        let why = off(network, config, facts);
        let remembered: BTreeSet<&str> = facts.vips.aliases(&network.id).collect();
        for (name, members) in names(index.members(&network.id), &remembered) {
            let mut report = AliasReport {
                mode: AliasMode::Off,
                why: why.clone(),
                members: members.iter().map(|(container, on)| member(container, on)).collect(),
                network: network.name.clone(),
                alias: name,
                ..AliasReport::default()
            };
            if report.why.is_none() {
                report.why = refusal(&plan.table, network, &report.alias, &members);
            }
            if report.why.is_none() {
                report.mode = wish(network, &members, config);
                if report.mode == AliasMode::Vip {
                    give_address(&mut vips, network, &mut report, &members, facts);
                }
                // Before the second member comes there is nothing to be rotated.
                if report.mode == AliasMode::Rr && members.len() < 2 {
                    continue;
                }
                add(&mut plan.table, &mut ambiguous, network, &mut report, &members, config);
                answered.insert(network.id.clone());
            } else if members.len() < 2 {
                continue;
            }
            plan.reports.push(report);
        }
    }
    plan.table.entries.retain(|key, _| !ambiguous.contains(key));
    plan.reports
        .sort_by(|a, b| (&a.network, &a.alias).cmp(&(&b.network, &b.alias)));
    for container in host.containers.values() {
        let is_asking = container.attachments.iter().any(|on| answered.contains(&on.network));
        if let (true, Some(NetnsId { ino, .. }), true) = (is_asking, container.netns, container.pid != 0)
            && container.network_mode != NetworkMode::Host
            && !is_off(&container.labels)
            && vips.reaches_all(container)
        {
            let loopback = Loopback {
                netns: ino,
                pid: container.pid,
            };
            plan.loopbacks.insert(loopback, container.name.clone());
        }
    }
    plan.vips = vips.finish();
    plan
}

/// The networks whose aliases should have virtual addresses, or some of them.
pub(super) fn networks_with_vips(host: &Host, index: &Index<'_>, config: &Config) -> BTreeSet<NetworkId> {
    if config.alias_mode == AliasMode::Off {
        return BTreeSet::new();
    }
    let is_rotated = |network: &&Network| has_resolver(network) && !network.resolved_at_gateway;
    let networks = host.networks.values().filter(is_rotated);
    let wished = networks.filter(|network| wish(network, index.members(&network.id), config) == AliasMode::Vip);
    wished.map(|network| network.id.clone()).collect()
}

/// What is to be done with an alias that these have: the network's label, else a member's, else the configuration says.
fn wish(network: &Network, members: &[(&Container, &Attachment)], config: &Config) -> AliasMode {
    let is = |labels: &BTreeMap<String, String>, mode: AliasMode| {
        let value = labels.get(LABEL);
        value.is_some_and(|value| value.eq_ignore_ascii_case(mode.name()))
    };
    let of = |mode| is(&network.labels, mode);
    let by_member = members.iter().any(|(member, _)| is(&member.labels, AliasMode::Vip));
    if of(AliasMode::Rr) {
        AliasMode::Rr
    } else if of(AliasMode::Vip) || by_member {
        AliasMode::Vip
    } else {
        config.alias_mode
    }
}

/// Gives an alias its virtual addresses, one of each family in which a member has one. Without that of the first family it is
/// rotated; the report says why.
fn give_address(
    vips: &mut Builder<'_>,
    network: &Network,
    report: &mut AliasReport,
    members: &[(&Container, &Attachment)],
    facts: &Facts,
) {
    let is_source = |labels: &BTreeMap<String, String>| {
        let value = labels.get(LABEL_AFFINITY);
        value.is_some_and(|value| value.eq_ignore_ascii_case("source"))
    };
    report.affinity = is_source(&network.labels) || members.iter().any(|(container, _)| is_source(&container.labels));
    let mut why_not = vips.obstacle(network, facts.vip_off.as_deref());
    for (pool, record_type) in vips.pools().into_iter().zip(RecordType::ALL) {
        let candidates: Vec<_> = members
            .iter()
            .filter_map(|(container, on)| vips.candidate(pool, container, on, weight(container)))
            .collect();
        let is_wanted = !candidates.is_empty() || members.is_empty() && vips.had(pool, network, &report.alias);
        if why_not.is_some() || !is_wanted {
            continue;
        }
        let id = id(&network.id.0, &report.alias, record_type);
        match vips.add(pool, network, &report.alias, id, report.affinity, &candidates) {
            Ok(IpAddr::V4(vip)) => report.vip = Some(vip),
            Ok(IpAddr::V6(vip)) => report.vip6 = Some(vip),
            Err(why) => why_not = Some(format!("no virtual address{}: {why}", of_family(report))),
        }
    }
    if report.vips().next().is_none() {
        vips.keep(network, &report.alias);
        let why_not = why_not.unwrap_or_else(|| "no virtual address: the members' addresses are not known".into());
        (report.mode, report.why) = (AliasMode::Rr, Some(why_not));
        return;
    }
    report.why = why_not;
    for (member, (container, on)) in report.members.iter_mut().zip(members) {
        debug_assert_eq!(member.container_id, container.id.to_string());
        member.eligible = RecordType::ALL.into_iter().any(|record_type| {
            let id = id(&network.id.0, &report.alias, record_type);
            ip(on, record_type).is_some_and(|ip| vips.vips.table.is_eligible(id, ip))
        });
    }
}

/// Which virtual address there is not, if there is another.
fn of_family(report: &AliasReport) -> &'static str {
    if report.vip.is_some() { " of IPv6" } else { "" }
}

/// How often a container is given: its label, else 1.
fn weight(container: &Container) -> u32 {
    let label = container.labels.get(LABEL_WEIGHT);
    let weight = label.and_then(|value| value.trim().parse::<u32>().ok());
    weight.map_or(1, |weight| weight.min(MAX_WEIGHT))
}

/// Docker's default bridge has no resolver of its own, and neither have the host's and no network.
pub(super) fn has_resolver(network: &Network) -> bool {
    network.name != "bridge" && !matches!(network.driver.as_str(), "host" | "null")
}

fn off(network: &Network, config: &Config, facts: &Facts) -> Option<String> {
    if config.alias_mode == AliasMode::Off {
        return Some("switched off by the configuration (alias_mode)".into());
    }
    if is_off(&network.labels) {
        return Some(format!("switched off by the label {LABEL} of the network"));
    }
    if network.resolved_at_gateway {
        return Some(AT_GATEWAY.into());
    }
    facts.aliases_off.clone()
}

fn is_off(labels: &BTreeMap<String, String>) -> bool {
    labels.get(LABEL).is_some_and(|value| labels::is_false(value))
}

/// A member, and where it is on the network.
type Members<'a> = Vec<(&'a Container, &'a Attachment)>;

/// The names of a network that two or more containers have, and those that had a virtual address before, in lower case.
fn names<'a>(on_it: &[(&'a Container, &'a Attachment)], remembered: &BTreeSet<&str>) -> BTreeMap<String, Members<'a>> {
    let mut names: BTreeMap<String, Members<'a>> =
        remembered.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
    for (container, on) in on_it.iter().copied() {
        if on.ipv4.is_none() && on.ipv6.is_none() {
            continue;
        }
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
    names.retain(|name, members| members.len() > 1 || remembered.contains(name.as_str()));
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
            ContainerState::Stopping => "stopping",
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
        weight: weight(container),
        counted_by: Vec::new(),
    }
}

/// Whether clients are given a container. One whose health is not known yet is: its check may take minutes to begin.
fn is_eligible(container: &Container) -> bool {
    container.state == ContainerState::Running && container.health != Health::Unhealthy
}

#[cfg(test)]
mod tests;
