//! What stands before a frame in VXLAN over IPv4 (RFC 7348): read where the kernel has just written it, and written again for
//! the packets that follow. Nothing is taken for it that is not exactly so: options of IP or of VXLAN and fragments are left to the
//! kernel.

use netfast_common::{
    csum,
    net::{Address as _, Ip4, MacPair, Port},
    tunnel::{OUTER, OUTER_HALVES, Tunnel},
};

use super::{ECN, ETHERNET, Family as _, Frame, Packet, TCP, UDP, V4};
use crate::ctx::{Header, Skb};

/// Places in halves from the start of the packet: Ethernet, IPv4, UDP, VXLAN, Ethernet.
const ETHERTYPE: usize = 6;
const VERSION_TOS: usize = 7;
const LENGTH: usize = 8;
const IDENTITY: usize = 9;
const FRAGMENT: usize = 10;
const TTL_PROTOCOL: usize = 11;
const CHECKSUM: usize = 12;
const ADDRESSES: usize = 13;
const AFTER_IP: usize = 17;
const DESTINATION_PORT: usize = 18;
const UDP_LENGTH: usize = 19;
const UDP_CHECKSUM: usize = 20;
const FLAGS: usize = 21;
const VNI: usize = 23;
const INNER: usize = 25;
const INNER_ETHERTYPE: usize = 31;

/// Places in bytes of two of them.
const PROTOCOL_PLACE: u32 = 22;
const FLAGS_PLACE: u32 = 42;

/// "The network identifier is valid", and no other flag: those are options and groups (RFC 7348; draft-ietf-nvo3-vxlan-gpe).
const VALID: u32 = 0x0800_0000_u32.to_be();
/// All of IPv4's fragment word but "don't fragment", in wire order.
const FRAGMENTED: u16 = 0xbfff_u16.to_be();
/// Bytes of the outer IPv4 header.
const IP: u16 = 20;

/// All that stands before the network header inside.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Outer(pub [u16; OUTER_HALVES]);

/// An Ethernet header.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Ethernet([u16; 7]);

impl Header for Ethernet {
    const LENGTH: u32 = ETHERNET;
}

impl Header for Outer {
    const LENGTH: u32 = OUTER;
}

/// What differs between packets of one conversation.
#[derive(Clone, Copy)]
pub struct Each {
    /// Bytes of the outer packet, network layer and up.
    pub length: u16,
    /// Identification, in the machine's order.
    pub identity: u16,
    /// TOS or traffic class inside.
    pub tos: u8,
    /// See [`Encap::udp_sum`](netfast_common::tunnel::Encap::udp_sum).
    pub udp_sum: u32,
    /// See [`without_length`].
    pub without: u16,
}

impl Outer {
    /// Where these are kept: the stack has little room.
    #[inline(always)]
    pub const fn within(header: &mut [u16; OUTER_HALVES]) -> &mut Self {
        // SAFETY: `repr(transparent)`.
        unsafe { &mut *core::ptr::from_mut(header).cast::<Self>() }
    }

    /// Reads it from a packet that leaves this tunnel; false if the packet is not exactly so.
    #[inline(always)]
    pub fn read<S: Skb>(&mut self, skb: &S, tunnel: &Tunnel) -> bool {
        self.read_any(skb)
            && self.port() == tunnel.port
            && (self.0[UDP_CHECKSUM] != 0) == tunnel.has_checksums()
            && self.vni() == tunnel.vni
    }

    /// Reads it from a packet that may be of any tunnel; false if the packet is not exactly so.
    #[inline(always)]
    pub fn read_any<S: Skb>(&mut self, skb: &S) -> bool {
        if skb.ethertype() != V4::ETHERTYPE || skb.has_vlan() {
            return false;
        }
        // SAFETY: as many bytes, and halves may have any value.
        let bytes = unsafe { &mut *self.0.as_mut_ptr().cast::<[u8; OUTER as usize]>() };
        if !skb.load_some(0, OUTER, bytes) {
            return false;
        }
        let halves = &self.0;
        let length = u32::from(u16::from_be(halves[LENGTH]));
        halves[ETHERTYPE] == V4::ETHERTYPE
            && halves[VERSION_TOS].to_ne_bytes()[0] == 0x45
            && halves[FRAGMENT] & FRAGMENTED == 0
            && halves[TTL_PROTOCOL].to_ne_bytes()[1] == UDP
            && halves[TTL_PROTOCOL].to_ne_bytes()[0] > 1
            && length + ETHERNET == skb.length()
            && csum::fold16(csum::fold32(self.sum_of_ip())) == 0xffff
            && u32::from(u16::from_be(halves[UDP_LENGTH])) + u32::from(IP) == length
            && word(halves[FLAGS], halves[FLAGS + 1]) == VALID
            && halves[INNER_ETHERTYPE] == V4::ETHERTYPE
            // Neither of the outer addresses is of a group (IEEE 802.3, first bit on the wire).
            && halves[0].to_ne_bytes()[0] & 1 == 0
            && halves[3].to_ne_bytes()[0] & 1 == 0
    }

