//! What test runs of the kernel cannot show: where packets are sent, with which mark, and what becomes of those that cannot be
//! written to.

use netfast_common::{
    control::Control,
    device::{Device, Kind},
};

use super::*;
use crate::ctx::fake::{self, FakeSkb, Plain, Sent};
use crate::packet::Family as _;

/// The tunnel's device, and the uplink that its outer packets go by.
pub(super) const TUNNEL: u32 = 5;
pub(super) const UPLINK: u32 = 7;
pub(super) const SECOND: u64 = 1_000_000_000;

/// A tunnel and an uplink, one second after the clock's start.
pub(super) fn world() {
    fake::reset();
    fake::set_ns(SECOND);
    let control = maps::CONTROL.get_ptr_mut(0).expect("an element");
    // SAFETY: an element of this thread's, and no program runs.
    unsafe {
        *control = Control {
            switches: Control::USE | Control::LEARN,
            revalidate_ns: SECOND,
            ..Control::default()
        };
    }
    for (slot, ifindex) in [(1, TUNNEL), (2, UPLINK)] {
        let device = Device::new(Kind::Uplink, Device::ACCELERATED, slot);
        maps::DEVICES
            .insert(DeviceKey::served(ifindex), device, 0)
            .expect("room");
    }
    maps::TUNNELS
        .insert(DeviceKey::served(TUNNEL), Tunnel::new(9, 4789), 0)
        .expect("room");
}

fn inner() -> Vec<u8> {
    let packet = Plain::udp(vec![7; 20]);
    packet.frame()
}

/// A packet at the tunnel's device.
fn given() -> FakeSkb {
    let mut skb = FakeSkb::new(&inner());
    skb.ifindex = TUNNEL;
    skb.mark.set(3);
    skb
}

/// The kernel has put the header before it.
fn leaving() -> FakeSkb {
    let head = [
        0x02, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0x33, 0x44, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0,
        0, 2, 0xc3, 0x50, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 9, 0,
    ];
    let mut bytes = [&head[..], &inner()].concat();
    let length = u16::try_from(bytes.len() - 14).expect("short");
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    let sum: u32 = bytes[14..34]
        .chunks(2)
        .map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]])))
        .sum();
    let field = !netfast_common::csum::fold16(sum);
    bytes[24..26].copy_from_slice(&field.to_ne_bytes());
    let mut skb = FakeSkb::new(&bytes);
    skb.ifindex = UPLINK;
    skb.received_by = 0;
    skb.mark.set(4);
    skb.priority.set(6);
    skb
}

fn learn() {
    world();
    assert_eq!(at_device(&given()), NEXT);
    assert_eq!(at_uplink(&leaving()), NEXT);
    assert_eq!(maps::ENCAP4.entries().len(), 1);
}

#[test]
fn it_goes_to_the_uplink_with_the_mark_and_the_priority_that_the_kernels_had() {
    learn();
    let skb = given();
    assert_eq!(at_device(&skb), fake::TC_ACT_REDIRECT);
    assert_eq!(skb.sent.get(), Some(Sent::To(UPLINK, 0)));
    assert_eq!((skb.mark.get(), skb.priority.get()), (4, 6));
    let mut expected = leaving().bytes();
    expected[18..20].copy_from_slice(&0x3345_u16.to_be_bytes());
    let field = u16::from_be_bytes([expected[24], expected[25]]) - 1;
    expected[24..26].copy_from_slice(&field.to_be_bytes());
    assert_eq!(skb.bytes(), expected);
}

/// Segments get the outer header each, with an identification of its own.
#[test]
fn segments_use_identifications_up_one_by_one() {
    learn();
    for (gso_size, identity) in [(0, 0x3345), (7, 0x3346), (20, 0x3349), (21, 0x334b), (0, 0x334c)] {
        let mut skb = given();
        skb.gso_size = gso_size;
        assert_eq!(at_device(&skb), fake::TC_ACT_REDIRECT);
        assert_eq!(skb.bytes()[18..20], u16::to_be_bytes(identity), "{gso_size}");
    }
}

