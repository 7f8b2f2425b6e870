//! Addresses and ports as they are on the wire.

use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A network-layer address as a flow key holds it.
pub trait Address: Copy + Eq {
    /// The address as 32-bit words in wire order, padded with zero words: what checksums and tags run over.
    fn words(&self) -> [u32; 4];
}

/// An IPv4 address, in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ip4(u32);

impl Ip4 {
    /// From the four bytes of the header.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// From a 32-bit load of the header, not swapped.
    pub const fn from_wire(word: u32) -> Self {
        Self(word)
    }

    /// The four bytes of the header.
    pub const fn bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// What a 32-bit load of the header gives.
    pub const fn wire(self) -> u32 {
        self.0
    }

    /// Multicast (224.0.0.0/4, RFC 5771), limited broadcast, or "this network" (0.0.0.0/8, RFC 1122).
    pub const fn is_unicast(self) -> bool {
        let first = self.bytes()[0];
        first != 0 && first < 224
    }
}

impl Address for Ip4 {
    #[inline(always)]
    fn words(&self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
}

/// An IPv6 address, in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ip6([u32; 4]);

impl Ip6 {
    /// From the sixteen bytes of the header.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let b = bytes;
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// From four 32-bit loads of the header, not swapped.
    pub const fn from_wire(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The sixteen bytes of the header.
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ]
    }

    /// What four 32-bit loads of the header give.
    pub const fn wire(self) -> [u32; 4] {
        self.0
    }

    /// `::`, the address of who has none yet (RFC 4291).
    pub const fn is_unspecified(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// Neither multicast (`ff00::/8`) nor one of those that no packet on a wire has: `::` and `::1` (RFC 4291). The rest of
    /// `::/96`, which nobody has either, is counted among them: a comparison less.
    pub const fn is_unicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] != 0xff && self.0[0] | self.0[1] | self.0[2] != 0
    }

    /// Of one link (`fe80::/10`, RFC 4291): no router passes it on.
    pub const fn is_link_local(self) -> bool {
        let first = self.0[0].to_ne_bytes();
        first[0] == 0xfe && first[1] & 0xc0 == 0x80
    }
}

impl Address for Ip6 {
    #[inline(always)]
    fn words(&self) -> [u32; 4] {
        self.0
    }
}

/// An address of either family, where both are kept in one table: IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2), which no packet
/// of IPv6 on a wire has. In wire order; all zeros: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct AnyIp([u32; 4]);

/// What IPv4 has before its address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl AnyIp {
    /// Of IPv4.
    #[inline(always)]
    pub const fn v4(address: Ip4) -> Self {
        Self([0, 0, MAPPED, address.wire()])
    }

    /// Of IPv6.
    #[inline(always)]
    pub const fn v6(address: Ip6) -> Self {
        Self(address.wire())
    }

    /// Whether it is of IPv4.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// It as one of IPv4; of another it is no address.
    #[inline(always)]
    pub const fn to_v4(self) -> Ip4 {
        Ip4::from_wire(self.0[3])
    }

    /// It as one of IPv6.
    #[inline(always)]
    pub const fn to_v6(self) -> Ip6 {
        Ip6::from_wire(self.0)
    }

    /// What four 32-bit loads of it give.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }
}

impl From<IpAddr> for AnyIp {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(Ip4::from_bytes(address.octets())),
            IpAddr::V6(address) => Self::v6(Ip6::from_bytes(address.octets())),
        }
    }
}

impl From<AnyIp> for IpAddr {
    fn from(address: AnyIp) -> Self {
        if address.is_v4() {
            Self::from(address.to_v4().bytes())
        } else {
            Self::from(address.to_v6().bytes())
        }
    }
}

/// A TCP or UDP port, or what a flow of ICMP echo has in its place, in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Port(u16);

impl Port {
    /// From a number in the machine's order.
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// From a 16-bit load of the header, not swapped.
    pub const fn from_wire(half: u16) -> Self {
        Self(half)
    }

    /// What a 16-bit load of the header gives.
    pub const fn wire(self) -> u16 {
        self.0
    }

    /// The number in the machine's order.
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// The two MAC addresses of an Ethernet header, destination first, as three 32-bit loads.
///
/// They are always compared and copied together, and 32-bit words are what BPF does that with fastest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MacPair([u32; 3]);

impl MacPair {
    /// From the first 12 bytes of a frame, loaded as three words, not swapped.
    pub const fn from_wire(words: [u32; 3]) -> Self {
        Self(words)
    }

