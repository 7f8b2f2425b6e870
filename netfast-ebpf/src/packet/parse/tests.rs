//! The parser against etherparse, and against everything that is not a packet.

use etherparse::{SlicedPacket, TransportSlice};
use netfast_common::net::Ip4;
use proptest::prelude::*;

use super::*;
use crate::{
    ctx::fake::{FakeSkb, Plain, plain},
    fastpath::gate,
    packet::V6,
};

mod echo;

const IPV4: u16 = 0x0800_u16.to_be();

/// What is understood must be what etherparse understands.
fn agrees(frame: &[u8], packet: &Packet<Ip4>) -> Result<(), TestCaseError> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let etherparse::NetSlice::Ipv4(ip) = sliced.net.expect("a network header") else {
        return Err(TestCaseError::fail("not IPv4"));
    };
    let header = ip.header();
    let network = &packet.network;
    prop_assert_eq!(&frame[..6], &packet.macs.destination()[..]);
    prop_assert_eq!(&frame[6..12], &packet.macs.source()[..]);
    prop_assert_eq!(network.source.bytes(), header.source());
    prop_assert_eq!(network.destination.bytes(), header.destination());
    prop_assert_eq!(network.protocol, header.protocol().0);
    prop_assert_eq!(network.tos, header.slice()[1]);
    prop_assert_eq!(network.ttl, header.ttl());
    prop_assert_eq!(network.checksum.to_be(), header.header_checksum());
    prop_assert_eq!(network.length, u32::from(header.total_len()));
    prop_assert_eq!(u16::from_be(network.wire_length), header.total_len());
    prop_assert_eq!(network.payload as usize, ip.payload().payload.len());
    prop_assert_eq!(network.is_padded, frame.len() > 14 + usize::from(header.total_len()));
    prop_assert!(!header.more_fragments() && header.fragments_offset().value() == 0 && header.ihl() == 5);
    let (ports, payload, words) = match sliced.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            prop_assert_eq!(packet.tcp_flags(), tcp.slice()[13]);
            let window = u32::from_ne_bytes(tcp.slice()[12..16].try_into().expect("four"));
            let words = [
                tcp.sequence_number().to_be(),
                tcp.acknowledgment_number().to_be(),
                window,
            ];
            ((tcp.source_port(), tcp.destination_port()), tcp.payload(), words)
        }
        TransportSlice::Udp(udp) => {
            let words = [u32::from(udp.length().to_be()), 0, 0];
            (
                (udp.source_port(), udp.destination_port()),
                &frame[42..14 + usize::from(header.total_len())],
                words,
            )
        }
        TransportSlice::Icmpv4(icmp) => {
            let [a, b, c, d] = icmp.bytes5to8();
            prop_assert!([0, 8].contains(&icmp.type_u8()) && icmp.code_u8() == 0);
            let id = u16::from_be_bytes([a, b]);
            let ports = if icmp.type_u8() == 8 { (id, 0) } else { (0, id) };
            let words = [u32::from_ne_bytes([icmp.type_u8(), 0, c, d]), 0, 0];
            (ports, icmp.payload(), words)
        }
        TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => {
            return Err(TestCaseError::fail("neither TCP, UDP nor ICMP"));
        }
    };
    prop_assert_eq!((packet.source_port.number(), packet.destination_port.number()), ports);
    prop_assert_eq!(packet.transport, words);
    prop_assert_eq!(packet.payload as usize, payload.len());
    prop_assert_eq!(
        packet.payload_offset as usize,
        14 + usize::from(header.total_len()) - payload.len()
    );
    Ok(())
}

fn is_refused(frame: &[u8]) -> Result<(), TestCaseError> {
    let result = FakeSkb::new(frame).parsed();
    prop_assert!(result.is_err(), "{result:?}");
    Ok(())
}