/// With UDP checksums only what has one inside is repeated, and no segments, whose checksums are the kernel's to compute.
#[test]
fn with_udp_checksums_what_has_none_inside_and_segments_are_the_kernels() {
    world();
    let tunnel = Tunnel::new(9, 4789).with_checksums();
    maps::TUNNELS
        .insert(DeviceKey::served(TUNNEL), tunnel, 0)
        .expect("room");
    let begun = |skb: &FakeSkb| {
        // The sum over the pseudo-header, which the device goes on from.
        let sum: u32 = skb.bytes()[26..34]
            .chunks(2)
            .map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]])))
            .sum();
        let mut bytes = skb.bytes();
        let length = u16::from_ne_bytes([bytes[38], bytes[39]]);
        let field = netfast_common::csum::fold16(sum + u32::from(17_u16.to_be()) + u32::from(length));
        bytes[40..42].copy_from_slice(&field.to_ne_bytes());
        let mut with = FakeSkb::new(&bytes);
        (with.ifindex, with.received_by) = (UPLINK, 0);
        with
    };
    assert_eq!(at_device(&given()), NEXT);
    assert_eq!(at_uplink(&begun(&leaving())), NEXT);
    assert_eq!(maps::ENCAP4.entries().len(), 1);
    assert_eq!(at_device(&given()), fake::TC_ACT_REDIRECT);
    let mut segments = given();
    segments.gso_size = 10;
    assert_eq!(at_device(&segments), NEXT);
    assert!(candidate::current::<V4, _>(&segments).is_none());
    let mut bytes = inner();
    bytes[40..42].fill(0);
    let mut without = FakeSkb::new(&bytes);
    without.ifindex = TUNNEL;
    without.mark.set(3);
    assert_eq!(at_device(&without), NEXT);
    assert!(candidate::current::<V4, _>(&without).is_none());
}

#[test]
fn one_that_cannot_be_written_to_or_is_in_a_tunnel_already_is_left_as_it_is() {
    for prepare in [
        |skb: &mut FakeSkb| skb.no_memory = true,
        |skb: &mut FakeSkb| skb.encapsulated.set(true),
    ] {
        learn();
        let mut skb = given();
        prepare(&mut skb);
        assert_eq!(at_device(&skb), NEXT);
        assert_eq!((skb.bytes(), skb.sent.get()), (inner(), None));
    }
}

#[test]
fn another_packet_in_the_same_run_is_not_learned() {
    world();
    let mut skb = given();
    skb.address = 0x1000;
    assert_eq!(at_device(&skb), NEXT);
    let mut skb = leaving();
    skb.address = 0x1100;
    at_uplink(&skb);
    assert!(maps::ENCAP4.entries().is_empty());
}

#[test]
fn a_tag_is_the_kernels() {
    learn();
    let mut skb = given();
    skb.vlan = true;
    assert_eq!((at_device(&skb), skb.sent.get()), (NEXT, None));
    world();
    assert_eq!(at_device(&given()), NEXT);
    let mut skb = leaving();
    skb.vlan = true;
    at_uplink(&skb);
    assert!(maps::ENCAP4.entries().is_empty());
}

#[test]
fn an_ipv6_candidate_is_not_taken_for_one_of_a_tunnel() {
    world();
    let all = maps::CANDIDATES.get_ptr_mut(0).expect("an element");
    // SAFETY: an element of this thread's, and no program runs; bytes.
    unsafe {
        core::ptr::write_bytes(all.cast::<u8>(), 0, size_of_val(&*all));
        core::ptr::write_bytes((&raw mut (*all).places).cast::<u8>(), 2, size_of_val(&(*all).places));
        (*all).places[0].family = crate::packet::V6::NUMBER;
        (*all).waiting = 1;
    }
    assert_eq!(at_uplink(&leaving()), NEXT);
    assert!(candidate::current::<V4, _>(&leaving()).is_some(), "it is not consumed");
}
