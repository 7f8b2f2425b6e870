//! IPv6 (RFC 8200), without extension headers.

use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;
use netfast_common::{
    csum,
    device::Device,
    flow::Flow,
    net::{AnyIp, Ip6},
    reason::Reason,
};

use super::{
    ETHERNET, Frame, Network, Packet, echo,
    ends::{Ends, QuotedNetwork, Translated, write_addresses, write_ethernet, write_word},
    family::Family,
    halves,
};
use crate::ctx::{AF_INET6, Header, Headers, Skb};

/// IPv6.
pub struct V6;

/// Ethernet, IPv6 and the ports, as they are written back in one go.
#[repr(C)]
pub struct Header6 {
    macs: [[u16; 2]; 3],
    ethertype: u16,
    class_label: [u16; 2],
    length: u16,
    protocol_limit: [u8; 2],
    source: [[u16; 2]; 4],
    destination: [[u16; 2]; 4],
    ports: [u16; 2],
}

impl Header for Header6 {
    const LENGTH: u32 = 58;
}

const _: () = assert!(size_of::<Header6>() == Header6::LENGTH as usize);

/// Bytes of an IPv6 header.
const HEADER: u32 = 40;
/// Offset of the source address from the start of the frame.
const SOURCE: u32 = ETHERNET + 8;
/// The flow label in the header's first word, in wire order.
const FLOW_LABEL: u32 = 0x000f_ffff_u32.to_be();

/// IANA protocol numbers of extension headers (RFC 7045): hop-by-hop options, routing, fragment, encrypted and
/// authenticated payload, destination options, mobility, HIP, shim6.
const EXTENSIONS: [u8; 7] = [0, 43, 50, 51, 60, 135, 139];
/// As above, of the two that are not in that list: one for its own reason, one because it is the last.
const FRAGMENT: u8 = 44;
const SHIM6: u8 = 140;
/// IANA protocol number of `ICMPv6`, its types of echo (RFC 4443), and those of router and neighbour discovery, from router
/// solicitation to redirect (RFC 4861).
const ICMP6: u8 = 58;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

/// An address as halves in memory order.
#[inline(always)]
const fn address_halves(address: Ip6) -> [[u16; 2]; 4] {
    let words = address.wire();
    [halves(words[0]), halves(words[1]), halves(words[2]), halves(words[3])]
}

impl Family for V6 {
    type Address = Ip6;
    type Header = Header6;
    const NUMBER: u8 = AF_INET6;
    const ETHERTYPE: u16 = 0x86dd_u16.to_be();
    const TRANSPORT: u32 = ETHERNET + HEADER;
    const ADDRESS_CHECKSUM: u64 = BPF_F_PSEUDO_HDR as u64;
    const ICMP: u8 = ICMP6;
    const ECHO: [u8; 2] = [ECHO, ECHO_REPLY];
    const ICMP_HAS_ADDRESSES: bool = true;
    const MINIMUM_MTU: u16 = 1280;
    const ACCELERATED: u8 = Device::ACCELERATED | Device::IPV6;
    const NOT_ACCELERATED: Reason = Reason::Ipv6Off;

