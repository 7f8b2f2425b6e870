//! What must hold of each packet: what it may become, that a connection keeps its member, and that counts add up.

use std::{collections::BTreeMap, net::Ipv4Addr};

use netfast_common::{
    net::Ip4,
    vip::{BackendStats, Conn, ICMP_IDLE_NS, UDP_IDLE_NS, Verdict},
};
use netfast_ebpf::{ctx::fake::FakeSkb, packet};
use netfast_tests::packet::{TCP, UDP, difference};

use super::{
    Dev, Machine, Services,
    script::{Between, Hook, ICMP, Odds, VIPS, member},
};
use crate::machine::NEXT;

mod frame;

use frame::{judge_ends, judge_error, judge_refusal, judge_syn_again, number};

/// `TC_ACT_REDIRECT`.
const REDIRECT: i32 = netfast_ebpf::ctx::fake::TC_ACT_REDIRECT;

/// What each member of each service was given.
pub type Stats = BTreeMap<(usize, u8), BackendStats>;

/// A packet that passed.
pub struct Passed<'a> {
    pub hook: Hook,
    pub who: Dev,
    pub before: &'a [u8],
    pub after: &'a [u8],
    pub verdict: i32,
    pub odds: Odds,
    /// When, in nanoseconds.
    pub now: u64,
    /// Counts by verdict before and after.
    pub counts: [Vec<u64>; 2],
    /// What members were given before.
    pub stats: Stats,
}

/// Ends of a connection as its client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    who: Dev,
    protocol: u8,
    client: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    member: Ipv4Addr,
    from_client: u8,
    from_member: u8,
    used: u64,
    /// What became of it cannot be told: its member need not be this one.
    is_loose: bool,
    /// The client has spoken to the member straight since.
    is_straight: bool,
    /// Sequence number of a SYN that it sent it straight.
    straight_syn: Option<u32>,
}

impl Known {
    fn is_closed(&self) -> bool {
        self.from_client & self.from_member & Conn::FIN != 0 || (self.from_client | self.from_member) & Conn::RST != 0
    }
}

/// Connections, the latest last.
#[derive(Default)]
pub struct Judge {
    known: Vec<(Key, Known)>,
    /// A packet could not be written: connections may have begun that are not known.
    is_wild: bool,
}

/// TCP flags.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What of a packet belongs to a conversation: source and destination with ports, protocol, and TCP's flags.
struct Ends {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    protocol: u8,
    flags: u8,
    length: u64,
}

/// Reads a packet as the programs do.
fn ends(frame: &[u8]) -> Option<Ends> {
    let skb = FakeSkb::new(frame);
    let (packet, flags) = if frame.get(23) == Some(&ICMP) {
        (packet::icmp::echo::<packet::V4, _>(&skb).ok()?.0, 0)
    } else {
        let packet = skb.parsed().ok()?;
        let flags = match packet.network.protocol {
            TCP => packet.tcp_flags(),
            _ => 0,
        };
        (packet, flags)
    };
    let port = |port: netfast_common::net::Port| u16::from_be(port.wire());
    let ip = |ip: Ip4| Ipv4Addr::from(ip.bytes());
    Some(Ends {
        source: (ip(packet.network.source), port(packet.source_port)),
        destination: (ip(packet.network.destination), port(packet.destination_port)),
        protocol: packet.network.protocol,
        flags,
        length: packet.network.length.into(),
    })
}

/// What a packet says of its connection's state.
fn state(ends: &Ends) -> u8 {
    match ends.flags {
        _ if ends.protocol != TCP => Conn::SEEN,
        flags if flags & RST != 0 => Conn::RST,
        flags if flags & FIN != 0 => Conn::SEEN | Conn::FIN,
        _ => Conn::SEEN,
    }
}

impl Judge {
    /// Ends of a known connection as its member sees them, the latest first.
    pub fn between(&self, which: u8) -> Option<Between> {
        let last = self.known.len().checked_sub(1)?;
        let (key, known) = self.known[last - usize::from(which) % (last + 1)];
        let mut mac = [0x02, 0x42, 0, 0, 0, 0];
        mac[2..].copy_from_slice(&known.member.octets());
        Some(Between {
            who: key.who,
            client: key.client,
            remote: (known.member, key.remote.1),
            mac,
        })
    }

