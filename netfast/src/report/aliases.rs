//! `netfast aliases`: names that several containers of a network share, and who was given to clients.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netfast_common::{
    alias::{self, MemberKey},
    flow::{Flow, FlowKey},
    vip,
};
use serde::Serialize;

use crate::{
    apply::{aliases::Answers, vips::Shared},
    config::AliasMode,
    plan::{AliasReport, MemberReport},
    report::{
        Style, Table,
        table::{Cell, Paint},
        units,
    },
};

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Aliases {
    /// The aliases, by network and name.
    pub aliases: Vec<Alias>,
    /// What became of resolvers' answers, those that occurred.
    pub answers: Vec<AnswerCount>,
    /// What became of packets to and from virtual addresses, that which occurred.
    pub virtual_packets: Vec<PacketCount>,
}

/// An alias.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Alias {
    /// The name, in lower case.
    pub alias: String,
    /// The network's name.
    pub network: String,
    /// `rr`, `vip` or `off`.
    pub mode: AliasMode,
    /// Why nothing is done, or not what was asked for.
    pub reason: Option<String>,
    /// Its virtual address of IPv4.
    pub vip: Option<Ipv4Addr>,
    /// Its virtual address of IPv6.
    pub vip6: Option<Ipv6Addr>,
    /// `source`: whom a client is given for that depends on its address.
    pub affinity: Option<&'static str>,
    /// Answers that were put in order.
    pub answers: u64,
    /// Connections to the virtual address, UDP conversations and pings among them.
    pub connections: u64,
    /// What the member was given that was given least, divided by what the one was that was given most, each by its
    /// weight; of members that clients are given. With a virtual address connections count, else answers that named it
    /// first. 1 is even.
    pub evenness: Option<f64>,
    /// Its members, by the container's name.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Member {
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
    /// Answers that named it first.
    pub first: u64,
    /// Connections to the virtual address that it was given, and did not pass on by refusing or not answering them.
    pub connections: u64,
    /// Those that it refused or did not answer, and that were given to another member.
    pub retried: u64,
    /// Packets of them, both ways; of those on the fast path only packets of flows that still are there.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
}

/// How many answers had this verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerCount {
    /// The verdict.
    pub verdict: String,
    /// What it means.
    pub text: String,
    /// Answers.
    pub answers: u64,
}

/// How many packets had this verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PacketCount {
    /// The verdict.
    pub verdict: String,
    /// What it means.
    pub text: String,
    /// Packets.
    pub packets: u64,
}

/// What the programs have counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Resolvers' answers.
    pub answers: Answers,
    /// What members were given for virtual addresses, on the slow path.
    pub shared: Shared,
    /// Packets and bytes on the fast path between a virtual address and a member, of flows that there are.
    pub fast: BTreeMap<(IpAddr, IpAddr), (u64, u64)>,
}

impl Counted {
    /// Counts the packets of a flow, if it translates between a virtual address and a member.
    pub fn add_flow(&mut self, key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>) {
        let pair = if key.destination != flow.destination {
            (key.destination, flow.destination)
        } else if key.source != flow.source {
            (flow.source, key.source)
        } else {
            return;
        };
        let (packets, bytes) = self.fast.entry(pair).or_default();
        *packets += flow.packets;
        *bytes += flow.bytes;
    }
}

impl Aliases {
    /// Puts together what the daemon said and what the programs have counted.
    pub fn gather(reports: &[AliasReport], counted: &Counted) -> Self {
        let said = alias::Verdict::ALL.iter().filter_map(|verdict| {
            let answers = counted
                .answers
                .verdicts
                .get(verdict)
                .copied()
                .filter(|count| *count != 0)?;
            Some(AnswerCount {
                verdict: verdict.name().into(),
                text: verdict.text().into(),
                answers,
            })
        });
        let seen = vip::Verdict::ALL.iter().filter_map(|verdict| {
            let packets = counted
                .shared
                .verdicts
                .get(verdict)
                .copied()
                .filter(|count| *count != 0)?;
            Some(PacketCount {
                verdict: verdict.name().into(),
                text: verdict.text().into(),
                packets,
            })
        });
        Self {
            aliases: reports.iter().map(|report| Alias::gather(report, counted)).collect(),
            answers: said.collect(),
            virtual_packets: seen.collect(),
        }
    }

    /// Only aliases of this name.
    #[must_use]
    pub fn select(mut self, name: &str) -> Self {
        self.aliases.retain(|alias| alias.alias.eq_ignore_ascii_case(name));
        self
    }

    /// One line each.
    pub fn render_list(&self, style: Style) -> String {
        if self.aliases.is_empty() {
            return "no name is shared by several containers of a network\n".into();
        }
        let mut table = Table::new(&[
            "NETWORK",
            "ALIAS",
            "MODE",
            "MEMBERS",
            ">GIVEN",
            ">EVENNESS",
            "ADDRESS OR REASON",
        ]);
        for alias in &self.aliases {
            let well = alias.members.iter().filter(|member| member.eligible).count();
            table.row([
                alias.network.clone().into(),
                alias.alias.clone().into(),
                alias.mode_cell(),
                format!("{well}/{}", alias.members.len()).into(),
                alias.given_text().into(),
                alias.evenness_text().into(),
                alias.address_or_reason().into(),
            ]);
        }
        table.render(style)
    }

    /// Everything that is known of each.
    pub fn render_details(&self, style: Style) -> String {
        let texts: Vec<_> = self.aliases.iter().map(|alias| alias.render(style)).collect();
        texts.join("\n")
    }
}

