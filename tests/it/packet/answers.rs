//! Answers of a container's resolver, one at a time through the program by `BPF_PROG_TEST_RUN`: one row for every verdict.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{HashMap, MapData, PerCpuArray},
    programs::SchedClassifier,
};
use netfast_common::{
    abi::{map, program},
    alias::{Alias, AliasKey, MESSAGE, MemberKey, NAME, Verdict, address, digest, part},
};
use netfast_tests::{
    dns::{self, Answer, Question, RESOLVER},
    packet::{Packet, check_checksums, flag},
    require::{Need, needs},
};

use super::harness::{clear, object};

const ID: u64 = 7;
/// On to the next program of the chain (`TCX_NEXT`).
const NEXT: i32 = -1;

/// The program and its maps.
pub struct Lab {
    ebpf: Ebpf,
    /// Aliases by name and set of addresses.
    pub aliases: HashMap<MapData, AliasKey, Alias>,
    /// Whose turn it is.
    pub turns: HashMap<MapData, u64, u64>,
    /// How often a member was given first.
    pub given: HashMap<MapData, MemberKey, u64>,
    answers: PerCpuArray<MapData, u64>,
}

impl Lab {
    fn load() -> Self {
        let mut ebpf = EbpfLoader::new().load(&object()).expect("the object loads");
        let mut lab = Self {
            aliases: take(&mut ebpf, map::ALIASES),
            turns: take(&mut ebpf, map::CURSORS),
            given: take(&mut ebpf, map::FIRST_NAMED),
            answers: take(&mut ebpf, map::ANSWERS),
            ebpf,
        };
        lab.program().load().expect("the program loads");
        lab
    }

    fn program(&mut self) -> &mut SchedClassifier {
        let program = self.ebpf.program_mut(program::ANSWER).expect("it is in the object");
        program.try_into().expect("it is a classifier")
    }

    /// Makes these addresses the members of an alias; bits of `eligible` are in ascending order.
    fn set<I: Into<IpAddr> + Copy>(&mut self, name: &str, members: &[I], eligible: u64) {
        let mut sum = 0_u64;
        for ip in members {
            let address = number(*ip);
            sum = sum.wrapping_add(part(address));
            self.given
                .insert(MemberKey { alias: ID, address }, 0, 0)
                .expect("a count");
        }
        self.turns.insert(ID, 0, 0).expect("a turn");
        let alias = Alias {
            id: ID,
            eligible,
            members: members.len().try_into().expect("few"),
            ttl: 0,
            ..Alias::default()
        };
        let is_six = members.iter().any(|ip| (*ip).into().is_ipv6());
        let key = |digest| key(name, is_six, digest);
        self.aliases.insert(key(0), Alias::default(), 0).expect("an entry");
        self.aliases.insert(key(digest(sum)), alias, 0).expect("an entry");
    }

    /// Changes an alias that was set.
    fn change<I: Into<IpAddr> + Copy>(&mut self, name: &str, members: &[I], change: impl FnOnce(&mut Alias)) {
        let is_six = members.iter().any(|ip| (*ip).into().is_ipv6());
        let parts = members.iter().map(|ip| part(number(*ip)));
        let key = key(name, is_six, digest(parts.fold(0, u64::wrapping_add)));
        let mut alias = self.aliases.get(&key, 0).expect("it was set");
        change(&mut alias);
        self.aliases.insert(key, alias, 0).expect("an entry");
    }

    /// Forgets all aliases, turns and counts of members.
    pub fn forget(&mut self) {
        clear(&mut self.aliases);
        clear(&mut self.turns);
        clear(&mut self.given);
    }

    /// The packet afterwards, and what it was counted as.
    pub fn pass(&mut self, frame: &[u8]) -> (Vec<u8>, Option<Verdict>) {
        let before = self.counts();
        let mut out = vec![0; frame.len() + 64];
        let result = self.program().test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        });
        let result = result.expect("the kernel runs it");
        assert_eq!(result.return_value.cast_signed(), NEXT);
        out.truncate(result.data_size_out as usize);
        let after = self.counts();
        let counted: Vec<Verdict> = Verdict::ALL
            .iter()
            .zip(before.iter().zip(&after))
            .flat_map(|(verdict, (before, after))| (*before..*after).map(|_| *verdict))
            .collect();
        assert!(counted.len() <= 1, "counted as {counted:?}");
        (out, counted.first().copied())
    }

    fn counts(&self) -> Vec<u64> {
        let count = |verdict: &Verdict| self.answers.get(&verdict.number(), 0).expect("a count").iter().sum();
        Verdict::ALL.iter().map(count).collect()
    }

    fn first(&self, ip: impl Into<IpAddr>) -> u64 {
        let key = MemberKey {
            alias: ID,
            address: number(ip),
        };
        self.given.get(&key, 0).expect("a count")
    }
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> M
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).expect("it is in the object");
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// An address in the form in which addresses are compared.
fn number(ip: impl Into<IpAddr>) -> [u64; 2] {
    address(&ip.into().into())
}