    fn get(&mut self, key: &Key) -> Option<&mut Known> {
        self.known
            .iter_mut()
            .find(|(known, _)| known == key)
            .map(|(_, known)| known)
    }

    /// A connection begins.
    fn put(&mut self, key: Key, known: Known) {
        self.known.retain(|(other, _)| *other != key);
        self.known.push((key, known));
    }

    /// A packet passed.
    pub fn passed(&mut self, machine: &impl Machine, services: &Services, passed: &Passed<'_>) {
        let number = counted(&passed.counts);
        let verdict = number.and_then(Verdict::of);
        assert_eq!(
            passed.verdict == REDIRECT,
            is_redirected(passed, verdict),
            "redirected: {verdict:?}"
        );
        if passed.verdict != REDIRECT {
            assert_eq!(passed.verdict, NEXT);
        }
        let (sum, new_member) = stats(machine, &passed.stats);
        let (connections, packets, bytes) = (sum.connections, sum.packets, sum.bytes);
        let is = |verdicts: &[Verdict]| verdict.is_some_and(|verdict| verdicts.contains(&verdict));
        if is(&[Verdict::Unwritable]) {
            self.known.iter_mut().for_each(|(_, known)| known.is_loose = true);
            self.is_wild = true;
            let is_cut = passed.after.len() == 54 && passed.before.starts_with(passed.after);
            assert!(passed.before == passed.after || is_cut, "changed half-way");
            return;
        }
        assert!(
            sum.retried == 0 || is(&[Verdict::Chosen, Verdict::Retried, Verdict::Hairpin]),
            "given to another: {verdict:?}"
        );
        if is(&[Verdict::Retried]) {
            assert_eq!((sum.retried, connections), (1, 1));
            let (service, member) = new_member.expect("it counts for somebody");
            if passed.verdict == REDIRECT {
                assert_eq!((packets, bytes), (0, 0));
                self.refused(services, passed, service, member);
            } else {
                let ends = ends(passed.before).expect("it can be read");
                assert_eq!((packets, bytes), (1, ends.length));
                self.goes_on(services, passed, &ends, Verdict::Retried);
            }
            return;
        }
        let is_counted = is(&[
            Verdict::Chosen,
            Verdict::Kept,
            Verdict::SynAgain,
            Verdict::Hairpin,
            Verdict::Returned,
        ]);
        if !is_counted {
            assert_eq!(
                (connections, packets, bytes),
                (0, 0, 0),
                "counted for a member: {verdict:?}"
            );
        }
        if is_counted {
            let ends = ends(passed.before).expect("it can be read");
            assert!(packets <= 1 && bytes == packets * ends.length);
            let is_chosen = verdict == Some(Verdict::Chosen);
            assert!(
                is_chosen || verdict == Some(Verdict::Hairpin) || connections == 0,
                "{verdict:?}"
            );
            assert!(connections <= packets && (!is_chosen || connections == packets));
            if passed.hook == Hook::In {
                self.goes_on(services, passed, &ends, verdict.expect("counted"));
            } else {
                self.comes_back(passed, &ends);
            }
        } else if verdict == Some(Verdict::Refused) {
            judge_refusal(passed);
            self.forget(passed);
        } else if verdict == Some(Verdict::Taken) {
            judge_refusal(passed);
        } else if verdict == Some(Verdict::IcmpError) {
            judge_error(passed);
        } else {
            let difference = difference(passed.before, passed.after);
            assert!(
                passed.before == passed.after,
                "changed, and counted as {verdict:?}:\n{difference}"
            );
            self.left_alone(passed);
            let nobody = [Verdict::Nobody, Verdict::NoSlot, Verdict::InUse, Verdict::TableFull];
            if is(&nobody) {
                self.forget(passed);
            }
        }
    }

    /// A packet that might have begun a connection anew found nobody: what was known of the old one may be forgotten.
    fn forget(&mut self, passed: &Passed<'_>) {
        let Some(ends) = ends(passed.before) else { return };
        let (protocol, client, remote) = (ends.protocol, ends.source, ends.destination);
        let key = Key {
            who: passed.who,
            protocol,
            client,
            remote,
        };
        if let Some(known) = self.get(&key) {
            known.is_loose = true;
        }
    }

