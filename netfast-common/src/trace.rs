//! What `netfast trace` asks of the programs, and what they tell it.
//!
//! Nothing of it costs anything while nobody traces: the programs compare one number that they have at hand
//! ([`Control::traced_until`](crate::control::Control::traced_until)).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Ip4, Port};

/// Bytes of each packet that are copied, Ethernet header included: headers with options, and a bit more.
pub const CAPTURE: u32 = 160;
/// Bytes of the ring buffer: about 2,500 packets.
pub const RING_BYTES: u32 = 512 * 1024;
/// Devices that a filter can name.
pub const DEVICES: usize = 8;

/// A step of the clock of [`Control::traced_until`](crate::control::Control::traced_until), for a time in nanoseconds:
/// 2^30 ns, about a second.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "2^32 steps are a century")]
pub const fn step(ns: u64) -> u32 {
    (ns >> 30) as u32
}

/// Which packets are wanted. Zero in a field means all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// Interfaces that a packet enters or leaves by; the first zero ends the list.
    pub devices: [u32; DEVICES],
    /// Source or destination as the packet enters.
    pub address: Ip4,
    /// Source or destination as the packet enters.
    pub port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`FAST`](Self::FAST), [`SLOW`](Self::SLOW), or both.
    pub paths: u8,
    /// A reason's number.
    pub reason: u32,
    /// One of so many packets is shown, chosen by chance.
    pub sample: u32,
    /// At most so many packets are shown in a [`step`] of time, on each CPU.
    pub limit: u32,
    /// Zero.
    pub reserved: u32,
}

impl Filter {
    /// Packets on the fast path.
    pub const FAST: u8 = 1;
    /// Packets on the slow path.
    pub const SLOW: u8 = 2;
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Traced {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The interface it entered by.
    pub ifindex: u32,
    /// The interface it leaves by on the fast path; 0 on the slow path.
    pub out_ifindex: u32,
    /// Number of the reason; 0: the fast path.
    pub reason: u32,
    /// Its length in bytes, Ethernet header included.
    pub length: u32,
    /// Bytes of it that follow.
    pub captured: u32,
    /// Payload bytes of each segment of a GSO packet; 0 if it is none.
    pub gso_size: u32,
    /// Its first bytes as it entered.
    pub bytes: [u8; CAPTURE as usize],
}

/// What became of packets that a filter wanted, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tally {
    /// Packets that the filter wanted.
    pub wanted: u64,
    /// Of those: shown.
    pub shown: u64,
    /// Of those: left out by the limit.
    pub limited: u64,
    /// Of those: lost, because the ring buffer was full.
    pub lost: u64,
    /// The step of time that is being counted.
    pub step: u32,
    /// Packets in it.
    pub in_step: u32,
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Filter {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Tally {}