impl Alias {
    fn gather(report: &AliasReport, counted: &Counted) -> Self {
        let members: Vec<Member> = report
            .members
            .iter()
            .map(|member| Member::gather(member, report, counted))
            .collect();
        let is_virtual = report.vips().next().is_some();
        let shares = || {
            let given = members.iter().filter(|member| member.eligible && member.weight != 0);
            given.map(|member| {
                if is_virtual {
                    member.connections as f64 / f64::from(member.weight)
                } else {
                    member.first as f64
                }
            })
        };
        let most = shares().fold(0.0, f64::max);
        let evenness = (most > 0.0).then(|| shares().fold(most, f64::min) / most);
        Self {
            alias: report.alias.clone(),
            network: report.network.clone(),
            mode: report.mode,
            reason: report.why.clone(),
            vip: report.vip,
            vip6: report.vip6,
            affinity: (is_virtual && report.affinity).then_some("source"),
            answers: members.iter().map(|member| member.first).sum(),
            connections: members.iter().map(|member| member.connections).sum(),
            evenness,
            members,
        }
    }

    fn mode_cell(&self) -> Cell {
        let paint = match self.mode {
            AliasMode::Rr | AliasMode::Vip => Paint::Green,
            AliasMode::Off => Paint::Yellow,
        };
        Cell::painted(self.mode.name(), paint)
    }

    fn is_virtual(&self) -> bool {
        self.vip.is_some() || self.vip6.is_some()
    }

    /// Connections, or answers where there is no virtual address.
    fn given_text(&self) -> String {
        if self.is_virtual() {
            format!("{} connections", units::count(self.connections))
        } else {
            format!("{} answers", units::count(self.answers))
        }
    }

    fn address_or_reason(&self) -> String {
        let addresses = self.addresses();
        if addresses.is_empty() {
            return self.reason.clone().unwrap_or_default();
        }
        match self.affinity {
            Some(affinity) => format!("{addresses}, by {affinity}"),
            None => addresses,
        }
    }

    /// Its virtual addresses; nothing: it has none.
    fn addresses(&self) -> String {
        let v4 = self.vip.map(|vip| vip.to_string()).into_iter();
        let all: Vec<_> = v4.chain(self.vip6.map(|vip| vip.to_string())).collect();
        all.join(" ")
    }

    fn evenness_text(&self) -> String {
        self.evenness
            .map_or_else(|| "-".into(), |evenness| format!("{evenness:.3}"))
    }

    fn render(&self, style: Style) -> String {
        let mut text = format!("{} on {}\n", self.alias, self.network);
        let mut facts = Table::bare(2).indent(2);
        facts.row(["mode".into(), self.mode_cell()]);
        if let Some(reason) = &self.reason {
            facts.row(["reason".into(), reason.clone().into()]);
        }
        if self.is_virtual() {
            facts.row(["address".into(), self.address_or_reason().into()]);
            facts.row(["connections".into(), units::count(self.connections).into()]);
        } else {
            facts.row(["answers".into(), units::count(self.answers).into()]);
        }
        facts.row(["evenness".into(), self.evenness_text().into()]);
        text.push_str(&facts.render(style));
        text.push('\n');
        let mut headings = vec!["CONTAINER", "ADDRESSES", "STATE", "HEALTH", "ELIGIBLE"];
        headings.extend(if self.is_virtual() {
            &[">WEIGHT", ">CONNECTIONS", ">RETRIED", ">PACKETS", ">BYTES"][..]
        } else {
            &[">FIRST"]
        });
        let mut table = Table::new(&headings).indent(2);
        for member in &self.members {
            let addresses: Vec<_> = member.addresses.iter().map(ToString::to_string).collect();
            let given = if member.eligible {
                Cell::painted("yes", Paint::Green)
            } else {
                Cell::painted("no", Paint::Yellow)
            };
            let mut row: Vec<Cell> = vec![
                member.container.clone().into(),
                addresses.join(" ").into(),
                member.state.clone().into(),
                member.health.clone().into(),
                given,
            ];
            row.extend(if self.is_virtual() {
                vec![
                    member.weight.to_string().into(),
                    units::count(member.connections).into(),
                    units::count(member.retried).into(),
                    units::count(member.packets).into(),
                    units::bytes(member.bytes).into(),
                ]
            } else {
                vec![units::count(member.first).into()]
            });
            table.row(row);
        }
        text.push_str(&table.render(style));
        text
    }
}

impl Member {
    fn gather(report: &MemberReport, alias: &AliasReport, counted: &Counted) -> Self {
        let MemberReport {
            container_id,
            container,
            addresses,
            state,
            health,
            eligible,
            weight,
            counted_by,
        } = report.clone();
        let keys = || counted_by.iter().map(|&(alias, address)| MemberKey { alias, address });
        let first = keys().filter_map(|key| counted.answers.first_named.get(&key)).sum();
        let slow = keys().filter_map(|key| counted.shared.stats.get(&key));
        let (mut connections, mut retried, mut packets, mut bytes) = (0, 0, 0, 0);
        for stats in slow.filter(|_| alias.vips().next().is_some()) {
            connections += stats.connections.saturating_sub(stats.retried);
            retried += stats.retried;
            packets += stats.packets;
            bytes += stats.bytes;
        }
        for vip in alias.vips() {
            for fast in addresses
                .iter()
                .filter_map(|address| counted.fast.get(&(vip, *address)))
            {
                packets += fast.0;
                bytes += fast.1;
            }
        }
        Self {
            container_id,
            container,
            addresses,
            state,
            health,
            eligible,
            weight,
            first,
            connections,
            retried,
            packets,
            bytes,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