    /// A member refused a connection, which another one gets.
    fn refused(&mut self, services: &Services, passed: &Passed<'_>, service: usize, member: Ipv4Addr) {
        judge_syn_again(passed);
        let refusal = ends(passed.before).expect("it can be read");
        let syn = ends(passed.after).expect("it can be read");
        assert_eq!(syn.destination.0, VIPS[service], "it goes to the virtual address again");
        assert!(services.is_given(service, member), "{member} may not be given");
        let key = Key {
            who: passed.who,
            protocol: TCP,
            client: syn.source,
            remote: syn.destination,
        };
        if let Some(before) = self.get(&key).copied() {
            let is_young = before.from_client == Conn::SEEN && before.from_member == 0;
            assert!(
                before.is_loose || (is_young && before.member == refusal.source.0 && before.member != member),
                "{key:?}: {before:?}, now {member}"
            );
        } else {
            assert!(self.is_wild, "there is no connection that it could refuse");
        }
        let known = Known {
            member,
            from_client: Conn::SEEN,
            from_member: 0,
            used: passed.now,
            is_loose: member == syn.source.0,
            is_straight: false,
            straight_syn: None,
        };
        self.put(key, known);
    }

    /// A client's packet went to a member.
    fn goes_on(&mut self, services: &Services, passed: &Passed<'_>, ends: &Ends, verdict: Verdict) {
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&passed.after[at..at + 4]).expect("four"));
        let number = VIPS
            .iter()
            .position(|vip| *vip == ends.destination.0)
            .expect("to a virtual address");
        let mut wanted = passed.before.to_vec();
        let is_hairpin = verdict == Verdict::Hairpin;
        let member = address(30);
        if is_hairpin {
            let (to, from) = (&passed.before[..6], &passed.before[6..12]);
            wanted[..12].copy_from_slice(&[from, to].concat());
            wanted[26..30].copy_from_slice(&passed.before[30..34]);
            wanted[30..34].copy_from_slice(&passed.before[26..30]);
        } else {
            let mac = services.mac_of(number, member).expect("it is or was a member");
            wanted[..6].copy_from_slice(&mac);
            wanted[30..34].copy_from_slice(&member.octets());
        }
        judge_ends(passed, &wanted);
        let key = Key {
            who: passed.who,
            protocol: ends.protocol,
            client: ends.source,
            remote: ends.destination,
        };
        let said = state(ends);
        let mut known = Known {
            member,
            from_client: said,
            from_member: 0,
            used: passed.now,
            is_loose: is_hairpin,
            is_straight: false,
            straight_syn: None,
        };
        if is_hairpin {
            // By either of its ends, and which of them opened it cannot be told.
            let turned = Key {
                client: (key.client.0, key.remote.1),
                remote: (key.remote.0, key.client.1),
                ..key
            };
            assert_eq!(ends.source.0, member, "a container gets its own packets");
            self.put(turned, known);
            self.put(key, known);
            return;
        }
        let before = self.get(&key).copied();
        if verdict == Verdict::Chosen {
            assert!(services.is_given(number, member), "{member} may not be given");
            if let Some(before) = before {
                let well = services.is_well(number, before.member);
                let longest = if ends.protocol == UDP {
                    UDP_IDLE_NS
                } else {
                    ICMP_IDLE_NS
                };
                let may_change = if ends.protocol == TCP {
                    before.is_closed() || well != Some(true)
                } else {
                    well.is_none() || passed.now - before.used >= longest
                };
                assert!(before.is_loose || may_change, "{key:?} has lost its member: {before:?}");
            }
            self.put(key, known);
            return;
        }
        if verdict == Verdict::Retried {
            assert!(services.is_given(number, member), "{member} may not be given");
            let is_silent = |before: Known| {
                before.is_loose
                    || (before.from_client == Conn::SEEN && before.from_member == 0 && before.member != member)
            };
            assert!(
                before.map_or(self.is_wild, is_silent),
                "{key:?}: {before:?}, now {member}"
            );
            self.put(key, known);
            return;
        }
        let Some(before) = before else {
            assert!(self.is_wild, "a connection is known because it was chosen for");
            known.is_loose = true;
            self.put(key, known);
            return;
        };
        assert!(
            before.is_loose || before.member == member,
            "{key:?}: {before:?}, now {member}"
        );
        known.from_client |= before.from_client;
        known.from_member = before.from_member;
        known.is_loose = before.is_loose;
        known.straight_syn = before.straight_syn;
        *self.get(&key).expect("it is there") = known;
    }

    /// A member's packet came back from its virtual address.
    fn comes_back(&mut self, passed: &Passed<'_>, ends: &Ends) {
        let mut wanted = passed.before.to_vec();
        wanted[26..30].copy_from_slice(&passed.after[26..30]);
        judge_ends(passed, &wanted);
        let vip = Ipv4Addr::from(<[u8; 4]>::try_from(&passed.after[26..30]).expect("four"));
        let key = Key {
            who: passed.who,
            protocol: ends.protocol,
            client: ends.destination,
            remote: (vip, ends.source.1),
        };
        let said = state(ends);
        let is_wild = self.is_wild;
        let Some(known) = self.get(&key) else {
            assert!(is_wild, "there is no connection to that virtual address");
            return;
        };
        assert!(
            known.is_loose || known.member == ends.source.0,
            "another member answered: {known:?}"
        );
        known.from_member |= said;
        known.used = passed.now;
    }

    /// A packet was left alone: one that is no answer, or goes straight to a member.
    fn left_alone(&mut self, passed: &Passed<'_>) {
        let Some(ends) = ends(passed.before) else { return };
        let is_hampered = passed.odds.host().is_some_and(|odds| odds.no_memory || odds.vlan);
        if ends.protocol == ICMP || is_hampered {
            return;
        }
        let (client, other) = match passed.hook {
            Hook::In => (ends.source, ends.destination),
            Hook::Out => (ends.destination, ends.source),
        };
        for (key, known) in &mut self.known {
            let is_this = (key.who, key.protocol, key.client) == (passed.who, ends.protocol, client)
                && (known.member, key.remote.1) == other;
            if !is_this {
                continue;
            }
            if passed.hook == Hook::In {
                let opens = ends.flags & (SYN | ACK) == SYN;
                known.is_straight |= ends.protocol == UDP || (opens && known.is_closed());
                known.is_loose |= opens && known.is_closed();
                if ends.protocol == TCP && opens {
                    known.straight_syn = Some(number(passed.before, 38));
                }
            } else {
                let answers_straight = ends.flags & ACK != 0
                    && ends.flags & (SYN | RST) != 0
                    && known.straight_syn == Some(number(passed.before, 42).wrapping_sub(1));
                known.is_loose |= answers_straight;
                let is_over = known.is_closed() || known.is_straight || known.is_loose;
                assert!(
                    is_over,
                    "an answer of {key:?} came from the member's address: {known:?}"
                );
            }
        }
    }
}