    /// The UDP port that it is sent to.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        Port::from_wire(self.0[DESTINATION_PORT])
    }

    /// The last word of the VXLAN header in wire order.
    #[inline(always)]
    pub const fn vni(&self) -> u32 {
        word(self.0[VNI], self.0[VNI + 1])
    }

    /// The Ethernet header inside.
    #[inline(always)]
    pub const fn inner_ethernet(&self) -> Ethernet {
        let halves = &self.0;
        Ethernet([
            halves[INNER],
            halves[INNER + 1],
            halves[INNER + 2],
            halves[INNER + 3],
            halves[INNER + 4],
            halves[INNER + 5],
            halves[INNER_ETHERTYPE],
        ])
    }

    /// Sum over the IPv4 header.
    #[inline(always)]
    fn sum_of_ip(&self) -> u64 {
        let mut total = 0;
        let mut i = VERSION_TOS;
        while i < AFTER_IP {
            total += u64::from(self.0[i]);
            i += 1;
        }
        total
    }

    /// TOS of the outer packet.
    #[inline(always)]
    pub const fn tos(&self) -> u8 {
        self.0[VERSION_TOS].to_ne_bytes()[1]
    }

    /// Its length, network layer and up, in bytes.
    #[inline(always)]
    pub const fn length(&self) -> u16 {
        u16::from_be(self.0[LENGTH])
    }

    /// Its identification, in the machine's order.
    #[inline(always)]
    pub const fn identity(&self) -> u16 {
        u16::from_be(self.0[IDENTITY])
    }

    /// The MAC addresses inside.
    #[inline(always)]
    pub const fn inner_macs(&self) -> MacPair {
        let halves = &self.0;
        MacPair::from_wire([
            word(halves[INNER], halves[INNER + 1]),
            word(halves[INNER + 2], halves[INNER + 3]),
            word(halves[INNER + 4], halves[INNER + 5]),
        ])
    }

    /// Whether both are the same. By words: a comparison of this length would become a call of a function that there is none of.
    #[inline(always)]
    pub fn is(&self, other: &[u16; OUTER_HALVES]) -> bool {
        let mut difference = 0;
        let mut i = 0;
        while i < OUTER_HALVES {
            difference |= word(self.0[i], self.0[i + 1]) ^ word(other[i], other[i + 1]);
            i += 2;
        }
        difference == 0
    }

    /// Takes out what differs between packets, and returns the sum over what is left of the IPv4 header.
    #[inline(always)]
    pub fn blank(&mut self) -> u32 {
        let [version, tos] = self.0[VERSION_TOS].to_ne_bytes();
        self.0[VERSION_TOS] = u16::from_ne_bytes([version, tos & !ECN]);
        self.0[LENGTH] = 0;
        self.0[IDENTITY] = 0;
        self.0[CHECKSUM] = 0;
        self.0[UDP_LENGTH] = 0;
        self.0[UDP_CHECKSUM] = 0;
        csum::fold32(self.sum_of_ip())
    }

    /// The UDP checksum.
    #[inline(always)]
    pub const fn udp_checksum(&self) -> u16 {
        self.0[UDP_CHECKSUM]
    }

    /// Of a header that is [blank](Self::blank): the sum over what is constant of that which the UDP checksum is made of. No
    /// byte of the payload is read for it: with a right transport checksum all behind the IP header inside sums up to the
    /// complement of its pseudo-header, and the IP header inside to nothing ("local checksum offload",
    /// Documentation/networking/checksum-offloads.rst). So the kernel counts, too, where it does not leave it to the device.
    #[inline(always)]
    pub fn sum_of_udp(&self, inner: &Packet<Ip4>) -> u32 {
        let mut total = self.sum_of_pseudo_header();
        let mut i = AFTER_IP;
        while i < OUTER_HALVES {
            total += u64::from(self.0[i]);
            i += 1;
        }
        let network = &inner.network;
        if has_pseudo_header(network.protocol) {
            total += u64::from(!network.source.words()[0]) + u64::from(!network.destination.words()[0]);
            total += u64::from(!u16::from(network.protocol).to_be());
        }
        csum::fold32(total)
    }

    /// Addresses and protocol.
    #[inline(always)]
    fn sum_of_pseudo_header(&self) -> u64 {
        let mut total = u64::from(u16::from(UDP).to_be());
        let mut i = ADDRESSES;
        while i < AFTER_IP {
            total += u64::from(self.0[i]);
            i += 1;
        }
        total
    }

    /// Whether the kernel writes this UDP checksum for such a packet: the whole of it, or the sum over the pseudo-header, which the
    /// device goes on from.
    #[inline(always)]
    pub fn is_summed_so(&self, checksum: u16, each: &Each) -> bool {
        let length = each.length.wrapping_sub(IP).to_be();
        let begun = csum::fold16(csum::fold32(self.sum_of_pseudo_header() + u64::from(length)));
        checksum == each.udp_checksum() || checksum == begun
    }

    /// Puts it in, given that sum.
    #[inline(always)]
    pub fn fill(&mut self, each: Each, sum: u32) {
        let ecn = u16::from_ne_bytes([0, outer_ecn(each.tos)]);
        let (length, identity) = (each.length.to_be(), each.identity.to_be());
        self.0[VERSION_TOS] |= ecn;
        self.0[LENGTH] = length;
        self.0[IDENTITY] = identity;
        self.0[UDP_LENGTH] = each.length.wrapping_sub(IP).to_be();
        if each.udp_sum != 0 {
            self.0[UDP_CHECKSUM] = each.udp_checksum();
        }
        let total = u64::from(sum) + u64::from(ecn) + u64::from(length) + u64::from(identity);
        self.0[CHECKSUM] = !csum::fold16(csum::fold32(total));
    }
}