fn key(name: &str, is_six: bool, digest: u64) -> AliasKey {
    let wire: Vec<u8> = name
        .split('.')
        .flat_map(|label| std::iter::once(u8::try_from(label.len()).expect("short")).chain(label.bytes()))
        .collect();
    let mut name = [0; NAME as usize];
    name[..wire.len()].copy_from_slice(&wire);
    AliasKey {
        digest,
        record_type: if is_six { 28 } else { 1 },
        reserved: 0,
        name,
    }
}

fn members(count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(|last| Ipv4Addr::new(172, 18, 0, last)).collect()
}

/// In either half of the address, and in another order there.
fn members6(count: u16) -> Vec<Ipv6Addr> {
    (1..=count)
        .map(|last| Ipv6Addr::new(0xfd00, 0, 0, last * 37 % 3, 0, 0, 0, last))
        .collect()
}

/// A datagram or a segment of the resolver.
fn frame(message: &[u8], tcp: bool) -> Vec<u8> {
    let (resolver, client) = ((*RESOLVER.ip(), RESOLVER.port()), (Ipv4Addr::LOCALHOST, 4000));
    let packet = if tcp {
        let length = u16::try_from(message.len()).expect("short");
        Packet::tcp(resolver, client).with(|packet| packet.payload = [&length.to_be_bytes()[..], message].concat())
    } else {
        Packet::udp(resolver, client).with(|packet| packet.payload = message.to_vec())
    };
    packet.bytes()
}

fn message_in(frame: &[u8], tcp: bool) -> Answer {
    let message = &frame[14 + 20 + if tcp { 20 + 2 } else { 8 }..];
    Answer::parse(message.to_vec()).expect("a message")
}

fn answer<I: Into<IpAddr> + Copy>(question: &Question, addresses: &[I]) -> Vec<u8> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| (*ip).into()).collect();
    dns::answer(question, &addresses, 600)
}

/// Runs `body` with a laboratory.
pub fn run(body: impl FnOnce(&mut Lab)) {
    if needs(&[Need::Root, Need::Kernel(6, 6)]) {
        body(&mut Lab::load());
    }
}

#[test]
fn members_come_in_turn_over_all_kinds_of_answers() {
    run(|lab| {
        let all = members(3);
        lab.set("web", &all, u64::MAX);
        for turn in 0..12 {
            let question = Question {
                name: (*["web", "WEB", "wEb"].get(turn % 3).expect("three")).to_owned(),
                edns: turn % 4 == 1,
                tcp: turn % 2 == 0,
                ..Question::of("web")
            };
            let mut shuffled = all.clone();
            shuffled.rotate_left(turn * 7 % 3);
            if turn % 5 == 0 {
                shuffled.swap(0, 1);
            }
            let before = answer(&question, &shuffled);
            let (packet, verdict) = lab.pass(&frame(&before, question.tcp));
            assert_eq!(verdict, Some(Verdict::Rotated), "turn {turn}");
            let mut expected = all.clone();
            expected.rotate_left(turn % 3);
            let expected: Vec<IpAddr> = expected.into_iter().map(Into::into).collect();
            // Nothing else differs.
            let whole = frame(&dns::answer(&question, &expected, 0), question.tcp);
            assert_eq!(packet, whole, "turn {turn}");
            check_checksums(&packet).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        }
        assert_eq!([lab.first(all[0]), lab.first(all[1]), lab.first(all[2])], [4, 4, 4]);
    });
}