/// What a packet was counted as: once at most.
fn counted([before, after]: &[Vec<u64>; 2]) -> Option<u32> {
    let mut counted = before.iter().zip(after).enumerate().filter(|(_, (a, b))| a != b);
    let (place, (before, after)) = counted.next()?;
    assert!(counted.next().is_none() && *after == before + 1, "counted once");
    Some(u32::try_from(place).expect("small"))
}

/// Whether a packet leaves by another way than it was on.
fn is_redirected(passed: &Passed<'_>, verdict: Option<Verdict>) -> bool {
    match verdict {
        Some(Verdict::Refused | Verdict::Hairpin | Verdict::Taken) => true,
        // An error about what a container sent itself.
        Some(Verdict::IcmpError) if passed.hook == Hook::In => passed.verdict == REDIRECT,
        // A reset that became the SYN again; or the SYN itself, which goes on.
        Some(Verdict::Retried) => ends(passed.before).is_some_and(|ends| ends.flags & RST != 0),
        _ => false,
    }
}

/// How much more members were given in all, and who was given a connection.
fn stats(machine: &impl Machine, before: &Stats) -> (BackendStats, Option<(usize, Ipv4Addr)>) {
    let (mut sum, mut changed, mut new) = (BackendStats::default(), 0, None);
    for (key, now) in Services::stats(machine) {
        let before = before.get(&key).copied().unwrap_or_default();
        changed += u64::from(before != now);
        sum.connections += now.connections - before.connections;
        sum.retried += now.retried - before.retried;
        sum.packets += now.packets - before.packets;
        sum.bytes += now.bytes - before.bytes;
        if now.connections != before.connections {
            new = Some((key.0, member(key.1).0));
        }
    }
    assert!(
        changed <= 1 + sum.retried && sum.retried <= 1,
        "a packet is one member's"
    );
    (sum, new)
}
