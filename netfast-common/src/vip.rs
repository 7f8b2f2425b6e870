//! Virtual addresses: an alias in mode `vip` has one, and the programs give each new connection to it to the next member.
//!
//! The daemon writes services, slots and members; the programs write connections and counts. Slots are of a version: those
//! of a new one are written before the service names it, and those of the old one go afterwards, so no packet sees a
//! mixture.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    alias::{address, part},
    net::{AnyIp, Port},
};

/// Virtual addresses at once.
pub const SERVICES: u32 = 16 * 1024;
/// Slots of all services, in two versions.
pub const SLOTS: u32 = 256 * 1024;
/// Longest sequence of slots of a service that is not by affinity.
pub const MAX_SEQUENCE: u32 = 1024;
/// Slots of a service by affinity: a prime, for Maglev's permutations (Eisenbud and others, NSDI 2016, 3.4).
pub const MAGLEV: u32 = 1021;
/// Members of all services together.
pub const MEMBERS: u32 = 16 * 1024;
/// Connections that saw an answer, by default. Each has two entries.
pub const DEFAULT_CONNECTIONS: u32 = 128 * 1024;
/// Connections that did not, or are closed, by default: what floods here evicts only its like.
pub const DEFAULT_WAITING: u32 = 16 * 1024;
/// Time without a packet after which a UDP conversation is over, in nanoseconds (conntrack's `nf_conntrack_udp_timeout_stream`).
pub const UDP_IDLE_NS: u64 = 120_000_000_000;
/// The same of ICMP echo (`nf_conntrack_icmp_timeout`).
pub const ICMP_IDLE_NS: u64 = 30_000_000_000;

/// What a virtual address stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// [`Alias::id`](crate::alias::Alias::id) of its records: key of its turn, and part of its members' keys.
    pub id: u64,
    /// ifindex of the network's bridge: clients elsewhere get nothing.
    pub bridge: u32,
    /// Which slots are its slots.
    pub version: u32,
    /// How many there are; 0: nobody is eligible.
    pub slots: u32,
    /// The `flag` constants below.
    pub flags: u32,
}

impl Service {
    /// The slot is chosen by the client's address, not by turn.
    pub const AFFINITY: u32 = 1;
}

/// Key of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotKey {
    /// [`Service::id`].
    pub service: u64,
    /// [`Service::version`].
    pub version: u32,
    /// Less than [`Service::slots`].
    pub slot: u32,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    /// The member's address on the network.
    pub address: AnyIp,
    /// The MAC address of its interface there.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// A container that has the alias, well or not. The key is an [`alias::MemberKey`](crate::alias::MemberKey).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Member {
    /// 1: it may be given; 0: it keeps what it has.
    pub eligible: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a member was given. The key is an [`alias::MemberKey`](crate::alias::MemberKey).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendStats {
    /// Connections, each counted when the member was chosen for it.
    pub connections: u64,
    /// Those of them that it refused or did not answer, and that were given to another one, where they are counted again.
    pub retried: u64,
    /// Packets of both directions on the slow path; GSO packets count as one.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the virtual address.
    ToVip = 0,
    /// From the member to the client.
    FromMember = 1,
}

/// A connection as one of its directions is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnKey {
    /// The client's address.
    pub client: AnyIp,
    /// The virtual address, or the member's.
    pub remote: AnyIp,
    /// The client's port; of ICMP echo its identifier.
    pub client_port: Port,
    /// The port that it talks to; of ICMP echo zero.
    pub remote_port: Port,
    /// The host side of the client's veth.
    pub ifindex: u32,
    /// IANA protocol number: 6 (TCP), 17 (UDP), or 1 (ICMP) and with IPv6 58.
    pub protocol: u8,
    /// [`Direction`] as a number.
    pub direction: u8,
    /// The network namespace that the interface is in, as in [`FlowKey`](crate::flow::FlowKey).
    pub netns: u16,
}

impl ConnKey {
    /// A number that two different keys rarely share, stored in the entry at both ends: see
    /// [`FlowKey::tag`](crate::flow::FlowKey::tag).
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        let ports = u64::from(self.client_port.wire()) << 16 | u64::from(self.remote_port.wire());
        let (client, remote) = (self.client.words(), self.remote.words());
        let mut mix = (u64::from(self.ifindex) << 32 | ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut i = 0;
        while i < client.len() {
            mix ^= mix >> 29;
            mix = (mix ^ (u64::from(client[i]) << 32 | u64::from(remote[i]))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            i += 1;
        }
        mix ^= u64::from(self.protocol) << 40 | u64::from(self.direction) << 32;
        // Zero is the tag of an element that was never written.
        #[expect(clippy::cast_possible_truncation, reason = "half of a mixed number")]
        let tag = ((mix ^ mix >> 29) >> 16) as u32;
        tag | 1
    }
}

/// What is remembered of a connection, once for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Conn {
    /// [`ConnKey::tag`]; written first.
    pub tag: u32,
    /// What the client has sent: the `flag` constants below.
    pub from_client: u8,
    /// What the member has sent.
    pub from_member: u8,
    /// 1: the client is the member.
    pub hairpin: u8,
    /// Zero.
    pub reserved: u8,
    /// [`Service::id`].
    pub service: u64,
    /// When a packet of this direction took the slow path last, `CLOCK_MONOTONIC` coarse, nanoseconds.
    pub used_ns: u64,
    /// The virtual address.
    pub vip: AnyIp,
    /// The member.
    pub backend: Backend,
    /// Zero.
    pub reserved_end: u32,
    /// [`ConnKey::tag`] again; written last.
    pub tag_end: u32,
}