#[test]
fn who_is_not_well_is_left_out_and_over_tcp_comes_last() {
    run(|lab| {
        let all = members(3);
        lab.set("web", &all, 0b101);
        for turn in 0..8 {
            for (tcp, edns) in [(false, false), (false, true), (true, false)] {
                let question = Question {
                    tcp,
                    edns,
                    ..Question::of("web")
                };
                let (packet, verdict) = lab.pass(&frame(&answer(&question, &all), tcp));
                let well = if lab.turns.get(&ID, 0).expect("a turn") % 2 == 1 {
                    [0, 2]
                } else {
                    [2, 0]
                };
                let mut expected = well.map(|index| IpAddr::from(all[index])).to_vec();
                if tcp {
                    expected.push(all[1].into());
                }
                let kind = if tcp { Verdict::Rotated } else { Verdict::Shortened };
                assert_eq!(verdict, Some(kind), "turn {turn}");
                assert_eq!(packet, frame(&dns::answer(&question, &expected, 0), tcp), "turn {turn}");
            }
        }
        assert_eq!(lab.first(all[1]), 0);
        // Nobody is well: the resolver's word is better than none.
        lab.set("web", &all, 0);
        let (packet, _) = lab.pass(&frame(&answer(&Question::of("web"), &all), false));
        assert_eq!(message_in(&packet, false).addresses.len(), 3);
    });
}

#[test]
fn a_virtual_address_takes_its_members_place() {
    run(|lab| {
        let vip = Ipv4Addr::new(198, 18, 0, 2);
        for count in [1, 3, 64] {
            let all = members(count);
            lab.set("web", &all, u64::MAX);
            lab.change("web", &all, |alias| alias.vip = IpAddr::from(vip).into());
            for (tcp, edns) in [(false, false), (false, true), (true, false)] {
                let question = Question {
                    tcp,
                    edns,
                    ..Question::of("web")
                };
                let (packet, verdict) = lab.pass(&frame(&answer(&question, &all), tcp));
                let given = vec![IpAddr::from(vip); if tcp { count.into() } else { 1 }];
                assert_eq!(verdict, Some(Verdict::Virtual), "{count} {tcp} {edns}");
                assert_eq!(
                    packet,
                    frame(&dns::answer(&question, &given, 0), tcp),
                    "{count} {tcp} {edns}"
                );
                check_checksums(&packet).unwrap_or_else(|error| panic!("{count} {tcp} {edns}: {error}"));
            }
        }
        assert_eq!(lab.turns.get(&ID, 0).expect("a turn"), 0, "nobody took a turn");
    });
}

#[test]
fn a_virtual_address_of_ipv6_takes_its_members_place() {
    run(|lab| {
        let (vip, other) = (Ipv6Addr::new(0xfd6e, 1, 2, 3, 4, 5, 6, 7), Ipv4Addr::new(198, 18, 0, 2));
        for count in [1, 3, 20] {
            let all = members6(count);
            lab.set("web", &all, u64::MAX);
            for (tcp, edns) in [(false, false), (false, true), (true, false)] {
                let question = Question {
                    kind: dns::AAAA,
                    tcp,
                    edns,
                    ..Question::of("web")
                };
                let before = frame(&answer(&question, &all), tcp);
                lab.change("web", &all, |alias| alias.vip = IpAddr::from(vip).into());
                let (packet, verdict) = lab.pass(&before);
                let given = vec![IpAddr::from(vip); if tcp { count.into() } else { 1 }];
                assert_eq!(verdict, Some(Verdict::Virtual), "{count} {tcp} {edns}");
                assert_eq!(packet, frame(&dns::answer(&question, &given, 0), tcp));
                check_checksums(&packet).unwrap_or_else(|error| panic!("{count} {tcp} {edns}: {error}"));
                // With that of the other family alone there are no records, and by TCP the members.
                lab.change("web", &all, |alias| alias.vip = IpAddr::from(other).into());
                let (packet, verdict) = lab.pass(&before);
                assert_eq!(verdict, Some(if tcp { Verdict::Rotated } else { Verdict::Virtual }));
                if !tcp {
                    assert_eq!(packet, frame(&dns::answer(&question, &[], 0), tcp));
                }
            }
        }
    });
}

#[test]
fn one_member_is_named_in_turn() {
    run(|lab| {
        let all = members6(3);
        let mut ascending = all.clone();
        ascending.sort();
        lab.set("web", &all, u64::MAX);
        lab.change("web", &all, |alias| alias.flags = Alias::ONE);
        for turn in 0..12 {
            let question = Question {
                kind: dns::AAAA,
                edns: turn % 4 == 1,
                tcp: turn % 2 == 0,
                ..Question::of("web")
            };
            let (packet, verdict) = lab.pass(&frame(&answer(&question, &all), question.tcp));
            assert_eq!(verdict, Some(Verdict::One), "turn {turn}");
            let given = vec![IpAddr::from(ascending[turn % 3]); if question.tcp { 3 } else { 1 }];
            let whole = frame(&dns::answer(&question, &given, 0), question.tcp);
            assert_eq!(packet, whole, "turn {turn}");
            check_checksums(&packet).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        }
        assert_eq!([lab.first(all[0]), lab.first(all[1]), lab.first(all[2])], [4, 4, 4]);
    });
}