impl Each {
    /// The outer UDP checksum; never the zero that means none.
    #[inline(always)]
    fn udp_checksum(&self) -> u16 {
        let length = u64::from(self.length.wrapping_sub(IP).to_be());
        // Once in the pseudo-header and once in the header.
        let total = u64::from(self.udp_sum) + 2 * length + u64::from(self.without);
        let field = !csum::fold16(csum::fold32(total));
        if field == 0 { 0xffff } else { field }
    }
}

/// What the length of a packet inside adds to the sum that the outer UDP checksum is made of: that of its pseudo-header.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "less than its IP length field, which is a u16"
)]
pub const fn without_length(inner: &Packet<Ip4>) -> u16 {
    if has_pseudo_header(inner.network.protocol) {
        !(inner.network.payload as u16).to_be()
    } else {
        0
    }
}

/// Whether a transport's checksum is made of addresses, too.
#[inline(always)]
const fn has_pseudo_header(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// Two halves as a word in memory order.
#[inline(always)]
const fn word(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

/// The outer ECN bits for a TOS inside (`INET_ECN_encapsulate`, `include/net/inet_ecn.h`): the same, but that congestion which
/// was met before the tunnel is not told again.
#[inline(always)]
pub const fn outer_ecn(tos: u8) -> u8 {
    const CONGESTED: u8 = 3;
    const CAPABLE: u8 = 2;
    if tos & ECN == CONGESTED { CAPABLE } else { tos & ECN }
}

/// Whether a packet that came in so leaves a tunnel with the TOS that it has inside (`INET_ECN_decapsulate`,
/// `include/net/inet_ecn.h`): congestion that was met on the way is not told to it, and it is not one that the kernel wonders about.
#[inline(always)]
pub const fn is_ecn_kept(outer: u8, inner: u8) -> bool {
    const CAPABLE_1: u8 = 1;
    const CAPABLE: u8 = 2;
    const CONGESTED: u8 = 3;
    matches!(
        (outer & ECN, inner & ECN),
        (0, _) | (CAPABLE | CAPABLE_1, CAPABLE_1 | CONGESTED) | (CAPABLE, CAPABLE) | (CONGESTED, CONGESTED)
    )
}

/// Whether a packet may be of a tunnel, as far as can be told at once: UDP with that "valid" and no other flag of VXLAN.
#[inline(always)]
pub fn may_be_outer<S: Skb>(skb: &S) -> bool {
    if skb.ethertype() != V4::ETHERTYPE || skb.length() <= OUTER {
        return false;
    }
    let mut frame = Frame::new(skb.data(), skb.data_end());
    if frame.at::<u8>(OUTER - 1).is_err() {
        if !skb.pull(OUTER) {
            return false;
        }
        frame = Frame::new(skb.data(), skb.data_end());
    }
    let (Ok(two), Ok(flags)) = (frame.at::<u16>(PROTOCOL_PLACE), frame.at::<[u16; 2]>(FLAGS_PLACE)) else {
        return false;
    };
    two.to_ne_bytes()[1] == UDP && word(flags[0], flags[1]) == VALID
}

#[cfg(test)]
mod tests;
