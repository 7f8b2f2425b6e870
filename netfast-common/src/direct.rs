//! Direct forwarding: on a bridge where nobody judges packets, they go from container to container by their MAC
//! addresses, whatever is in them, from the first one on.
//!
//! That nobody judges is what the daemon has looked for. It says so by the entries of a map, which end with the
//! generation of their device, and by a lease that only a living daemon renews
//! ([`Control::direct_until_ns`](crate::control::Control::direct_until_ns)).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::NetnsNumber;

/// Time that the lease lasts, in nanoseconds.
pub const LEASE_NS: u64 = 700_000_000;
/// Pairs of ports that keep time, see [`Pace`]; a power of two. Those that share a place send one slow packet for both.
pub const PAIRS: u32 = 32 * 1024;

/// What a port is found by: as the source of packets by its own ifindex and the MAC address behind it, as their
/// destination by the ifindex of its bridge and the same MAC address. An index is not both of a port and of a bridge.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortKey {
    /// The interface: port or bridge.
    ifindex: u32,
    /// The first bytes of the MAC address, as they are loaded.
    head: u32,
    /// Its last two bytes.
    tail: u16,
    /// The namespace that the interface is in.
    netns: NetnsNumber,
}

impl PortKey {
    /// The station with this MAC address behind this port, or on this bridge.
    #[inline(always)]
    pub const fn new(netns: NetnsNumber, ifindex: u32, mac: [u8; 6]) -> Self {
        Self {
            ifindex,
            head: u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]),
            tail: u16::from_ne_bytes([mac[4], mac[5]]),
            netns,
        }
    }

    /// A number that two different keys rarely share. It is stored at both ends of the value, because an element of a hash
    /// map may be given to another key while a program reads it, see [`FlowKey::tag`](crate::flow::FlowKey::tag).
    #[inline(always)]
    pub const fn tag(&self) -> u32 {
        let mac = (self.head as u64) << 32 | (self.tail as u64) << 16;
        let mix = (mac ^ self.ifindex as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Zero is the tag of an element that was never written.
        (mix >> 32) as u32 | 1
    }
}

/// A port of a bridge where nobody judges packets, with one container behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Port {
    /// [`PortKey::tag`]; written first.
    pub tag: u32,
    /// The bridge.
    pub bridge: u32,
    /// The port itself.
    pub ifindex: u32,
    /// The generation of its slot in which this was true.
    pub generation: u32,
    /// Bytes of the longest packet that it takes, network layer and up; GSO packets may be longer.
    pub max_length: u32,
    /// Its slot.
    pub slot: u16,
    /// How packets to it leave: [`Exit::Peer`](crate::flow::Exit::Peer) or [`Exit::Device`](crate::flow::Exit::Device).
    pub exit: u8,
    /// Zero.
    pub reserved: u8,
    /// The same as [`tag`](Self::tag); written last.
    pub tag_end: u32,
}

/// A step of the clock of [`Pace`], for a time in nanoseconds: 2^20 ns, about a millisecond.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "differences count, of seconds")]
pub const fn step(ns: u64) -> u32 {
    (ns >> 20) as u32
}

/// When packets went from one port to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pace {
    /// The [`step`] in which the last one took the slow path; 0: none has gone yet.
    pub slow: u32,
    /// That in which the last one went at all.
    pub used: u32,
    /// Not 0: GSO packets went, and none of them can have left the queue of the receiving device before a pause.
    pub bulk: u32,
}

/// Where a pair of ports keeps time, by their slots.
#[inline(always)]
pub const fn pair(from: u16, to: u16) -> u32 {
    ((from as u32) << 8 ^ to as u32) & (PAIRS - 1)
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for PortKey {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Port {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Pace {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_in_each_part_and_so_do_their_tags() {
        let mac = [2, 0x42, 0xac, 0x11, 0, 2];
        let key = |ifindex, mac| PortKey::new(NetnsNumber::SERVED, ifindex, mac);
        let one = key(3, mac);
        for at in 0..6 {
            let mut other = mac;
            other[at] ^= 1;
            assert_ne!(key(3, other), one);
            assert_ne!(key(3, other).tag(), one.tag());
        }
        assert_ne!(key(4, mac), one);
        assert_ne!(key(4, mac).tag(), one.tag());
        assert_ne!(PortKey::new(NetnsNumber(1), 3, mac), one);
        assert_ne!(one.tag(), 0);
    }

    #[test]
    fn pairs_of_a_small_host_have_places_of_their_own() {
        let mut taken = [0_u64; PAIRS as usize / 64];
        for from in 0..120 {
            for to in 0..120 {
                let place = pair(from, to) as usize;
                let bit = 1 << (place % 64);
                assert_eq!(taken[place / 64] & bit, 0, "{from} and {to}");
                taken[place / 64] |= bit;
            }
        }
    }
}
