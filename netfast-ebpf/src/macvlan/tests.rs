//! Who gets which frame, and that nothing else of it changes.

use netfast_common::macvlan::AddressOwner;

use super::*;
use crate::ctx::fake::{self, FakeSkb, Sent};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CONTAINER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ALL: [u8; 6] = [0xff; 6];
/// As [`FakeSkb::new`] has it.
const PARENT: u32 = 2;
const ADDRESS: [u8; 4] = [192, 168, 1, 200];
const ADDRESS6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
const OWN6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const INGRESS: Sent = Sent::To(PARENT, BPF_F_INGRESS as u64);

/// The host, two containers, and the address of the first.
fn world() {
    fake::reset();
    let parent = DeviceKey::served(PARENT);
    for (mac, who) in [
        (HOST, Station::HOST),
        (CONTAINER, Station::CONTAINER),
        (OTHER, Station::CONTAINER),
    ] {
        let station = Station { who, host: HOST };
        maps::MACVLANS
            .insert(StationKey::new(parent, mac), station, 0)
            .expect("room");
    }
    let (v4, v6) = (Ip4::from_bytes(ADDRESS), Ip6::from_bytes(ADDRESS6));
    for address in [AnyIp::v4(v4), AnyIp::v6(v6)] {
        let owner = AddressOwner {
            mac: CONTAINER,
            reserved: [0; 2],
        };
        maps::MACVLAN_ADDRESSES
            .insert(AddressKey { parent, address }, owner, 0)
            .expect("room");
    }
}

fn frame(from: [u8; 6], to: [u8; 6], ethertype: u16, rest: &[u8]) -> FakeSkb {
    let skb = FakeSkb::new(&[to.as_slice(), &from, &ethertype.to_be_bytes(), rest].concat());
    skb.mark.set(7);
    skb
}

/// A question of ARP for an address, as from `from`.
fn arp(from: [u8; 6], target: [u8; 4]) -> FakeSkb {
    let packet = [
        ARP_OF_IPV4.as_slice(),
        &[0, 1],
        &from,
        &[192, 168, 1, 10],
        &[0; 6],
        &target,
    ]
    .concat();
    frame(from, ALL, 0x0806, &packet)
}

/// A neighbour solicitation.
fn solicitation(from: [u8; 6], source: [u8; 16], target: [u8; 16]) -> FakeSkb {
    let header = [0x60, 0, 0, 0, 0, 24, V6::ICMP, 255];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 2, 0];
    let icmp = [NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    let packet = [header.as_slice(), &source, &group, &icmp, &target].concat();
    frame(from, [0x33, 0x33, 0xff, 0, 2, 0], 0x86dd, &packet)
}

/// It passes and is as it was; the copies that were sent.
fn passes(skb: &FakeSkb) -> Vec<(Sent, Vec<u8>, u32)> {
    let before = skb.bytes();
    assert_eq!(at_parent(skb), NEXT);
    assert_eq!((skb.bytes(), skb.mark(), skb.sent.get()), (before, 7, None));
    skb.copies.take()
}

/// It passes, and this one gets a copy that is its own.
fn is_asked(skb: &FakeSkb, who: [u8; 6]) {
    let mut copy = skb.bytes();
    copy[..6].copy_from_slice(&who);
    assert_eq!(passes(skb), [(INGRESS, copy, 0)]);
}

#[test]
fn frames_between_the_host_and_a_container_come_in_by_the_parent() {
    world();
    for (from, to) in [(HOST, CONTAINER), (CONTAINER, HOST), (HOST, OTHER), (OTHER, HOST)] {
        let skb = frame(from, to, 0x0800, &[0x45; 20]);
        let before = skb.bytes();
        at_parent(&skb);
        assert_eq!(skb.sent.get(), Some(INGRESS));
        assert_eq!(
            (skb.bytes(), skb.mark()),
            (before, 0),
            "a mark of the container's own would be one of the host's"
        );
    }
}

#[test]
fn all_others_leave_as_they_did() {
    world();
    let pairs = [
        (HOST, STRANGER),
        (STRANGER, HOST),
        (CONTAINER, STRANGER),
        (STRANGER, CONTAINER),
        // The driver itself delivers those, or keeps them apart.
        (CONTAINER, OTHER),
        (HOST, HOST),
        (CONTAINER, CONTAINER),
    ];
    for (from, to) in pairs {
        assert_eq!(passes(&frame(from, to, 0x0800, &[0x45; 20])), []);
    }
    let mut tagged = frame(HOST, CONTAINER, 0x0800, &[0x45; 20]);
    tagged.vlan = true;
    assert_eq!(passes(&tagged), []);
    let mut elsewhere = frame(HOST, CONTAINER, 0x0800, &[0x45; 20]);
    elsewhere.ifindex = 3;
    assert_eq!(passes(&elsewhere), []);
    assert_eq!(at_parent(&FakeSkb::new(&[0; 11])), NEXT);
}

#[test]
fn who_is_asked_for_by_arp_hears_of_it() {
    world();
    is_asked(&arp(HOST, ADDRESS), CONTAINER);
    // Whatever a container asks for may be the host's.
    is_asked(&arp(CONTAINER, [192, 168, 1, 10]), HOST);
    assert_eq!(passes(&arp(HOST, [192, 168, 1, 201])), []);
    assert_eq!(passes(&arp(STRANGER, ADDRESS)), []);
    for byte in 0..6 {
        let mut bytes = arp(HOST, ADDRESS).bytes();
        bytes[14 + byte] ^= 1;
        let skb = FakeSkb::new(&bytes);
        skb.mark.set(7);
        assert_eq!(passes(&skb), [], "byte {byte}");
    }
    let short = FakeSkb::new(&arp(HOST, ADDRESS).bytes()[..41]);
    short.mark.set(7);
    assert_eq!(passes(&short), []);
}

#[test]
fn who_is_asked_for_by_neighbour_discovery_hears_of_it() {
    world();
    is_asked(&solicitation(HOST, OWN6, ADDRESS6), CONTAINER);
    is_asked(&solicitation(CONTAINER, ADDRESS6, OWN6), HOST);
    assert_eq!(passes(&solicitation(HOST, OWN6, OWN6)), []);
    assert_eq!(passes(&solicitation(CONTAINER, [0; 16], OWN6)), [], "its own duplicate");
    let other = |offset: usize, byte: u8| {
        let mut bytes = solicitation(HOST, OWN6, ADDRESS6).bytes();
        bytes[offset] = byte;
        let skb = FakeSkb::new(&bytes);
        skb.mark.set(7);
        skb
    };
    assert_eq!(passes(&other(20, 17)), [], "UDP");
    assert_eq!(passes(&other(54, 134)), [], "a router's advertisement");
    let mut bytes = solicitation(CONTAINER, ADDRESS6, ADDRESS6).bytes();
    bytes[54] = NEIGHBOUR_ADVERTISEMENT;
    let told = FakeSkb::new(&bytes);
    told.mark.set(7);
    is_asked(&told, HOST);
}

#[test]
fn other_group_frames_are_of_the_lan() {
    world();
    assert_eq!(passes(&frame(HOST, ALL, 0x0800, &[0x45; 20])), []);
    assert_eq!(passes(&frame(CONTAINER, ALL, 0x0800, &[0x45; 20])), []);
}