proptest! {
    #[test]
    fn valid_packets_are_understood(packet in plain(), padding in 0_usize..20) {
        let mut frame = packet.frame();
        frame.resize(frame.len() + padding, 0);
        let parsed = FakeSkb::new(&frame).parsed();
        prop_assert!(parsed.is_ok(), "{parsed:?}");
        agrees(&frame, &parsed.expect("checked"))?;
    }

    #[test]
    fn every_prefix_is_refused(packet in plain()) {
        let frame = packet.frame();
        for length in 0..frame.len() {
            is_refused(&frame[..length])?;
        }
    }

    /// Whatever lies in fragments is pulled first; the answer does not depend on it.
    #[test]
    fn what_is_not_linear_is_pulled(packet in plain(), linear in 0_usize..100, no_memory in any::<bool>()) {
        let frame = packet.frame();
        let mut skb = FakeSkb::new(&frame).with_linear(linear);
        skb.no_memory = no_memory;
        match skb.parsed() {
            Ok(packet) => agrees(&frame, &packet)?,
            Err(reason) => {
                prop_assert_eq!(reason, Reason::Malformed);
                prop_assert!(no_memory && linear < frame.len().min(54));
            }
        }
    }

    /// Random bytes behind a sound Ethernet header, with and without an IP header that begins well.
    #[test]
    fn noise_is_refused_or_understood(
        mut frame in prop::collection::vec(any::<u8>(), 0..120),
        linear in 0_usize..120,
        begins_well in any::<bool>(),
    ) {
        if frame.len() >= 34 && begins_well {
            frame[14] = 0x45;
            frame[20] = 0;
            frame[21] = 0;
            let length = u16::try_from(frame.len() - 14).expect("short");
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[23] = [TCP, UDP, crate::packet::echo::ICMP][usize::from(frame[23] % 3)];
            correct(&mut frame);
        }
        let mut skb = FakeSkb::new(&frame).with_linear(linear);
        skb.ethertype = IPV4;
        if let Ok(packet) = skb.parsed() {
            let _ = gate::admit::<V4>(&packet);
            agrees(&frame, &packet)?;
        }
    }

    /// One bit off, its checksum corrected: refused, or understood as what it now is.
    #[test]
    fn a_flipped_bit(packet in plain(), bit in 0_usize..54 * 8) {
        let mut frame = packet.frame();
        prop_assume!(bit / 8 < frame.len());
        frame[bit / 8] ^= 1 << (bit % 8);
        if (24 * 8..26 * 8).contains(&bit) {
            return is_refused(&frame);
        }
        correct(&mut frame);
        if let Ok(packet) = FakeSkb::new(&frame).parsed() {
            agrees(&frame, &packet)?;
        }
    }

    #[test]
    fn a_wrong_ip_checksum(packet in plain(), off in 1_u16..0xffff) {
        let mut frame = packet.frame();
        let right = u16::from_be_bytes([frame[24], frame[25]]);
        frame[24..26].copy_from_slice(&(right ^ off).to_be_bytes());
        let sum_is_same = right ^ off == !right && (right == 0 || right == 0xffff);
        prop_assume!(!sum_is_same);
        prop_assert_eq!(FakeSkb::new(&frame).parsed().err(), Some(Reason::BadIpChecksum));
    }

    /// RFC 793's eight flags, all 256 of them.
    #[test]
    fn only_plain_acknowledgements_are_admitted(flags in any::<u8>()) {
        let mut frame = steady(Vec::new()).frame();
        frame[47] = flags;
        let packet = FakeSkb::new(&frame).parsed().expect("flags are no matter of form");
        let expected = match flags & 0b1_0111 {
            0b1_0000 => Ok(()),
            bits if bits & 0b10 != 0 => Err(Reason::TcpSyn),
            bits if bits & 0b100 != 0 => Err(Reason::TcpRst),
            bits if bits & 0b1 != 0 => Err(Reason::TcpFin),
            _ => Err(Reason::TcpFlags),
        };
        prop_assert_eq!(gate::admit::<V4>(&packet), expected);
    }
}

/// Corrects the IP header's checksum.
fn correct(frame: &mut [u8]) {
    if let Some(header) = frame.get_mut(14..34) {
        header[10..12].fill(0);
        let mut sum = 0_u32;
        for half in header.chunks(2) {
            sum += u32::from(u16::from_be_bytes([half[0], half[1]]));
        }
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
        header[10..12].copy_from_slice(&(!sum).to_be_bytes());
    }
}

fn steady(payload: Vec<u8>) -> Plain {
    Plain {
        macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
        addresses: [[172, 17, 0, 2], [172, 17, 0, 3]],
        ports: [40000, 80],
        ttl: 64,
        tos: 0,
        id: 7,
        df: true,
        tcp: Some((1, 2, 3)),
        payload,
    }
}

/// Test runs refuse them, a driver does not.
#[test]
fn runts() {
    for length in 0..34 {
        let mut skb = FakeSkb::new(&vec![0x45; length]);
        skb.ethertype = IPV4;
        assert_eq!(skb.parsed().err(), Some(Reason::Malformed), "{length} bytes");
    }
}

#[test]
fn a_hardware_tag() {
    let mut skb = FakeSkb::new(&steady(Vec::new()).frame());
    skb.vlan = true;
    assert_eq!(skb.parsed().err(), Some(Reason::Vlan));
}

/// What the kernel says of a packet and what is in it may differ, for instance behind a tunnel.
#[test]
fn the_ethertype_is_looked_at_twice() {
    let mut frame = steady(Vec::new()).frame();
    let mut skb = FakeSkb::new(&frame);
    skb.ethertype = 0x86dd_u16.to_be();
    assert_eq!(skb.parsed().err(), Some(Reason::NotIp));
    frame[13] = 6;
    let mut skb = FakeSkb::new(&frame);
    skb.ethertype = IPV4;
    assert_eq!(skb.parsed().err(), Some(Reason::NotIp));
}

