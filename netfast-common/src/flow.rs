//! Flows: what the programs remember of the kernel's verdicts.

use crate::{
    assert_no_padding,
    net::{Address, Ip4, Ip6, MacPair, Port},
};

/// Where a packet entered the host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// It came in from the interface.
    Wire = 0,
    /// The host's own stack sent it out through the (bridge) interface.
    Host = 1,
    /// It was given to the (tunnel's) interface, whoever sent it: see [`tunnel`](crate::tunnel).
    Tunnel = 2,
}

/// One direction of one conversation, where it enters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; of a request of ICMP echo its identifier, of a reply 0.
    pub source_port: Port,
    /// Destination port; of a reply of ICMP echo its identifier, of a request 0.
    pub destination_port: Port,
    /// The interface it enters by.
    pub ifindex: u32,
    /// IANA protocol number: 6 (TCP), 17 (UDP), or 1 (ICMP) and with IPv6 58.
    pub protocol: u8,
    /// [`Origin`] as a number.
    pub origin: u8,
    /// The network namespace that the interface is in.
    pub netns: u16,
}

impl<A: Address> FlowKey<A> {
    /// A number that two different keys rarely share. It is stored in the flow, at both ends of the value, because an
    /// element of a hash map may be given to another key while a program reads it (kernel/bpf/hashtab.c reuses
    /// preallocated elements at once).
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        let (source, destination) = (self.source.words(), self.destination.words());
        let ports = u64::from(self.source_port.wire()) << 16 | u64::from(self.destination_port.wire());
        let mut mix = u64::from(self.ifindex) << 32 | ports;
        let mut i = 0;
        while i < size_of::<A>() / 4 {
            mix = (mix ^ (u64::from(source[i]) << 32 | u64::from(destination[i]))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mix ^= mix >> 29;
            i += 1;
        }
        // Into bits that are kept.
        mix ^= u64::from(self.netns) << 48 | u64::from(self.protocol) << 40 | u64::from(self.origin) << 32;
        // Zero is the tag of an element that was never written.
        #[expect(clippy::cast_possible_truncation, reason = "half of a mixed number")]
        let tag = (mix >> 16) as u32;
        tag | 1
    }
}

impl<A> FlowKey<A> {
    /// The same with addresses of another type.
    pub fn with_addresses<B>(self, convert: impl Fn(A) -> B) -> FlowKey<B> {
        FlowKey {
            source: convert(self.source),
            destination: convert(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            ifindex: self.ifindex,
            protocol: self.protocol,
            origin: self.origin,
            netns: self.netns,
        }
    }
}

/// How a flow's packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// `bpf_redirect_peer` into the container behind the veth: no second trip through the CPU's backlog queue.
    Peer = 1,
    /// `bpf_redirect` to the egress of the interface.
    Device = 2,
    /// `bpf_redirect` to the ingress of the bridge device: the host's own stack.
    Host = 3,
}

/// What the kernel did to the packets of a flow, and under which conditions it may be repeated.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Flow<A> {
    /// [`FlowKey::tag`]; written first.
    pub tag: u32,
    /// The epoch it was learned in.
    pub epoch: u32,
    /// When it was learned last, `CLOCK_MONOTONIC` coarse, nanoseconds; 0: the kernel must be asked, or the daemon, before
    /// it is used.
    pub learned_ns: u64,
    /// When it was used last, the same clock; of a flow that is not vetted: when that was asked for last.
    pub used_ns: u64,
    /// When it was learned first, the same clock.
    pub created_ns: u64,
    /// Packets that took the fast path.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
    /// Generation of the device it enters by.
    pub in_generation: u32,
    /// Generation of the device it leaves by.
    pub out_generation: u32,
    /// Slot of the device it enters by.
    pub in_slot: u16,
    /// Slot of the device it leaves by.
    pub out_slot: u16,
    /// The interface it leaves by.
    pub out_ifindex: u32,
    /// Source address as it leaves.
    pub source: A,
    /// Destination address as it leaves.
    pub destination: A,
    /// Source port as it leaves.
    pub source_port: Port,
    /// Destination port as it leaves.
    pub destination_port: Port,
    /// Change of the addresses' checksum, see [`crate::csum::difference`].
    pub address_difference: u32,
    /// Change of the ports' checksum.
    pub port_difference: u32,
    /// MAC addresses as it enters: a packet with others is not of this flow.
    pub in_macs: MacPair,
    /// MAC addresses as it leaves.
    pub out_macs: MacPair,
    /// `skb->mark` as it leaves (routing and shaping may depend on it).
    pub mark: u32,
    /// `skb->priority` as it leaves.
    pub priority: u32,
    /// The largest network-layer length, in bytes, of a packet or of a GSO packet's segments, that may be used.
    pub max_length: u16,
    /// [`Exit`] as a number.
    pub exit: u8,
    /// The `flag` constants below.
    pub flags: u8,
    /// TOS or traffic class without the two ECN bits: rules and routes may depend on it.
    pub dscp: u8,
    /// 1: it keeps to the backlog queue, because it sent GSO packets a moment ago.
    pub bulk: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// [`FlowKey::tag`] again; written last.
    pub tag_end: u32,
}

