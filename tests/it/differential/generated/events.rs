//! What happens to the host in mid-flow, and the way back.

use std::collections::BTreeSet;

use anyhow::Result;
use netfast_tests::seeds::{
    family::Family,
    names,
    rule::Rule,
    scenario::Place,
    step::{Mac, Step},
};

use super::{
    arena::{Arena, Undo},
    play::Play,
    rules,
    settle::{Expect, Noted, settle},
};

/// The MAC address of the neighbour that is not there.
const OTHER_NEIGHBOUR: &str = "02:00:00:00:00:77";
/// A group's: some clusters have one address and a MAC address for all of them.
const GROUP: &str = "03:bf:00:00:00:77";

impl Play<'_> {
    /// Does it, notes what the kernel says against it, and waits until netfast has heard of it.
    pub fn event(&mut self, number: usize, step: &Step) {
        let before = Noted::read(self.arena);
        if let Step::CallIptables(_, true, family) | Step::CallIptablesAll(true, family) = step {
            // From now on conntrack sees connections of which it has not seen the beginning.
            self.note_all_loose(Some(*family));
        }
        let (done, expect) = self.happen(number, step);
        match done {
            Ok(()) => settle(self.arena, before.as_ref(), expect, self.patience),
            Err(error) => {
                self.note_vain(step);
                self.note(format!("refused: {error}"));
            }
        }
        // What stations got by the way, an announcement for instance.
        self.hear();
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is no change of rules, links or routes is one of the others"
    )]
    fn happen(&mut self, number: usize, step: &Step) -> (Result<(), String>, Expect) {
        let arena = &mut *self.arena;
        match *step {
            Step::AddRule(rule) => (rules::add(arena, &rule, 100 + number), added(&rule)),
            Step::RemoveRule(rule) => {
                if !self.part.rules.contains(&rule) {
                    return (Ok(()), Expect::Nothing);
                }
                let rule_itself = &self.part.scenario.rules[rule];
                let expect = match rule_itself.judges_each_packet() {
                    _ if rule_itself.legacy().is_some() => Expect::Found,
                    _ if rule_itself.judges_each_new_packet() => Expect::Planned,
                    true => Expect::Planned,
                    false => Expect::Announced,
                };
                (rules::remove(arena, rule_itself, rule), expect)
            }
            Step::Stop(place) => (arena.unplug(place), Expect::Announced),
            Step::Replace(place, mac) => {
                let done = arena.unplug(place).and_then(|()| {
                    let mut address = names::mac(place);
                    if mac == Mac::Other {
                        address[0] |= 0x10;
                    }
                    arena.replace(place, address).map_err(|error| format!("{error:#}"))
                });
                (done, Expect::Planned)
            }
            Step::Rename(device) => {
                let old = names::device(device);
                let new = format!("new{old}");
                (
                    arena.change(
                        &format!("ip link set {old} name {new}"),
                        &format!("ip link set {new} name {old}"),
                    ),
                    Expect::Announced,
                )
            }
            Step::Route(uplink, family) => {
                let route = |uplink: usize| {
                    format!(
                        "{} route replace {}/{} via {}",
                        family.ip(),
                        names::behind(family),
                        family.bits(),
                        names::ip(Place::Outside(uplink), family)
                    )
                };
                (arena.change(&route(uplink), &route(0)), Expect::Announced)
            }
            Step::PolicyRule(place, family) => {
                let from = names::ip(place, family);
                let rule = |verb| format!("{} rule {verb} from {from} lookup {}", family.ip(), names::TABLE);
                (arena.change(&rule("add"), &rule("del")), Expect::Announced)
            }
            Step::Neighbour(uplink, is_group, family) => {
                let place = Place::Outside(uplink);
                let entry = |mac: &str| {
                    format!(
                        "ip neigh replace {} lladdr {mac} dev {} nud reachable",
                        names::ip(place, family),
                        names::uplink(uplink)
                    )
                };
                let right = names::text(names::mac(place));
                let other = if is_group { GROUP } else { OTHER_NEIGHBOUR };
                (arena.change(&entry(other), &entry(&right)), Expect::Announced)
            }
            Step::Mtu(device, mtu) => {
                let set = |mtu: u16| format!("ip link set {} mtu {mtu}", names::device(device));
                (arena.change(&set(mtu), &set(1500)), Expect::Planned)
            }
            _ => arena.switch(number, step),
        }
    }
}

/// A rule came; one that judges each packet takes networks off the fast path.
fn added(rule: &Rule) -> Expect {
    if rule.legacy().is_some() {
        // Nobody announces them.
        Expect::JudgedLater(rule.family())
    } else if rule.judges_each_packet() {
        Expect::Judged(rule.family())
    } else if rule.judges_each_new_packet() {
        Expect::Planned
    } else {
        Expect::Announced
    }
}

/// A switch that may have been so already.
fn perhaps_planned(changed: bool) -> Expect {
    if changed { Expect::Planned } else { Expect::Perhaps }
}