/// IPv4 BIG TCP: a length of 0, and the packet's own counts, but only for GSO packets that are too long to tell it.
#[test]
fn big_tcp() {
    let packet = |bytes: usize, gso_size: u32| {
        let mut frame = steady(Vec::new()).frame();
        frame.resize(bytes, 0x55);
        frame[16..18].fill(0);
        correct(&mut frame);
        let mut skb = FakeSkb::new(&frame).with_linear(54);
        skb.gso_size = gso_size;
        skb.parsed()
    };
    let long = packet(100_014, 1448).expect("BIG TCP");
    assert_eq!((long.network.length, long.network.wire_length), (100_000, 0));
    assert_eq!((long.payload, long.network.is_padded), (99_960, false));
    assert_eq!(crate::packet::segment_length(&long, 1448), 1488);
    assert_eq!(packet(100_014, 0).err(), Some(Reason::Malformed), "no GSO packet");
    assert_eq!(
        packet(14 + 0xffff, 1448).err(),
        Some(Reason::Malformed),
        "a length that could be told"
    );
    assert!(packet(14 + 0x1_0000, 1448).is_ok());
}

/// The same of IPv6.
fn agrees6(frame: &[u8], packet: &Packet<netfast_common::net::Ip6>) -> Result<(), TestCaseError> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else {
        return Err(TestCaseError::fail("not IPv6"));
    };
    let header = ip.header().to_header();
    let network = &packet.network;
    prop_assert_eq!(network.source.bytes(), header.source);
    prop_assert_eq!(network.destination.bytes(), header.destination);
    prop_assert_eq!(network.protocol, header.next_header.0);
    prop_assert_eq!((network.tos, network.ttl), (header.traffic_class, header.hop_limit));
    prop_assert_eq!(u32::from_be(network.identity), header.flow_label.value());
    prop_assert_eq!(network.length, u32::from(header.payload_length) + 40);
    prop_assert_eq!(u16::from_be(network.wire_length), header.payload_length);
    prop_assert_eq!(network.is_padded, frame.len() > 54 + usize::from(header.payload_length));
    let (ports, length) = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => ((tcp.source_port(), tcp.destination_port()), tcp.payload().len()),
        Some(TransportSlice::Udp(udp)) => (
            (udp.source_port(), udp.destination_port()),
            usize::from(header.payload_length) - 8,
        ),
        _ => return Err(TestCaseError::fail("neither TCP nor UDP")),
    };
    prop_assert_eq!((packet.source_port.number(), packet.destination_port.number()), ports);
    prop_assert_eq!(packet.payload as usize, length);
    Ok(())
}

proptest! {
    #[test]
    fn valid_packets_of_ipv6_are_understood(packet in plain(), padding in 0_usize..20, linear in 0_usize..120) {
        let mut frame = packet.frame6();
        frame.resize(frame.len() + padding, 0);
        let parsed = parse::<V6, _>(&FakeSkb::new(&frame).with_linear(linear));
        prop_assert!(parsed.is_ok(), "{parsed:?}");
        agrees6(&frame, &parsed.expect("checked"))?;
    }

    #[test]
    fn every_prefix_of_ipv6_is_refused(packet in plain()) {
        let frame = packet.frame6();
        for length in 14..frame.len() {
            let result = parse::<V6, _>(&FakeSkb::new(&frame[..length]));
            prop_assert!(result.is_err(), "{result:?}");
        }
    }

    /// One bit off: refused, or understood as what it now is.
    #[test]
    fn a_flipped_bit_of_ipv6(packet in plain(), bit in 0_usize..74 * 8) {
        let mut frame = packet.frame6();
        prop_assume!(bit / 8 < frame.len());
        frame[bit / 8] ^= 1 << (bit % 8);
        if let Ok(packet) = parse::<V6, _>(&FakeSkb::new(&frame)) {
            agrees6(&frame, &packet)?;
        }
    }
}

/// IPv6 BIG TCP without a jumbo option: as of IPv4.
#[test]
fn big_tcp_of_ipv6() {
    let packet = |bytes: usize, gso_size: u32| {
        let mut frame = steady(Vec::new()).frame6();
        frame.resize(bytes, 0x55);
        frame[18..20].fill(0);
        let mut skb = FakeSkb::new(&frame).with_linear(74);
        skb.gso_size = gso_size;
        parse::<V6, _>(&skb)
    };
    let long = packet(100_014, 1428).expect("BIG TCP");
    assert_eq!((long.network.length, long.network.wire_length), (100_000, 0));
    assert_eq!((long.payload, long.network.is_padded), (99_940, false));
    assert_eq!(packet(100_014, 0).err(), Some(Reason::Malformed), "no GSO packet");
    assert_eq!(
        packet(14 + 40 + 0xffff, 1428).err(),
        Some(Reason::Malformed),
        "a length that could be told"
    );
    assert!(packet(14 + 40 + 0x1_0000, 1428).is_ok());
}
