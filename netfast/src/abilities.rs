//! What this host lets netfast do, and what has changed about it since: an update of the kernel or of the container engine may
//! give or take, and nobody would notice but by the numbers.
//!
//! Each ability is judged by what the plan and the data path judge by: programs that the kernel takes, and the host's switches.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::abi::Program;
use serde::{Deserialize, Serialize};

use crate::host::Sysctls;

mod date;

/// Updates that are remembered.
const REMEMBERED: usize = 8;
/// For this long an update is shown to whoever does not ask for it, milliseconds: 30 days.
const SHOWN_MS: u64 = 30 * 24 * 3600 * 1000;

/// Whether netfast can do one thing on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Whether it can.
    pub possible: bool,
    /// How it is where it cannot.
    pub without: String,
}

/// Abilities by their names, which never change their meaning.
pub type Abilities = BTreeMap<String, Ability>;

/// What they are judged by.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// Programs that are not there on this kernel.
    pub missing: BTreeSet<Program>,
    /// Whether programs are attached by tcx.
    pub tcx: bool,
    /// Whether the kernel counts in containers what is redirected to them.
    pub counts_redirected: bool,
    /// The host's switches.
    pub sysctls: Sysctls,
    /// The key of the configuration.
    pub allow_accounting: bool,
}

impl Grounds {
    /// Judges.
    pub fn abilities(&self) -> Abilities {
        let programs = Program::ALL.iter().filter_map(|program| {
            let (name, without) = (of_program(*program)?, program.without()?);
            Some((name, !self.missing.contains(program), without))
        });
        let others = [
            (
                "tcx",
                self.tcx,
                "programs are attached as classic tc filters, and what needs tcx (Linux 6.6) is not there",
            ),
            (
                "container-counters",
                self.counts_redirected,
                "containers' own counters (docker stats) lack what the fast path delivers",
            ),
            (
                "direct",
                self.sysctls.bridged_shown_to().is_none(),
                "br_netfilter is on: packets within every bridge pass iptables, so none are forwarded directly",
            ),
            (
                "fast-path",
                !self.sysctls.counts_each_packet(self.allow_accounting),
                "conntrack counts every packet (nf_conntrack_acct), so all networks stay on the slow path",
            ),
        ];
        let mut abilities = Abilities::new();
        // One that is of several programs needs them all.
        for (name, possible, without) in programs.chain(others) {
            let ability = abilities.entry(name.into()).or_insert_with(|| Ability {
                possible: true,
                without: without.into(),
            });
            ability.possible &= possible;
        }
        abilities
    }
}

#[cfg(test)]
impl Grounds {
    /// A host that lets netfast do everything, but for what `br_netfilter` keeps from it if that is on.
    pub fn with_br_netfilter(on: bool) -> Self {
        Self {
            tcx: true,
            counts_redirected: true,
            sysctls: Sysctls {
                bridge_nf_call_iptables: Some(on),
                ..Sysctls::default()
            },
            ..Self::default()
        }
    }
}

/// The ability that a program is for; `None`: netfast does not run without it.
const fn of_program(program: Program) -> Option<&'static str> {
    Some(match program {
        Program::EndpointIngress
        | Program::EndpointEgress
        | Program::BridgeIngress
        | Program::BridgeEgress
        | Program::UplinkIngress
        | Program::UplinkEgress => return None,
        Program::Answer => "aliases",
        Program::Resolver => "resolver",
        Program::VipIngress | Program::VipEgress => "virtual-addresses",
        Program::TunnelEgress | Program::TunnelUplink => "tunnels-out",
        Program::TunnelIngress | Program::TunnelTaken => "tunnels-in",
        Program::Macvlan => "macvlan-host",
        Program::Queued => "nfqueue",
        Program::OvsAction => "openvswitch",
        Program::Connect4
        | Program::Connect6
        | Program::Send4
        | Program::Send6
        | Program::Receive4
        | Program::Receive6
        | Program::Peer4
        | Program::Peer6
        | Program::Own4
        | Program::Own6 => "localhost",
        Program::UplinkXdp => "xdp",
    })
}

/// What can be updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The container engine.
    Engine,
    /// netfast itself.
    Netfast,
}

