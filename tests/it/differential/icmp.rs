//! ICMP echo and errors beside flows, and UDP that nobody answers.

use std::{
    net::{SocketAddr, SocketAddrV4},
    thread,
    time::Duration,
};

use netfast_common::reason::Reason;
use netfast_tests::{
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::Conversation,
    runner::{Case, check},
    wire::{Packet, TCP, UDP},
    world::World,
};

fn topology() -> Options {
    Options {
        bridges: vec![2],
        published: vec![Published {
            host_port: 8080,
            container: (0, 0),
            port: 80,
        }],
        ..Options::default()
    }
}

/// An ICMP error of the receiver about a packet as it arrived there.
fn error(about: &Packet, at: SocketAddr, kind: u8, code: u8, word: [u8; 4]) -> Packet {
    let mut quoted = about.ip_bytes();
    quoted.truncate(20 + 8 + 40);
    Packet::icmp(at.ip(), about.source.ip(), kind, code, word, &quoted)
}

#[test]
fn icmp_errors_about_established_flows() {
    check(&Case {
        topology: topology(),
        script: |world| {
            for protocol in [UDP, TCP] {
                for (client, to, server) in [
                    ("c00", SocketAddrV4::new(world.ip("c01"), 7000), "c01"),
                    ("c00", SocketAddrV4::new(world.ip("lan"), 7000), "lan"),
                    ("lan", SocketAddrV4::new(HOST_IP, 8080), "c00"),
                ] {
                    let conversation = Conversation::open(world, protocol, client, 40_000, to, server);
                    // Port unreachable, frag-needed with an MTU, time exceeded; each about a packet as either saw it.
                    for (kind, code, word) in [(3, 3, [0; 4]), (3, 4, [0, 0, 0x04, 0xb0]), (11, 0, [0; 4])] {
                        conversation.warm(world);
                        let seen = conversation.forward(b"to whom").with(|packet| {
                            (packet.source, packet.destination) = (conversation.seen_from, conversation.seen_to);
                        });
                        let about = error(&seen, conversation.seen_to, kind, code, word);
                        world.step(&format!("{kind}/{code} from {server}"), &[(server, about)]);
                        world.was(Reason::OtherProtocol);
                        let seen = conversation.back(b"to whom").with(|packet| {
                            (packet.source, packet.destination) = (conversation.to, conversation.from);
                        });
                        let about = error(&seen, conversation.from, kind, code, word);
                        world.step(&format!("{kind}/{code} from {client}"), &[(client, about)]);
                    }
                    conversation.warm(world);
                }
            }
        },
        ..Case::default()
    });
}

#[test]
fn icmp_echo() {
    check(&Case {
        topology: topology(),
        script: |world| {
            for (from, to) in [("c00", "c01"), ("c00", "lan")] {
                let mut fast = 0;
                for number in 0..24 {
                    let word = [0, 7, 0, number];
                    let request = Packet::icmp(world.ip(from), world.ip(to), 8, 0, word, b"ping");
                    let got = world.step("request", &[(from, request)]);
                    fast += usize::from(world.was_fast());
                    let seen = got[to]
                        .iter()
                        .find_map(super::describe::Frame::tuple)
                        .expect("the request arrived");
                    let reply = Packet::icmp(world.ip(to), seen.source.ip(), 0, 0, word, b"ping");
                    world.step("reply", &[(to, reply)]);
                    fast += usize::from(world.was_fast());
                    thread::sleep(Duration::from_millis(10));
                }
                assert!(fast > 0 || !world.is_on(), "none was fast: {}", world.told());
                // What belongs to no conversation is what it is without netfast.
                for (what, kind, code, word) in [
                    ("a request with a code", 8, 1, [0, 7, 0, 99]),
                    ("a request without an identifier", 8, 0, [0, 0, 0, 99]),
                    ("a reply that nobody asked for", 0, 0, [0, 9, 0, 99]),
                    ("a timestamp", 13, 0, [0, 7, 0, 99]),
                ] {
                    let odd = Packet::icmp(world.ip(from), world.ip(to), kind, code, word, b"ping and more of it");
                    world.step(what, &[(from, odd)]);
                }
            }
        },
        ..Case::default()
    });
}

/// conntrack calls a conversation replied only when it was answered, and judges each packet before that as new: what it says of
/// one is repeated for the next, and what becomes of each is the same.
#[test]
fn udp_one_way() {
    check(&Case {
        topology: topology(),
        script: |world| {
            for (client, to) in [
                ("c00", SocketAddrV4::new(world.ip("c01"), 7000)),
                ("c00", SocketAddrV4::new(world.ip("lan"), 7000)),
                ("lan", SocketAddrV4::new(HOST_IP, 8080)),
            ] {
                let mut fast = 0;
                for number in 0..24 {
                    let packet = Packet::udp(SocketAddrV4::new(world.ip(client), 40_000), to, &[number; 20]);
                    world.step("one way", &[(client, packet)]);
                    fast += usize::from(world.was_fast());
                    thread::sleep(Duration::from_millis(10));
                }
                assert!(fast > 0 || !world.is_on(), "none was fast: {}", world.told());
            }
            assert_eq!(world.conversations(), 0);
        },
        ..Case::default()
    });
}

/// An answer from elsewhere is none.
#[test]
fn udp_answered_by_another() {
    check(&Case {
        topology: topology(),
        script: |world: &mut World| {
            let to = SocketAddrV4::new(world.ip("c01"), 7000);
            let from = SocketAddrV4::new(world.ip("c00"), 40_000);
            for _ in 0..4 {
                world.step("a question", &[("c00", Packet::udp(from, to, b"question"))]);
                let other = SocketAddrV4::new(world.ip("c01"), 7001);
                world.step("from another port", &[("c01", Packet::udp(other, from, b"answer"))]);
                let forged = Packet::udp(SocketAddrV4::new(world.ip("lan"), 7000), from, b"answer");
                world.step("from the outside", &[("lan", forged)]);
            }
            assert_eq!(world.conversations(), 0);
        },
        ..Case::default()
    });
}
