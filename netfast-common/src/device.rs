//! What the programs must be told of an interface, because they cannot see it in a packet.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Ip4, Ip6};

/// A network namespace, by the number that the daemon gave it. The programs that run there have it as a constant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct NetnsNumber(pub u16);

impl NetnsNumber {
    /// The namespace that the daemon serves: the one that it was started in.
    pub const SERVED: Self = Self(0);
}

/// An interface: an ifindex says which only within a network namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DeviceKey {
    /// The namespace that it is in.
    pub netns: NetnsNumber,
    /// Zero.
    reserved: u16,
    /// Its index there.
    pub ifindex: u32,
}

impl DeviceKey {
    /// The interface of this index in this namespace.
    #[inline(always)]
    pub const fn new(netns: NetnsNumber, ifindex: u32) -> Self {
        Self {
            netns,
            reserved: 0,
            ifindex,
        }
    }

    /// The interface of this index in the namespace that the daemon serves.
    pub const fn served(ifindex: u32) -> Self {
        Self::new(NetnsNumber::SERVED, ifindex)
    }
}

/// Its index, with the namespace where that is not the one that the daemon serves.
impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netns {
            NetnsNumber::SERVED => write!(f, "{}", self.ifindex),
            NetnsNumber(number) => write!(f, "{} in namespace {number}", self.ifindex),
        }
    }
}

/// One interface of the host that netfast is attached to; the key is its [`DeviceKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    /// One of [`Kind`]'s numbers.
    kind: u8,
    /// The `flag` constants below.
    pub flags: u8,
    /// Index into the generations and traffic maps; unique among the devices of one moment.
    pub slot: u16,
    /// Endpoints: the container's IPv4 address; zero if it has none.
    pub address4: Ip4,
    /// Endpoints: the MAC address of the container's interface. Others: unused.
    pub mac: [u8; 6],
    /// Zero.
    reserved: [u8; 2],
    /// Endpoints: the container's global IPv6 address; zero if it has none.
    pub address6: Ip6,
    /// Ifindex of the bridge that it is a port of; 0: none.
    pub bridge: u32,
}

/// What an interface is to netfast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The host side of a container's veth.
    Endpoint = 1,
    /// A bridge device with endpoints: the way to and from the host's own stack.
    Bridge = 2,
    /// An interface that leads off the host.
    Uplink = 3,
}

impl Kind {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Bridge => "bridge",
            Self::Uplink => "uplink",
        }
    }
}

impl Device {
    /// Its flows may be learned and used.
    pub const ACCELERATED: u8 = 1;
    /// The veth's other end is in another network namespace: `bpf_redirect_peer` drops otherwise
    /// (net/core/filter.c, `skb_do_redirect`).
    pub const PEER_IN_OTHER_NETNS: u8 = 2;
    /// Something on the device's egress (a qdisc, a filter) must see every packet: no `bpf_redirect_peer`.
    pub const EGRESS_QDISC: u8 = 4;
    /// The endpoint's addresses are not known, or it forwards for others by its owner's wish: its source addresses are
    /// not checked, only its MAC. An uplink: what came in by it may leave by another one on the fast path.
    pub const ANY_SOURCE: u8 = 8;
    /// UDP that nobody has answered yet may be repeated on its flows: no rule judges the packets before the first reply.
    pub const ONE_WAY: u8 = 16;
    /// IPv6 flows may be learned and used as well, if [`ACCELERATED`](Self::ACCELERATED) is set, too.
    pub const IPV6: u8 = 32;
    /// A bridge whose packets pass IP's rules while they are within it (`bridge-nf-call-iptables`), and nothing else that
    /// could change an address: what differs at its device was translated by rules that ask again there.
    pub const IP_TRANSLATES: u8 = 64;
    /// ICMP echo may be learned and used: no rule that is about ICMP judges by the packet.
    pub const ECHO: u8 = 128;

    /// A device of this kind; everything else is zero.
    pub const fn new(kind: Kind, flags: u8, slot: u16) -> Self {
        Self {
            kind: kind as u8,
            flags,
            slot,
            address4: Ip4::from_wire(0),
            mac: [0; 6],
            reserved: [0; 2],
            address6: Ip6::from_wire([0; 4]),
            bridge: 0,
        }
    }

    /// Whether it is a container's veth.
    #[inline(always)]
    pub const fn is_endpoint(&self) -> bool {
        self.kind == Kind::Endpoint as u8
    }

    /// What it is, unless the number is unknown to this build.
    pub const fn kind(&self) -> Option<Kind> {
        match self.kind {
            1 => Some(Kind::Endpoint),
            2 => Some(Kind::Bridge),
            3 => Some(Kind::Uplink),
            _ => None,
        }
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether all of these flags are set.
    #[inline(always)]
    pub const fn has_all(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Packets and bytes (network layer and up, as the kernel's `skb->len` less the Ethernet header) that came in from a
/// device, and went out to it, by the path they took. Per CPU; GSO packets count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Traffic {
    /// Came in from the device and took the fast path.
    pub in_fast_packets: u64,
    /// Bytes of them.
    pub in_fast_bytes: u64,
    /// Came in from the device and took the slow path.
    pub in_slow_packets: u64,
    /// Bytes of them.
    pub in_slow_bytes: u64,
    /// Went out to the device on the fast path.
    pub out_fast_packets: u64,
    /// Bytes of them.
    pub out_fast_bytes: u64,
    /// Endpoints: frames on the slow path that were sent from a MAC, IP or ARP address that is not the endpoint's,
    /// whatever else is about them.
    pub in_spoofed_packets: u64,
    /// Endpoints: packets on the slow path whose headers were cut short, contradicted each other or had a wrong
    /// checksum.
    pub in_malformed_packets: u64,
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for DeviceKey {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Device {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Traffic {}