#[test]
fn as_many_as_an_alias_can_have() {
    run(|lab| {
        let all = members(64);
        lab.set("web", &all, u64::MAX);
        for turn in 0..130 {
            let (packet, verdict) = lab.pass(&frame(&answer(&Question::of("web"), &all), false));
            assert_eq!(verdict, Some(Verdict::Rotated));
            assert_eq!(message_in(&packet, false).first(), Some(all[turn % 64].into()));
        }
    });
}

/// Packets that stay as they are, and what each is counted as.
fn left_alone() -> Vec<(&'static str, Vec<u8>, Option<Verdict>)> {
    let all = members(3);
    let question = Question::of("web");
    let good = answer(&question, &all);
    let edit = |place: usize, bytes: &[u8]| {
        let mut message = good.clone();
        message[place..place + bytes.len()].copy_from_slice(bytes);
        frame(&message, false)
    };
    let of = |name: &str, addresses: &[Ipv4Addr]| frame(&answer(&Question::of(name), addresses), false);
    let mut part = frame(&good, true);
    part[14 + 20 + 20 + 1] += 1;
    let mut other_sender = frame(&good, false);
    other_sender[14 + 15] = 12;
    let mut other_port = frame(&good, false);
    other_port[14 + 20 + 1] = 54;
    let bare = Packet::tcp((*RESOLVER.ip(), RESOLVER.port()), (Ipv4Addr::LOCALHOST, 4000)).with(|packet| {
        packet.flags = flag::ACK;
        packet.payload.clear();
    });
    let mut long = good.clone();
    long.resize(MESSAGE as usize, 0);
    vec![
        ("not from the resolver", other_sender, None),
        ("a bare acknowledgement", bare.bytes(), None),
        ("from another port", other_port, Some(Verdict::NotMessage)),
        ("a query", edit(2, &[1]), Some(Verdict::NotAnswer)),
        ("no such name", edit(3, &[0x83]), Some(Verdict::Refused)),
        ("truncated", edit(2, &[0x83]), Some(Verdict::Truncated)),
        ("one record", of("web", &all[..1]), Some(Verdict::Few)),
        ("a hundred records", of("web", &members(100)), Some(Verdict::TooMany)),
        ("too long", frame(&long, false), Some(Verdict::TooLong)),
        ("a part of a message", part, Some(Verdict::TooLong)),
        ("mail servers", edit(12 + 5, &[0, 15]), Some(Verdict::OtherQuestion)),
        (
            "a pointer in the question",
            edit(12, &[0xc0, 12]),
            Some(Verdict::OddName),
        ),
        (
            "cut short",
            frame(&good[..good.len() - 1], false),
            Some(Verdict::OddRecord),
        ),
        (
            "a pointer to itself",
            edit(12 + 5 + 4, &[0xc0, 21]),
            Some(Verdict::OddRecord),
        ),
        ("an unknown name", of("wed", &all), Some(Verdict::NotAlias)),
        ("one member is new", of("web", &members(4)), Some(Verdict::OtherSet)),
        ("one member is gone", of("web", &all[..2]), Some(Verdict::OtherSet)),
        (
            "one member twice",
            of("web", &[all[0], all[0], all[1]]),
            Some(Verdict::OtherSet),
        ),
    ]
}

#[test]
fn what_is_not_an_alias_s_answer_stays_as_it_is() {
    run(|lab| {
        lab.set("web", &members(3), u64::MAX);
        for (what, frame, expected) in left_alone() {
            let (packet, verdict) = lab.pass(&frame);
            assert_eq!(verdict, expected, "{what}");
            assert_eq!(packet, frame, "{what}");
        }
        assert_eq!(lab.turns.get(&ID, 0).expect("a turn"), 0, "nobody lost a turn");
    });
}

#[test]
fn every_verdict_has_a_row() {
    let mut covered: BTreeSet<Verdict> = left_alone().iter().filter_map(|(_, _, verdict)| *verdict).collect();
    covered.extend([Verdict::Rotated, Verdict::Shortened, Verdict::One, Verdict::Virtual]);
    // Only when the kernel has no memory; netfast-ebpf/src/dns/tests.rs.
    covered.insert(Verdict::Unwritable);
    let missing: Vec<_> = Verdict::ALL
        .iter()
        .filter(|verdict| !covered.contains(verdict))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