impl Part {
    /// As in JSON and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Engine => "engine",
            Self::Netfast => "netfast",
        }
    }
}

/// A part that is another version than it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// What was updated; it may have been set back to an older version.
    pub part: Part,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// A difference between two looks at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// When it was noticed, milliseconds since 1970.
    pub at_ms: u64,
    /// What is another version than before; empty if nothing is, and yet something is possible or impossible now.
    pub updated: Vec<Updated>,
    /// Whether the machine was started in between.
    pub rebooted: bool,
    /// What netfast can do now and could not before.
    pub gained: Abilities,
    /// What netfast could do before and cannot now.
    pub lost: Abilities,
}

/// One look at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The versions of what can be updated; a part that cannot be told is not there.
    pub versions: BTreeMap<Part, String>,
    /// The boot of the machine.
    pub boot: String,
    /// What is possible.
    pub abilities: Abilities,
}

/// The last look, and what the looks before it have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The last look; none before the first.
    pub last: Option<Look>,
    /// The newest differences, the newest last.
    pub updates: Vec<Update>,
}

impl Record {
    /// Adds a look; returns what is different from the last one, and whether the record is another one than before.
    pub fn add(&mut self, mut look: Look, at_ms: u64) -> (Option<&Update>, bool) {
        let Some(last) = &self.last else {
            self.last = Some(look);
            return (None, true);
        };
        // An engine that does not answer has not become another one.
        for (part, version) in &last.versions {
            look.versions.entry(*part).or_insert_with(|| version.clone());
        }
        if *last == look {
            return (None, false);
        }
        let update = difference(last, &look, at_ms);
        self.last = Some(look);
        let Some(update) = update else {
            return (None, true);
        };
        self.updates.push(update);
        let old = self.updates.len().saturating_sub(REMEMBERED);
        self.updates.drain(..old);
        (self.updates.last(), true)
    }
}

fn difference(last: &Look, now: &Look, at_ms: u64) -> Option<Update> {
    let changed = |became: bool| -> Abilities {
        // One that the netfast before did not know was neither there nor missing.
        let known = now.abilities.iter().filter(|(name, ability)| {
            let before = last.abilities.get(*name);
            ability.possible == became && before.is_some_and(|before| before.possible != became)
        });
        known.map(|(name, ability)| (name.clone(), ability.clone())).collect()
    };
    let updated = now.versions.iter().filter_map(|(part, to)| {
        let from = last.versions.get(part).filter(|from| *from != to)?;
        Some(Updated {
            part: *part,
            from: from.clone(),
            to: to.clone(),
        })
    });
    let update = Update {
        at_ms,
        updated: updated.collect(),
        rebooted: last.boot != now.boot,
        gained: changed(true),
        lost: changed(false),
    };
    let is_any = !update.updated.is_empty() || !update.gained.is_empty() || !update.lost.is_empty();
    is_any.then_some(update)
}

impl Update {
    /// Whether it is still to be told to whoever does not ask for it.
    pub fn is_recent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) < SHOWN_MS
    }

    /// In one line.
    pub fn text(&self) -> String {
        let day = date::of(self.at_ms);
        let updated: Vec<_> = self
            .updated
            .iter()
            .map(|Updated { part, from, to }| format!("{} {from} -> {to}", part.name()))
            .collect();
        let since = match (updated.is_empty(), self.rebooted) {
            (false, _) => format!("Since the update {} ({day})", updated.join(", ")),
            (true, true) => format!("Since a restart of the machine ({day})"),
            (true, false) => format!("Since {day}, without an update"),
        };
        let list = |abilities: &Abilities, before: &str| {
            let said = abilities
                .iter()
                .map(|(name, ability)| format!("{name} ({before}{})", ability.without));
            said.collect::<Vec<_>>().join("; ")
        };
        let mut changes = Vec::new();
        if !self.gained.is_empty() {
            changes.push(format!("now possible: {}", list(&self.gained, "before: ")));
        }
        if !self.lost.is_empty() {
            changes.push(format!("no longer possible: {}", list(&self.lost, "")));
        }
        if changes.is_empty() {
            changes.push("as much is possible as before".into());
        }
        format!("{since}: {}.", changes.join(". And "))
    }
}

#[cfg(test)]
mod tests;
