//! Which packets get which port, and that nothing else of them changes.

use etherparse::{PacketBuilder, icmpv4};

use super::*;
use crate::ctx::fake::{self, FakeSkb, Plain};

const COOKIE: u64 = 7;
const RESOLVER: [u8; 4] = [127, 0, 0, 11];
const CLIENT: [u8; 4] = [127, 0, 0, 1];
const UDP_PORT: u16 = 37_874;
const TCP_PORT: u16 = 45_169;

fn world() {
    fake::reset();
    let ports = Ports {
        udp: Port::new(UDP_PORT),
        tcp: Port::new(TCP_PORT),
    };
    maps::RESOLVERS.insert(COOKIE, ports, 0).expect("room");
}

/// A packet from one address and port to another, by TCP or UDP.
fn plain(from: ([u8; 4], u16), to: ([u8; 4], u16), is_tcp: bool) -> Plain {
    Plain {
        addresses: [from.0, to.0],
        ports: [from.1, to.1],
        tcp: is_tcp.then_some((1, 2, 3)),
        ..Plain::udp(vec![1, 2, 3, 4, 5])
    }
}

fn skb(frame: &[u8], cookie: u64) -> FakeSkb {
    let mut skb = FakeSkb::new(frame);
    skb.netns_cookie = cookie;
    skb
}

/// What becomes of a frame.
fn after(frame: &[u8]) -> Vec<u8> {
    let skb = skb(frame, COOKIE);
    assert_eq!(at_loopback(&skb), NEXT);
    skb.bytes()
}

#[test]
fn questions_go_to_where_it_listens_and_answers_come_from_port_53() {
    world();
    for (is_tcp, listens) in [(false, UDP_PORT), (true, TCP_PORT)] {
        let asked = plain((CLIENT, 40_000), (RESOLVER, 53), is_tcp).frame();
        let arrives = plain((CLIENT, 40_000), (RESOLVER, listens), is_tcp).frame();
        assert_eq!(after(&asked), arrives, "with right checksums");
        let answered = plain((RESOLVER, listens), (CLIENT, 40_000), is_tcp).frame();
        let arrives = plain((RESOLVER, 53), (CLIENT, 40_000), is_tcp).frame();
        assert_eq!(after(&answered), arrives);
        // A client may have any address of the container, the resolver's own among them.
        let asked = plain((RESOLVER, 40_000), (RESOLVER, 53), is_tcp).frame();
        let arrives = plain((RESOLVER, 40_000), (RESOLVER, listens), is_tcp).frame();
        assert_eq!(after(&asked), arrives);
        let arrives = plain((RESOLVER, 53), (RESOLVER, 40_000), is_tcp).frame();
        assert_eq!(
            after(&plain((RESOLVER, listens), (RESOLVER, 40_000), is_tcp).frame()),
            arrives
        );
    }
}

#[test]
fn a_checksum_that_is_left_to_the_device_stays_as_it_is() {
    world();
    for is_tcp in [false, true] {
        let frame = plain((CLIENT, 40_000), (RESOLVER, 53), is_tcp).frame();
        let mut skb = skb(&frame, COOKIE);
        skb.partial = true;
        at_loopback(&skb);
        let differ: Vec<usize> = (0..frame.len()).filter(|at| skb.bytes()[*at] != frame[*at]).collect();
        assert_eq!(differ, [36, 37], "the port alone");
    }
}

#[test]
fn a_datagram_without_a_checksum_gets_none() {
    world();
    let mut frame = plain((CLIENT, 40_000), (RESOLVER, 53), false).frame();
    frame[40..42].fill(0);
    assert_eq!(after(&frame)[40..42], [0, 0]);
}

#[test]
fn all_else_passes_as_it_was() {
    world();
    let mut frames = vec![vec![0; 10], vec![0; 60]];
    for is_tcp in [false, true] {
        let (own, other) = if is_tcp {
            (TCP_PORT, UDP_PORT)
        } else {
            (UDP_PORT, TCP_PORT)
        };
        for (from, to) in [
            // With Docker's rules it comes so.
            ((CLIENT, 40_000), (RESOLVER, own)),
            ((RESOLVER, 53), (CLIENT, 40_000)),
            // To others.
            ((CLIENT, 40_000), (CLIENT, 53)),
            ((CLIENT, own), (CLIENT, 40_000)),
            ((CLIENT, 40_000), (RESOLVER, 54)),
            ((RESOLVER, 54), (CLIENT, 40_000)),
            // The other protocol's port.
            ((RESOLVER, other), (CLIENT, 40_000)),
            ((CLIENT, own), (RESOLVER, 80)),
        ] {
            frames.push(plain(from, to, is_tcp).frame());
        }
        let mut fragment = plain((CLIENT, 40_000), (RESOLVER, 53), is_tcp).frame();
        fragment[20] |= 0x20;
        frames.push(fragment);
    }
    for frame in frames {
        assert_eq!(after(&frame), frame);
    }
    // In a namespace where the rules are.
    let frame = plain((CLIENT, 40_000), (RESOLVER, 53), false).frame();
    let elsewhere = skb(&frame, COOKIE + 1);
    at_loopback(&elsewhere);
    assert_eq!(elsewhere.bytes(), frame);
    let mut poor = skb(&frame, COOKIE);
    poor.no_memory = true;
    at_loopback(&poor);
    assert_eq!(poor.bytes(), frame, "nothing is done by half");
}

/// Port unreachable (RFC 792), about a datagram to this port.
fn unreachable(quoted: &Plain) -> Vec<u8> {
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4(RESOLVER, CLIENT, 64)
        .icmpv4(kind)
        .write(&mut bytes, &quoted.frame()[14..])
        .expect("a vector takes all");
    bytes
}

#[test]
fn who_asks_a_resolver_that_is_gone_is_told_so() {
    world();
    let frame = unreachable(&plain((CLIENT, 40_000), (RESOLVER, UDP_PORT), false));
    let done = after(&frame);
    let differ: Vec<usize> = (0..frame.len()).filter(|at| done[*at] != frame[*at]).collect();
    assert!(differ.iter().all(|at| [36, 37, 64, 65].contains(at)), "{differ:?}");
    assert_eq!(done[64..66], [0, 53]);
    let sum = done[34..].chunks(2).fold(0, |sum: u32, two| {
        sum + u32::from(u16::from_be_bytes([two[0], *two.get(1).unwrap_or(&0)]))
    });
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the message's checksum is right");
    for other in [
        plain((CLIENT, 40_000), (RESOLVER, UDP_PORT + 1), false),
        plain((CLIENT, 40_000), (CLIENT, UDP_PORT), false),
        plain((CLIENT, 40_000), (RESOLVER, TCP_PORT), true),
    ] {
        let frame = unreachable(&other);
        assert_eq!(after(&frame), frame);
    }
}