    #[inline(always)]
    fn parse(frame: &Frame, skb_length: u32, gso: bool) -> Result<Network<Ip6>, Reason> {
        let words: [u32; 2] = frame.at(ETHERNET)?;
        let addresses: [[u32; 4]; 2] = frame.at(SOURCE)?;
        let first = words[0].to_ne_bytes();
        if first[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        let second = words[1].to_ne_bytes();
        let available = skb_length - ETHERNET;
        let wire_length = u16::from_ne_bytes([second[0], second[1]]);
        // BIG TCP: a length that does not fit is 0, and the packet's own counts. Kernels that put a jumbo option there instead
        // (since 5.19) are refused for it.
        let length = match u16::from_be(wire_length) {
            0 if gso && available > 0xffff + HEADER => available,
            length => u32::from(length) + HEADER,
        };
        if length > available {
            return Err(Reason::Malformed);
        }
        Ok(Network {
            source: Ip6::from_wire(addresses[0]),
            destination: Ip6::from_wire(addresses[1]),
            protocol: second[2],
            tos: first[0] << 4 | first[1] >> 4,
            ttl: second[3],
            checksum: 0,
            identity: words[0] & FLOW_LABEL,
            wire_length,
            length,
            payload: length - HEADER,
            is_padded: length < available,
        })
    }

    #[inline(always)]
    fn is_unicast(address: Ip6) -> bool {
        address.is_unicast()
    }

    #[inline(always)]
    fn is_link_local(address: Ip6) -> bool {
        address.is_link_local()
    }

    #[inline(always)]
    fn other(frame: &Frame, protocol: u8) -> Reason {
        if protocol == FRAGMENT {
            return Reason::Fragment;
        }
        if EXTENSIONS.contains(&protocol) || protocol == SHIM6 {
            return Reason::IpOptions;
        }
        if protocol == ICMP6
            && frame
                .at(Self::TRANSPORT)
                .is_ok_and(|kind: u8| DISCOVERY.contains(&kind))
        {
            return Reason::NeighbourDiscovery;
        }
        Reason::OtherProtocol
    }

    #[inline(always)]
    fn is_endpoints(address: Ip6, device: &Device) -> bool {
        address == device.address6
    }

    #[inline(always)]
    fn is_from_another(frame: &Frame, ethertype: u16, device: &Device) -> bool {
        if ethertype != Self::ETHERTYPE || device.has(Device::ANY_SOURCE) || device.address6.is_unspecified() {
            return false;
        }
        // Each interface has a link-local address of its own making, and who has none yet sends from `::`.
        frame.at(SOURCE).is_ok_and(|words: [u32; 4]| {
            let address = Ip6::from_wire(words);
            !address.is_link_local() && !address.is_unspecified() && !Self::is_endpoints(address, device)
        })
    }

    #[inline(always)]
    fn write_header(packet: &Packet<Ip6>, flow: &Flow<Ip6>, to: &mut Header6) {
        let network = &packet.network;
        let mut limit = network.ttl;
        if flow.flags & Flow::<Ip6>::ROUTED != 0 {
            limit = limit.wrapping_sub(1);
        }
        let macs = flow.out_macs.wire();
        let label = network.identity.to_ne_bytes();
        let class = [0x60 | network.tos >> 4, network.tos << 4 | label[1]];
        // Field by field: all of it together has no room among registers.
        to.macs = [halves(macs[0]), halves(macs[1]), halves(macs[2])];
        to.ethertype = Self::ETHERTYPE;
        to.class_label = halves(u32::from_ne_bytes([class[0], class[1], label[2], label[3]]));
        to.length = network.wire_length;
        to.protocol_limit = [network.protocol, limit];
        to.source = address_halves(flow.source);
        to.destination = address_halves(flow.destination);
        to.ports = echo::ports_or_head::<Self>(packet, flow);
    }

    /// There is no checksum in this header that makes up for another hop limit; and the helper takes the difference of
    /// addresses for one of the transport's checksum alone, as it is with IPv4 (`inet_proto_csum_replace_by_diff`,
    /// `net/core/utils.c`; kernels since 6.16 can be told better, older ones refuse the flag).
    #[inline(always)]
    fn correct_sum<S: Skb>(skb: &S, is_routed: bool, address_difference: u32) {
        let step = if is_routed { csum::HOP_STEP } else { 0 };
        let difference = csum::fold32(u64::from(address_difference) + u64::from(step));
        if difference != 0 {
            skb.add_to_sum(difference);
        }
    }
}

/// Hop limit of packets that begin here, as Linux has it.
const HOP_LIMIT: u8 = 64;

/// Writes the headers. Places are in halves of words. `label` is in wire order.
#[inline(always)]
fn write(ends: &Ends<Ip6>, class: u8, label: u32, length: u16, protocol_limit: [u8; 2], to: &mut Headers) {
    write_ethernet::<V6>(ends.macs, to);
    let label = label.to_ne_bytes();
    let first = [0x60 | class >> 4, class << 4 | label[1], label[2], label[3]];
    write_word(to, 7, u32::from_ne_bytes(first));
    to[9] = length;
    to[10] = u16::from_ne_bytes(protocol_limit);
    write_addresses(ends, 11, to);
}

impl Translated for V6 {
    const PROTOCOL: u32 = ETHERNET + 6;
    const SOURCE: u32 = SOURCE;
    const HEADER_CHECKSUM: u32 = 0;
    /// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
    const ERRORS: [u8; 4] = [1, 2, 3, 4];

    #[inline(always)]
    fn any(address: Ip6) -> AnyIp {
        AnyIp::v6(address)
    }

    #[inline(always)]
    fn of_any(address: AnyIp) -> Ip6 {
        address.to_v6()
    }

    /// Without this refusal a packet of IPv6 could pass for one of a connection of IPv4.
    #[inline(always)]
    fn address_at(frame: &Frame, offset: u32) -> Result<Ip6, Reason> {
        let address = Ip6::from_wire(frame.at(offset)?);
        if AnyIp::v6(address).is_v4() {
            return Err(Reason::Malformed);
        }
        Ok(address)
    }

    #[inline(always)]
    fn write_link(packet: &Packet<Ip6>, ends: &Ends<Ip6>, to: &mut Headers) {
        let network = &packet.network;
        let protocol_limit = [network.protocol, network.ttl];
        write(
            ends,
            network.tos,
            network.identity,
            network.wire_length,
            protocol_limit,
            to,
        );
    }

    #[inline(always)]
    fn write_new_link(packet: &Packet<Ip6>, ends: &Ends<Ip6>, payload: u16, to: &mut Headers) {
        let network = &packet.network;
        write(ends, network.tos, 0, payload.to_be(), [network.protocol, HOP_LIMIT], to);
    }

    #[inline(always)]
    fn quoted(frame: &Frame, offset: u32) -> Result<QuotedNetwork<Ip6>, Reason> {
        let words: [u32; 2] = frame.at(offset)?;
        if words[0].to_ne_bytes()[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        let addresses: [[u32; 4]; 2] = frame.at(offset + 8)?;
        Ok(QuotedNetwork {
            source: Ip6::from_wire(addresses[0]),
            destination: Ip6::from_wire(addresses[1]),
            protocol: words[1].to_ne_bytes()[2],
            checksum: 0,
        })
    }
}