impl<A> Flow<A> {
    /// The TTL or hop limit is one less as it leaves.
    pub const ROUTED: u8 = 1;
    /// MAC addresses, addresses, ports or TTL differ: the packet must be written to.
    pub const REWRITTEN: u8 = 2;
    /// Addresses or ports differ: the transport checksum must be corrected.
    pub const TRANSLATED: u8 = 4;
    /// The daemon has looked at its conntrack entry, see [`vet`](crate::vet).
    pub const VETTED: u8 = 8;
    /// A conntrack helper works on it: it is never used.
    pub const HELPED: u8 = 16;
    /// It asks the kernel because its other direction has just done so.
    pub const PROMPTED: u8 = 32;
    /// UDP that may be used before it is answered: to conntrack each packet is one of a new conversation, and so its verdict
    /// is that of the next.
    pub const ONE_WAY: u8 = 64;
    /// Those of the flags that say what is done to a packet.
    pub const MAPPING: u8 = Self::ROUTED | Self::REWRITTEN | Self::TRANSLATED;
}

impl<A> Flow<A> {
    /// The same with addresses of another type.
    pub fn with_addresses<B>(self, convert: impl Fn(A) -> B) -> Flow<B> {
        Flow {
            tag: self.tag,
            epoch: self.epoch,
            learned_ns: self.learned_ns,
            used_ns: self.used_ns,
            created_ns: self.created_ns,
            packets: self.packets,
            bytes: self.bytes,
            in_generation: self.in_generation,
            out_generation: self.out_generation,
            in_slot: self.in_slot,
            out_slot: self.out_slot,
            out_ifindex: self.out_ifindex,
            source: convert(self.source),
            destination: convert(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            address_difference: self.address_difference,
            port_difference: self.port_difference,
            in_macs: self.in_macs,
            out_macs: self.out_macs,
            mark: self.mark,
            priority: self.priority,
            max_length: self.max_length,
            exit: self.exit,
            flags: self.flags,
            dscp: self.dscp,
            bulk: self.bulk,
            reserved: self.reserved,
            tag_end: self.tag_end,
        }
    }
}

impl<A: Address + Default> Flow<A> {
    /// Where the other direction of the conversation enters, this flow being that of `key`.
    #[inline(always)]
    pub fn reverse_key(&self, key: &FlowKey<A>) -> FlowKey<A> {
        let mut reverse = FlowKey::default();
        self.write_reverse_key(key, &mut reverse);
        reverse
    }
}

impl<A: Address> Flow<A> {
    /// The same, written where it is to be. Field by field: a long key has no room among registers and none on a program's
    /// stack.
    #[inline(always)]
    pub fn write_reverse_key(&self, key: &FlowKey<A>, to: &mut FlowKey<A>) {
        to.source = self.destination;
        to.destination = self.source;
        to.source_port = self.destination_port;
        to.destination_port = self.source_port;
        to.ifindex = self.out_ifindex;
        to.protocol = key.protocol;
        to.origin = if self.exit == Exit::Host as u8 {
            Origin::Host as u8
        } else {
            Origin::Wire as u8
        };
        to.netns = key.netns;
    }

    /// Whether two flows of `key` have the same other direction.
    #[inline(always)]
    pub fn has_same_reverse(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.source_port == other.source_port
            && self.destination_port == other.destination_port
            && self.out_ifindex == other.out_ifindex
            && (self.exit == Exit::Host as u8) == (other.exit == Exit::Host as u8)
    }

    /// Whether this flow is the other direction of the one with this key: it leaves where that one enters, with its
    /// addresses swapped. Without this check a container could pair its own packets with a neighbour's.
    #[inline(always)]
    pub fn is_reverse_of(&self, key: &FlowKey<A>) -> bool {
        let host = self.exit == Exit::Host as u8;
        self.out_ifindex == key.ifindex
            && host == (key.origin == Origin::Host as u8)
            && self.source == key.destination
            && self.destination == key.source
            && self.source_port == key.destination_port
            && self.destination_port == key.source_port
    }
}

assert_no_padding!(FlowKey<Ip4>, Ip4, Ip4, Port, Port, u32, u8, u8, u16);
assert_no_padding!(FlowKey<Ip6>, Ip6, Ip6, Port, Port, u32, u8, u8, u16);
assert_no_padding!(
    Flow<Ip4>,
    [u32; 2],
    [u64; 5],
    [u32; 2],
    [u16; 2],
    u32,
    [Ip4; 2],
    [Port; 2],
    [u32; 2],
    [MacPair; 2],
    [u32; 2],
    u16,
    [u8; 2],
    [u8; 4],
    u32,
);
assert_no_padding!(
    Flow<Ip6>,
    [u32; 2],
    [u64; 5],
    [u32; 2],
    [u16; 2],
    u32,
    [Ip6; 2],
    [Port; 2],
    [u32; 2],
    [MacPair; 2],
    [u32; 2],
    u16,
    [u8; 2],
    [u8; 4],
    u32,
);

#[cfg(feature = "aya")]
// SAFETY: no padding, asserted above; every field is an integer, so every bit pattern is valid.
unsafe impl aya::Pod for FlowKey<Ip4> {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Flow<Ip4> {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey<Ip6> {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Flow<Ip6> {}

#[cfg(test)]
mod tests;