    /// From the two addresses.
    pub const fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let (d, s) = (destination, source);
        Self([
            u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
            u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
            u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        ])
    }

    /// The three words, as loaded.
    pub const fn wire(self) -> [u32; 3] {
        self.0
    }

    /// The destination address.
    pub const fn destination(self) -> [u8; 6] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1]]
    }

    /// The source address.
    pub const fn source(self) -> [u8; 6] {
        let (b, c) = (self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes());
        [b[2], b[3], c[0], c[1], c[2], c[3]]
    }

    /// Whether both addresses are unicast: the group bit (IEEE 802.3, first bit on the wire) is clear.
    pub const fn is_unicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 == 0 && self.0[1].to_ne_bytes()[2] & 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mac_pair_is_the_first_twelve_bytes(frame in any::<[u8; 12]>()) {
            let (destination, source) = frame.split_at(6);
            let pair = MacPair::new(destination.try_into().expect("six"), source.try_into().expect("six"));
            prop_assert_eq!(pair.as_bytes(), &frame[..]);
            prop_assert_eq!(&pair.destination()[..], destination);
            prop_assert_eq!(&pair.source()[..], source);
            prop_assert_eq!(MacPair::from_wire(pair.wire()), pair);
            prop_assert_eq!(pair.is_unicast(), destination[0] & 1 == 0 && source[0] & 1 == 0);
        }

        #[test]
        fn an_address_is_its_four_bytes(bytes in any::<[u8; 4]>()) {
            let address = Ip4::from_bytes(bytes);
            prop_assert_eq!(address.as_bytes(), &bytes[..]);
            prop_assert_eq!(address.bytes(), bytes);
            prop_assert_eq!(Ip4::from_wire(address.wire()), address);
            let std = core::net::Ipv4Addr::from(bytes);
            let is_class_e = bytes[0] >= 240;
            let expected = !std.is_multicast() && !std.is_broadcast() && bytes[0] != 0 && !is_class_e;
            prop_assert_eq!(address.is_unicast(), expected);
        }

        #[test]
        fn an_ipv6_address_is_its_sixteen_bytes(mut bytes in any::<[u8; 16]>(), zeros in 0_usize..17, first in any::<u8>()) {
            bytes[..zeros].fill(0);
            if first < 4 {
                bytes[..2].copy_from_slice(&[[0xff, 2], [0xfe, 0x80], [0xfe, 0xbf], [0xfe, 0xc0]][usize::from(first)]);
            }
            let address = Ip6::from_bytes(bytes);
            prop_assert_eq!(address.as_bytes(), &bytes[..]);
            prop_assert_eq!(address.bytes(), bytes);
            prop_assert_eq!(Ip6::from_wire(address.wire()), address);
            let std = core::net::Ipv6Addr::from(bytes);
            let is_low = bytes[..12] == [0; 12];
            prop_assert_eq!(address.is_unspecified(), std.is_unspecified());
            prop_assert_eq!(address.is_unicast(), !std.is_multicast() && !is_low);
            prop_assert_eq!(address.is_link_local(), std.is_unicast_link_local());
        }

        #[test]
        fn an_address_of_either_family_is_that_of_its_family(bytes in any::<[u8; 16]>()) {
            let v4 = AnyIp::v4(Ip4::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            let v6 = AnyIp::v6(Ip6::from_bytes(bytes));
            prop_assert!(v4.is_v4() && !v6.is_v4() && v4 != v6);
            let four = IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
            prop_assert_eq!((AnyIp::from(four), IpAddr::from(v4)), (v4, four));
            let six = IpAddr::from(bytes);
            prop_assert_eq!((AnyIp::from(six), IpAddr::from(v6)), (v6, six));
            prop_assert_eq!(v4.to_v4().bytes(), [bytes[0], bytes[1], bytes[2], bytes[3]]);
            prop_assert!(AnyIp::default().is_none() && !v4.is_none());
        }

        #[test]
        fn a_port_is_its_two_bytes(number in any::<u16>()) {
            let port = Port::new(number);
            prop_assert_eq!(port.as_bytes(), &number.to_be_bytes()[..]);
            prop_assert_eq!(port.number(), number);
            prop_assert_eq!(Port::from_wire(port.wire()), port);
        }
    }
}