impl Conn {
    /// A packet was seen that did not refuse the connection.
    pub const SEEN: u8 = 1;
    /// A TCP FIN.
    pub const FIN: u8 = 2;
    /// A TCP RST.
    pub const RST: u8 = 4;

    /// Whether the next SYN with the same ports is of another connection.
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        self.from_client & self.from_member & Self::FIN != 0 || (self.from_client | self.from_member) & Self::RST != 0
    }
}

/// The SYN that opened a connection: if its member refuses it, another one gets it. The key is the [`ConnKey`] of
/// [`Direction::ToVip`]. With [`Direction::FromMember`] it is one that the client sent straight to the member by the ports of a
/// connection to its virtual address; of that only the sequence number is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Syn {
    /// [`ConnKey::tag`]; written first.
    pub tag: u32,
    /// Bytes of `headers`.
    pub length: u32,
    /// Its sequence number, in wire order.
    pub sequence: u32,
    /// Members before the present one.
    pub tries: u32,
    /// They, as far as there are; zero: none.
    pub tried: [AnyIp; Syn::MORE as usize],
    /// Ethernet, network and TCP header as the client sent them, and zeros. The TCP checksum may be the pseudo header's alone.
    pub headers: [u16; Syn::ROOM],
    /// [`ConnKey::tag`] again; written last.
    pub tag_end: u32,
}

impl Syn {
    /// Members that a connection may be given to after the first one.
    pub const MORE: u32 = 2;
    /// Bytes of the longest headers, those of IPv6: those of TCP are 60 at most.
    pub const LONGEST: u32 = 14 + 40 + 60;
    /// Halves of words that there is room for.
    pub const ROOM: usize = 64;
    /// After so long without an answer a SYN seen again goes to another member, in nanoseconds. Clients send it again after a
    /// second (RFC 6298, 2.1).
    pub const SILENT_NS: u64 = 500_000_000;
}

/// The number by which a client's slot is chosen where the same client is to get the same member.
#[inline(always)]
pub const fn affinity(client: &AnyIp) -> u64 {
    part(address(client))
}

/// Entries of the map of verdicts.
pub const VERDICTS: u32 = 32;

crate::verdicts! {
    /// What became of a packet to a virtual address or of one of its connections, counted. Numbers are never used again
    /// for something else.
    Verdict
    1 Chosen "chosen" "a new connection was given to a member";
    2 Kept "kept" "a packet of a known connection went to its member";
    3 Returned "returned" "a member's packet went back under the virtual address";
    4 SynAgain "syn-again" "a SYN that was seen before went to the same member";
    5 Hairpin "hairpin" "a packet of a member that was given itself";
    6 IcmpError "icmp-error" "an ICMP error about a packet of a connection was translated";
    7 Refused "refused" "nobody is eligible: a SYN was answered with a reset";
    8 Nobody "nobody" "nobody is eligible: left to the host, which answers that there is no way there";
    9 NoConnection "no-connection" "a TCP packet of no known connection, or an ICMP message about none: left alone";
    10 OtherBridge "other-bridge" "to the virtual address of another network: left alone";
    11 Spoofed "spoofed" "the source MAC or IP address is not the endpoint's: left alone";
    12 Unreadable "unreadable" "fragments, options, wrong checksums, or cut short: left alone";
    13 OtherProtocol "other-protocol" "neither TCP, UDP nor ICMP echo: left alone";
    14 Unwritable "unwritable" "the kernel refused to make the packet writable";
    15 InUse "in-use" "the client talks to each member that was tried by the same ports already: left alone";
    16 NoSlot "no-slot" "the daemon was replacing the members at this moment: left alone";
    17 TableFull "table-full" "the table of connections refused the connection: left alone";
    18 Retried "retried" "a SYN that its member refused or did not answer was given to another member";
    19 Taken "taken" "a SYN straight to a member, sent twice by the ports of a live connection: answered with a reset";
}

#[cfg(feature = "aya")]
mod pod {
    // SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
    unsafe impl aya::Pod for crate::net::AnyIp {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SlotKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Backend {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Member {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::BackendStats {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ConnKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Conn {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verdicts_fit_the_map_and_rise() {
        crate::verdicts::assert_fit_and_rise!(Verdict, 0, VERDICTS);
    }

    #[test]
    fn closed_by_both_or_by_a_reset() {
        let closed = |from_client, from_member| {
            let conn = Conn {
                from_client,
                from_member,
                ..Conn::default()
            };
            conn.is_closed()
        };
        let (seen, fin, rst) = (Conn::SEEN, Conn::FIN, Conn::RST);
        assert!(closed(seen | fin, seen | fin) && closed(seen | rst, seen) && closed(seen, rst));
        assert!(!closed(seen | fin, seen) && !closed(seen, seen | fin) && !closed(seen, seen) && !closed(0, 0));
    }

    proptest! {
        /// A change of any one byte of the key changes the tag, or one in some thousand million does not.
        #[test]
        fn tags_tell_keys_apart(bytes in any::<[u8; 42]>(), place in 0_usize..42, change in 1_u8..) {
            let tag = |bytes: &[u8]| {
                let mut whole = [0; 44];
                whole[..42].copy_from_slice(bytes);
                ConnKey::read_from_bytes(&whole).expect("as long").tag()
            };
            let mut other = bytes;
            other[place] ^= change;
            prop_assert_ne!(tag(&bytes), tag(&other));
        }
    }
}
