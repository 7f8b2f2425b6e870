//! What etherparse makes is what is read, and what is written is what etherparse reads.

use etherparse::{PacketBuilder, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::ctx::fake::{FakeSkb, Plain, plain, reset};

const VNI: u32 = 0x00_2a17;

/// A frame in VXLAN, without a UDP checksum.
pub fn around(inner: &[u8], id: u16, tos: u8) -> Vec<u8> {
    let mut bytes = around_with_checksum(inner, id, tos);
    bytes[40..42].fill(0);
    bytes
}

/// The same, with one.
fn around_with_checksum(inner: &[u8], id: u16, tos: u8) -> Vec<u8> {
    let [_, a, b, c] = VNI.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0][..], inner].concat();
    let mut ip =
        etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber(0), [10, 0, 0, 1], [10, 0, 0, 2]).expect("short");
    ip.identification = id;
    ip.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
    ip.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
        .udp(50_000, 4789)
        .write(&mut bytes, &payload)
        .expect("a vector takes all");
    bytes
}

fn tunnel() -> Tunnel {
    Tunnel::new(VNI, 4789)
}

fn read(bytes: &[u8]) -> Option<Outer> {
    read_of(bytes, tunnel())
}

fn read_of(bytes: &[u8], tunnel: Tunnel) -> Option<Outer> {
    let mut header = [0; OUTER_HALVES];
    Outer::within(&mut header)
        .read(&FakeSkb::new(bytes), &tunnel)
        .then_some(Outer(header))
}

fn bytes(outer: &Outer) -> Vec<u8> {
    outer.0.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

proptest! {
    /// Read from one packet and written for another, it is what the kernel would have written for that one.
    #[test]
    fn it_is_written_for_another_packet_as_the_kernel_would(
        one in plain(),
        other in plain(),
        ids in any::<[u16; 2]>(),
        tos in any::<u8>(),
    ) {
        reset();
        let other = Plain { macs: one.macs, ..other };
        let with_ecn = |inner: &Plain| tos & !3 | outer_ecn(inner.tos);
        let first = around(&one.frame(), ids[0], with_ecn(&one));
        let mut outer = read(&first).expect("it is exactly so");
        prop_assert_eq!((outer.identity(), outer.tos()), (ids[0], with_ecn(&one)));
        let sum = outer.blank();
        let length = u16::try_from(other.frame().len() + 36).expect("short");
        let each = Each { length, identity: ids[1], tos: other.tos, udp_sum: 0, without: 0 };
        outer.fill(each, sum);
        let expected = around(&other.frame(), ids[1], with_ecn(&other));
        prop_assert_eq!(&bytes(&outer)[..], &expected[..64]);
        let whole = [&bytes(&outer)[..], &other.frame()[14..]].concat();
        prop_assert!(SlicedPacket::from_ethernet(&whole).is_ok());
        prop_assert!(read(&whole).is_some());
    }

    /// The UDP checksum is that of the whole packet, without a look at its payload: of the kernel's own for both.
    #[test]
    fn a_udp_checksum_is_that_of_the_whole_packet(one in plain(), other in plain()) {
        reset();
        // Of one conversation.
        let other = Plain {
            macs: one.macs,
            addresses: one.addresses,
            ports: one.ports,
            tcp: if one.tcp.is_some() == other.tcp.is_some() { other.tcp } else { one.tcp },
            ..other
        };
        let tos = |inner: &Plain| outer_ecn(inner.tos);
        let first = around_with_checksum(&one.frame(), 7, tos(&one));
        let with = tunnel().with_checksums();
        prop_assert!(read_of(&first, tunnel()).is_none());
        prop_assert!(read_of(&around(&one.frame(), 7, tos(&one)), with).is_none());
        let mut outer = read_of(&first, with).expect("it is exactly so");
        let inner = |plain: &Plain| crate::packet::parse::<V4, _>(&FakeSkb::new(&plain.frame())).expect("it is plain");
        let (checksum, length) = (outer.udp_checksum(), outer.length());
        let sum = outer.blank();
        let udp_sum = outer.sum_of_udp(&inner(&one));
        let each = |length, plain: &Plain| Each {
            length,
            identity: 8,
            tos: plain.tos,
            udp_sum,
            without: without_length(&inner(plain)),
        };
        // As it is, or with what the device goes on from, and with nothing else.
        let begun: u32 = first[26..34]
            .chunks(2)
            .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
            .sum::<u32>() + 17 + u32::from(length - 20);
        let own = each(length, &one);
        prop_assert!(outer.is_summed_so(checksum, &own));
        prop_assert!(outer.is_summed_so(csum::fold16(begun).to_be(), &own));
        prop_assert!(!outer.is_summed_so(checksum ^ 0x0101, &own) || csum::fold16(begun).to_be() == checksum ^ 0x0101);
        let length = u16::try_from(other.frame().len() + 36).expect("short");
        outer.fill(each(length, &other), sum);
        let expected = around_with_checksum(&other.frame(), 8, tos(&other));
        prop_assert_eq!(&bytes(&outer)[..], &expected[..64]);
    }

    /// No byte of what is compared may be another.
    #[test]
    fn every_other_byte_is_refused_or_is_one_that_may_differ(inner in plain(), place in 0..64_usize, flip in 1_u8..) {
        reset();
        let packet = around(&inner.frame(), 7, outer_ecn(inner.tos));
        let mut changed = packet.clone();
        changed[place] ^= flip;
        // The IP checksum is right again, so that it is not what tells.
        if (14..34).contains(&place) && !(24..26).contains(&place) {
            changed[24..26].fill(0);
            let sum: u32 = changed[14..34].chunks(2).map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]]))).sum();
            let field = !csum::fold16(sum);
            changed[24..26].copy_from_slice(&field.to_ne_bytes());
        }
        // MAC addresses, TOS, identification, DF, TTL, addresses, source port, MAC addresses inside.
        let may_differ = (0..12).contains(&place) && (place % 6 != 0 || flip & 1 == 0)
            || [15, 18, 19].contains(&place)
            || place == 20 && flip == 0x40
            || place == 22 && changed[22] > 1
            || (26..36).contains(&place)
            || (50..62).contains(&place);
        prop_assert_eq!(read(&changed).is_some(), may_differ, "byte {}", place);
    }
}

#[test]
fn ecn_bits_are_those_of_the_kernel() {
    assert_eq!([0, 1, 2, 3, 0xfc, 0xff].map(outer_ecn), [0, 1, 2, 2, 0, 2]);
}
