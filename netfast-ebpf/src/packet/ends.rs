//! What virtual addresses need of an IP version, besides what all flows need: other ends for a packet whose ports stay.

use netfast_common::{
    net::{Address, AnyIp, MacPair},
    reason::Reason,
};

use super::{Frame, Packet, family::Family, halves};
use crate::ctx::Headers;

/// Who sends a packet to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends<A> {
    /// MAC addresses.
    pub macs: MacPair,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
}

impl<A: Address> Ends<A> {
    /// Those of a packet.
    #[inline(always)]
    pub const fn of(packet: &Packet<A>) -> Self {
        Self {
            macs: packet.macs,
            source: packet.network.source,
            destination: packet.network.destination,
        }
    }

    /// The same, the other way.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(&self) -> Self {
        Self {
            macs: MacPair::new(self.macs.source(), self.macs.destination()),
            source: self.destination,
            destination: self.source,
        }
    }

    /// Sum over the addresses for a checksum.
    #[inline(always)]
    pub fn sum(&self) -> u64 {
        sum(&self.source, &self.destination)
    }
}

/// Sum over two addresses for a checksum.
#[inline(always)]
pub fn sum<A: Address>(source: &A, destination: &A) -> u64 {
    let (source, destination) = (source.words(), destination.words());
    let mut sum = 0;
    let mut index = 0;
    while index < size_of::<A>() / 4 {
        sum += u64::from(source[index]) + u64::from(destination[index]);
        index += 1;
    }
    sum
}

/// The network header that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct QuotedNetwork<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// IANA protocol number.
    pub protocol: u8,
    /// IPv4 header checksum, in wire order.
    pub checksum: u16,
}

/// An IP version as virtual addresses need it.
pub trait Translated: Family {
    /// Offset of the protocol number from the start of the frame.
    const PROTOCOL: u32;
    /// Offset of the source address from the start of the frame. The destination address follows it, and that is the header's
    /// end.
    const SOURCE: u32;
    /// Offset of the checksum in the network header; 0: it has none.
    const HEADER_CHECKSUM: u32;
    /// Types of ICMP that quote a packet.
    const ERRORS: [u8; 4];

    /// An address as the tables have it.
    fn any(address: Self::Address) -> AnyIp;
    /// An address of the tables that is of this family.
    fn of_any(address: AnyIp) -> Self::Address;
    /// Reads an address at an offset; of IPv6 none that stands for one of IPv4.
    fn address_at(frame: &Frame, offset: u32) -> Result<Self::Address, Reason>;
    /// Writes the packet's Ethernet and network header with other ends.
    fn write_link(packet: &Packet<Self::Address>, ends: &Ends<Self::Address>, to: &mut Headers);
    /// Writes those of a packet of the host's own with so many bytes behind them, of the same protocol and class.
    fn write_new_link(packet: &Packet<Self::Address>, ends: &Ends<Self::Address>, payload: u16, to: &mut Headers);
    /// Reads a quoted header: no options, not a later fragment.
    fn quoted(frame: &Frame, offset: u32) -> Result<QuotedNetwork<Self::Address>, Reason>;
}

/// Bytes of an address.
#[inline(always)]
pub const fn address_length<F: Translated>() -> u32 {
    (F::TRANSPORT - F::SOURCE) / 2
}

/// Writes the MAC addresses and the `EtherType`.
#[inline(always)]
pub(super) fn write_ethernet<F: Family>(macs: MacPair, to: &mut Headers) {
    let macs = macs.wire();
    write_word(to, 0, macs[0]);
    write_word(to, 2, macs[1]);
    write_word(to, 4, macs[2]);
    to[6] = F::ETHERTYPE;
}

/// Writes two addresses at a place, in halves of words.
#[inline(always)]
pub(super) fn write_addresses<A: Address>(ends: &Ends<A>, place: usize, to: &mut Headers) {
    let (source, destination) = (ends.source.words(), ends.destination.words());
    let words = size_of::<A>() / 4;
    let mut index = 0;
    while index < words {
        write_word(to, place + 2 * index, source[index]);
        write_word(to, place + 2 * (words + index), destination[index]);
        index += 1;
    }
}

/// Writes a word at a place, in halves of words.
#[inline(always)]
pub(super) fn write_word(to: &mut Headers, place: usize, word: u32) {
    [to[place], to[place + 1]] = halves(word);
}
