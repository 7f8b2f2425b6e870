//! Makes of a SYN the reset that refuses it (RFC 9293, 3.5.2).

use netfast_common::{csum, net::Ip4};

use super::segment::Segment;
use crate::{
    ctx::{Header, Skb},
    packet::{
        ETHERNET, Packet,
        family::Family as _,
        ipv4::{Ends, V4, halves},
    },
};

/// Bytes of an IPv4 and of a TCP header without options.
const IP: u32 = 20;
const TCP: u32 = 20;
/// Offset of the urgent pointer, the last field, in a TCP header.
const URGENT: u32 = 18;
/// As Linux sends it.
const TTL: u8 = 64;
/// "Don't fragment" in the second half of the word of identification and fragment.
const DONT_FRAGMENT: [u16; 2] = [0, 0x4000_u16.to_be()];
/// Offset of the data in words, and RST with ACK, as the first half of their word; the window is zero.
const FLAGS: u16 = u16::from_ne_bytes([0x50, 0x14]);

/// The packet up to its checksum.
#[repr(C)]
struct Reset {
    macs: [[u16; 2]; 3],
    ethertype: u16,
    version_tos: [u8; 2],
    length: u16,
    id_fragment: [u16; 2],
    ttl_protocol: [u8; 2],
    checksum: u16,
    source: [u16; 2],
    destination: [u16; 2],
    ports: [u16; 2],
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    flags: u16,
    window: u16,
}

impl Header for Reset {
    const LENGTH: u32 = 50;
}

const _: () = assert!(size_of::<Reset>() == Reset::LENGTH as usize);

/// Makes of a client's SYN its refusal by whom it was sent to. `false` leaves it as it was, but that it may have been cut
/// to a bare header.
///
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than a number of 16 bits")]
pub fn reset<S: Skb>(skb: &S, packet: &Packet<Ip4>) -> bool {
    let Some(old) = Segment::of(skb, packet).filter(|_| skb.resize(ETHERNET + IP + TCP)) else {
        return false;
    };
    let ends = Ends::of(packet).swapped();
    let macs = ends.macs.wire();
    let acknowledgement = u32::from_be(packet.transport[0]).wrapping_add(1).to_be();
    let mut header = Reset {
        macs: [halves(macs[0]), halves(macs[1]), halves(macs[2])],
        ethertype: V4::ETHERTYPE,
        version_tos: [0x45, packet.network.tos],
        length: (IP as u16 + TCP as u16).to_be(),
        id_fragment: DONT_FRAGMENT,
        ttl_protocol: [TTL, packet.network.protocol],
        checksum: 0,
        source: halves(ends.source.wire()),
        destination: halves(ends.destination.wire()),
        ports: [packet.destination_port.wire(), packet.source_port.wire()],
        sequence: [0; 2],
        acknowledgement: halves(acknowledgement),
        flags: FLAGS,
        window: 0,
    };
    let half = |bytes: [u8; 2]| u64::from(u16::from_ne_bytes(bytes));
    let network = half(header.version_tos)
        + u64::from(header.length)
        + u64::from(header.id_fragment[1])
        + half(header.ttl_protocol)
        + ends.sum();
    header.checksum = !csum::fold16(csum::fold32(network));
    let sum = u64::from(packet.source_port.wire())
        + u64::from(packet.destination_port.wire())
        + u64::from(acknowledgement)
        + u64::from(FLAGS);
    // Linear and ours alone, as `resize` leaves it.
    if !skb.store_header(&header) || !skb.store_half(V4::TRANSPORT + URGENT, 0) {
        return false;
    }
    old.becomes(skb, ends.sum(), TCP, || sum)
}
