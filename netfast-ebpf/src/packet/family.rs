//! What differs between IPv4 and IPv6, and nothing else: everything above is generic over it.

use netfast_common::{device::Device, flow::Flow, net::Address, reason::Reason};

use super::{Frame, Network, Packet};
use crate::ctx::{Header, Skb};

/// An IP version.
pub trait Family {
    /// Its address.
    type Address: Address + 'static;
    /// The headers that are written back.
    type Header: Header;
    /// Linux's number (`AF_INET`, `AF_INET6`).
    const NUMBER: u8;
    /// `EtherType` in wire order.
    const ETHERTYPE: u16;
    /// Bytes from the start of the frame to the transport header, there being no options.
    const TRANSPORT: u32;
    /// Flags of `bpf_l4_csum_replace` for a change of addresses.
    const ADDRESS_CHECKSUM: u64;
    /// IANA protocol number of its ICMP.
    const ICMP: u8;
    /// Types of ICMP: a request of echo, and a reply.
    const ECHO: [u8; 2];
    /// Whether ICMP's checksum covers the addresses, too.
    const ICMP_HAS_ADDRESSES: bool;
    /// The network-layer length in bytes that every link carries (RFC 791, RFC 8200).
    const MINIMUM_MTU: u16;
    /// The [`Device`] flags of an interface whose flows of this family may be learned and used.
    const ACCELERATED: u8;
    /// Why an interface without them is left alone.
    const NOT_ACCELERATED: Reason;

    /// Reads the network header.
    fn parse(frame: &Frame, skb_length: u32, gso: bool) -> Result<Network<Self::Address>, Reason>;
    /// Whether an address can be one end of a conversation between two hosts.
    fn is_unicast(address: Self::Address) -> bool;
    /// Whether an address is of one link, so that no router passes it on.
    fn is_link_local(address: Self::Address) -> bool;
    /// Why a packet that is neither TCP nor UDP nor ICMP echo is not understood.
    fn other(frame: &Frame, protocol: u8) -> Reason;
    /// Whether an address is the one that the daemon knows of an endpoint.
    fn is_endpoints(address: Self::Address, device: &Device) -> bool;
    /// Whether a frame of this family, or one that resolves its addresses, is sent from an address that is not the
    /// endpoint's.
    fn is_from_another(frame: &Frame, ethertype: u16, device: &Device) -> bool;
    /// MAC addresses, network header and ports as the flow leaves; of ICMP echo what it has where others have ports.
    fn write_header(packet: &Packet<Self::Address>, flow: &Flow<Self::Address>, to: &mut Self::Header);
    /// Puts right what a device has summed up of a packet (`CHECKSUM_COMPLETE`), after it was rewritten and its transport
    /// checksum corrected by this difference of addresses; 0: it was not.
    fn correct_sum<S: Skb>(skb: &S, is_routed: bool, address_difference: u32);
}
