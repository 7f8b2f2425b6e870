//! Tunnels: what the kernel puts before a packet that leaves through a VXLAN device (RFC 7348), so that it can be repeated.
//!
//! The kernel's decision about such a packet ends not at the tunnel's device but at the uplink. What it does in between is
//! learned by itself, from any packet that the device is given, whoever sent it: so this is a second flow behind the
//! first one, with a candidate, an age and an end of its own.
//!
//! The way in is the same from the other side: an outer header that the kernel took off a packet at an uplink, and handed what was
//! inside to the tunnel's device, may be taken off the packets that follow and have the same.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{assert_no_padding, device::NetnsNumber, net::Port};

/// Bytes by which a packet grows: IPv4 without options, UDP, VXLAN, and the Ethernet header of the frame inside.
pub const GROWTH: u32 = 20 + 8 + 8 + 14;
/// Bytes up to the network header of the frame inside: what is written before it, its Ethernet header included.
pub const OUTER: u32 = 14 + GROWTH;
/// The same in halves, as it is kept.
pub const OUTER_HALVES: usize = OUTER as usize / 2;
/// VXLAN devices that may have an entry.
pub const TUNNELS: u32 = 1024;
/// Conversations through tunnels whose outer header is known at once; each direction that leaves is one.
pub const ENCAPSULATED: u32 = 16 * 1024;

/// A VXLAN device whose packets may get the outer header that the kernel gave others of their conversation: there is no
/// entry if they may not. The key is its [`DeviceKey`](crate::device::DeviceKey).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tunnel {
    /// The last word of the VXLAN header in wire order: the network identifier, and a zero byte.
    pub vni: u32,
    /// The UDP port that it sends to.
    pub port: Port,
    /// [`Self::CHECKSUMS`], [`Self::WAY_IN`].
    pub flags: u16,
}

impl Tunnel {
    /// Its outer packets have UDP checksums.
    pub const CHECKSUMS: u16 = 1;
    /// Outer headers that are known may be taken off at uplinks, too.
    pub const WAY_IN: u16 = 2;

    /// Of a network identifier (24 bits) and a UDP port.
    pub const fn new(vni: u32, port: u16) -> Self {
        Self {
            vni: (vni << 8).to_be(),
            port: Port::new(port),
            flags: 0,
        }
    }

    /// One whose outer packets have UDP checksums.
    #[must_use]
    pub const fn with_checksums(mut self) -> Self {
        self.flags |= Self::CHECKSUMS;
        self
    }

    /// One whose outer headers may be taken off, too.
    #[must_use]
    pub const fn with_way_in(mut self) -> Self {
        self.flags |= Self::WAY_IN;
        self
    }

    /// Whether its outer headers may be taken off, too.
    #[inline(always)]
    pub const fn has_way_in(&self) -> bool {
        self.flags & Self::WAY_IN != 0
    }

    /// What its packets have when they come in to this network namespace.
    pub const fn end(&self, netns: NetnsNumber) -> End {
        End {
            vni: self.vni,
            port: self.port,
            netns: netns.0,
        }
    }

    /// Whether its outer packets have UDP checksums.
    #[inline(always)]
    pub const fn has_checksums(&self) -> bool {
        self.flags & Self::CHECKSUMS != 0
    }
}

/// What the packets of a VXLAN device have when they come in: the kernel finds the device by it (`vxlan_rcv`,
/// `drivers/net/vxlan/vxlan_core.c`). The value is the device's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct End {
    /// The last word of the VXLAN header in wire order: the network identifier, and a zero byte.
    pub vni: u32,
    /// The UDP port that they are sent to.
    pub port: Port,
    /// The network namespace that the uplink and the device are in.
    pub netns: u16,
}