impl Arena {
    /// Kernel switches, and what can be added to an interface.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "traffic is no event; `Play::step` lists what is"
    )]
    fn switch(&mut self, number: usize, step: &Step) -> (Result<(), String>, Expect) {
        match *step {
            Step::CallIptables(bridge, on, family) => {
                let set = |on| {
                    format!(
                        "ip link set {} type bridge nf_call_{} {}",
                        names::bridge(bridge),
                        family.iptables(),
                        u8::from(on)
                    )
                };
                (self.change(&set(on), &set(false)), perhaps_planned(on))
            }
            Step::CallIptablesAll(on, family) => {
                let set = |on| {
                    format!(
                        "sysctl -qw net.bridge.bridge-nf-call-{}={}",
                        family.iptables(),
                        u8::from(on)
                    )
                };
                let was = self.shape.br_netfilter;
                let expect = if on == was { Expect::Perhaps } else { Expect::Polled };
                (self.change(&set(on), &set(was)), expect)
            }
            Step::Forwarding(on, family) => {
                let name = match family {
                    Family::V4 => "net.ipv4.ip_forward",
                    Family::V6 => "net.ipv6.conf.all.forwarding",
                };
                let set = |on| format!("sysctl -qw {name}={}", u8::from(on));
                (self.change(&set(on), &set(true)), Expect::Announced)
            }
            Step::Address(uplink, family) => {
                let address = |verb| {
                    format!(
                        "ip addr {verb} {}/{} dev {}",
                        names::second_ip(uplink, family),
                        family.prefix(),
                        names::uplink(uplink)
                    )
                };
                let nodad = if family == Family::V6 { " nodad" } else { "" };
                let done = self.change(&format!("{}{nodad}", address("add")), &address("del"));
                (done, Expect::Announced)
            }
            _ => self.judge(number, step),
        }
    }

    /// A change of the host by a shell line, and the line that takes it back.
    pub fn change(&mut self, line: &str, back: &str) -> Result<(), String> {
        self.sh(line)?;
        self.undo.push(Undo::Line(back.to_owned()));
        Ok(())
    }

    /// A container's interface goes.
    fn unplug(&mut self, place: Place) -> Result<(), String> {
        self.sh(&format!("ip link del {}", names::veth(place)))?;
        self.stations.remove(&place);
        self.undo.push(Undo::Container(place));
        match place {
            Place::Container(bridge, _) => self.await_carrier(bridge),
            Place::Outside(_) => Ok(()),
        }
    }

    /// A bridge without a port has no carrier, and forgets its neighbours once the kernel's link watch has come round to it, a
    /// second later at most (`net/core/link_watch.c`): a port that is there before keeps them. What happens must not depend on
    /// that.
    fn await_carrier(&mut self, bridge: usize) -> Result<(), String> {
        let is_port = |place: &Place| matches!(place, Place::Container(of, _) if *of == bridge);
        if self.stations.keys().any(is_port) {
            return Ok(());
        }
        let name = names::bridge(bridge);
        self.sh(&format!(
            "for i in $(seq 60); do ip -o link show {name} | grep -q 'state DOWN' && exit 0; sleep 0.05; done; exit 1"
        ))
    }

    /// Another interface for a container, which says so.
    fn replace(&mut self, place: Place, mac: [u8; 6]) -> Result<()> {
        self.plug(place, mac)?;
        self.announce_one(place)
    }

    /// Takes all changes back, the last one first.
    pub fn undo_all(&mut self) -> Result<()> {
        let undo = std::mem::take(&mut self.undo);
        let is_clean = undo.is_empty() && !self.is_confused;
        // Interfaces have their names again before a container is put between them.
        let (mut lines, mut containers) = (Vec::new(), BTreeSet::new());
        for change in undo.into_iter().rev() {
            match change {
                Undo::Program(attached) => drop(attached),
                Undo::Line(line) => lines.push(line),
                Undo::Container(place) => {
                    containers.insert(place);
                }
            }
        }
        if !lines.is_empty() {
            // One that was overtaken by another has nothing to take back any more: a qdisc of a veth that is gone.
            drop(self.sh(&lines.join("\n")));
        }
        for place in containers {
            self.stations.remove(&place);
            // It may be gone already.
            drop(self.sh(&format!("ip link del {}", names::veth(place))));
            self.plug(place, names::mac(place))?;
        }
        if is_clean {
            return Ok(());
        }
        self.is_confused = false;
        let bridges = 0..self.shape.bridges.len();
        let flush: Vec<String> = bridges
            .map(|bridge| format!("ip link set {} type bridge fdb_flush", names::bridge(bridge)))
            .collect();
        let restore = self.restore_six();
        self.sh(&format!("{}; {restore}", flush.join("; ")))
            .map_err(anyhow::Error::msg)?;
        self.announce()
    }
}