/// What the kernel took off the packets of one direction of a conversation, and under which conditions that may be repeated. The
/// key is that of the packets as they come in by the tunnel's device, as of their flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Decap {
    /// [`FlowKey::tag`](crate::flow::FlowKey::tag); written first.
    pub tag: u32,
    /// The epoch it was learned in.
    pub epoch: u32,
    /// When it was learned last, `CLOCK_MONOTONIC` coarse, nanoseconds.
    pub learned_ns: u64,
    /// Packets that it was taken off from.
    pub packets: u64,
    /// Bytes of them as they came in, network layer and up.
    pub bytes: u64,
    /// Generation of the uplink that they come in by.
    pub generation: u32,
    /// The uplink.
    pub ifindex: u32,
    /// All that stands before the network header inside, as on the wire, but for what differs between packets, which is zero
    /// here: the outer lengths, identification, checksums and ECN bits.
    pub header: [u16; OUTER_HALVES],
    /// Slot of the uplink.
    pub slot: u16,
    /// Zero.
    pub reserved: u16,
    /// [`FlowKey::tag`](crate::flow::FlowKey::tag) again; written last.
    pub tag_end: u32,
}

assert_no_padding!(Decap, [u32; 2], [u64; 3], [u32; 2], [u16; OUTER_HALVES], [u16; 2], u32);

/// What the kernel put before the packets of one direction of a conversation, and under which conditions it may be repeated. The
/// key is that of the packets as they are given to the tunnel's device, of [`Origin::Tunnel`](crate::flow::Origin::Tunnel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Encap {
    /// [`FlowKey::tag`](crate::flow::FlowKey::tag); written first.
    pub tag: u32,
    /// The epoch it was learned in.
    pub epoch: u32,
    /// When it was learned last, `CLOCK_MONOTONIC` coarse, nanoseconds.
    pub learned_ns: u64,
    /// Packets that got it.
    pub packets: u64,
    /// Bytes of them as they left, network layer and up.
    pub bytes: u64,
    /// Generation of the tunnel's device.
    pub in_generation: u32,
    /// Generation of the uplink.
    pub out_generation: u32,
    /// Slot of the tunnel's device.
    pub in_slot: u16,
    /// Slot of the uplink.
    pub out_slot: u16,
    /// The uplink.
    pub out_ifindex: u32,
    /// `skb->mark` as they are given to the tunnel's device: the outer packet is routed by it.
    pub in_mark: u32,
    /// `skb->mark` as they leave.
    pub mark: u32,
    /// `skb->priority` as they leave.
    pub priority: u32,
    /// One's complement sum over what is constant of the outer IPv4 header.
    pub sum: u32,
    /// All that stands before the network header inside, as on the wire, but for what is written for each packet, which is
    /// zero here: the outer lengths, identification, checksums and ECN bits.
    pub header: [u16; OUTER_HALVES],
    /// The largest network-layer length, in bytes, of a packet inside or of a GSO packet's segments.
    pub max_length: u16,
    /// The next identification, in the machine's order.
    pub identity: u16,
    /// TOS inside, without the two ECN bits: the outer one may be made of it.
    pub dscp: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// One's complement sum over what is constant of that which the outer UDP checksum is made of; 0: there is none.
    pub udp_sum: u32,
    /// [`FlowKey::tag`](crate::flow::FlowKey::tag) again; written last.
    pub tag_end: u32,
}

assert_no_padding!(
    Encap,
    [u32; 2],
    [u64; 3],
    [u32; 2],
    [u16; 2],
    [u32; 5],
    [u16; OUTER_HALVES],
    [u16; 2],
    u8,
    [u8; 3],
    [u32; 2],
);

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Tunnel {}
#[cfg(feature = "aya")]
// SAFETY: no padding, asserted above; every field is an integer, so every bit pattern is valid.
unsafe impl aya::Pod for Encap {}
#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for End {}
#[cfg(feature = "aya")]
// SAFETY: no padding, asserted above; every field is an integer, so every bit pattern is valid.
unsafe impl aya::Pod for Decap {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_identifier_is_where_the_header_has_it() {
        let tunnel = Tunnel::new(0x12_3456, 4789);
        assert_eq!(tunnel.as_bytes(), [0x12, 0x34, 0x56, 0, 0x12, 0xb5, 0, 0]);
        assert!(!tunnel.has_checksums() && tunnel.with_checksums().has_checksums());
        assert_eq!((OUTER, GROWTH, OUTER_HALVES), (64, 50, 32));
    }
}
