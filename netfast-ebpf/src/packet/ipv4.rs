//! IPv4 (RFC 791), with ARP's part of it.

use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;
use netfast_common::{
    csum,
    device::Device,
    flow::Flow,
    net::{AnyIp, Ip4},
    reason::Reason,
};

use super::{
    ETHERNET, Frame, Network, Packet, echo,
    ends::{Ends, QuotedNetwork, Translated, write_addresses, write_ethernet, write_word},
    family::Family,
    halves,
};
use crate::ctx::{AF_INET, Header, Headers, Skb};

/// IPv4.
pub struct V4;

/// Ethernet, IPv4 and the ports, as they are written back in one go.
#[derive(Default)]
#[repr(C)]
pub struct Header4 {
    macs: [[u16; 2]; 3],
    ethertype: u16,
    version_tos: [u8; 2],
    length: u16,
    id_fragment: [u16; 2],
    ttl_protocol: [u8; 2],
    checksum: u16,
    source: [u16; 2],
    destination: [u16; 2],
    ports: [u16; 2],
}

impl Header for Header4 {
    const LENGTH: u32 = 38;
}

const _: () = assert!(size_of::<Header4>() == Header4::LENGTH as usize);

/// Offset of the source address from the start of the frame.
pub const SOURCE: u32 = ETHERNET + 12;
/// Offset of the destination address.
pub const DESTINATION: u32 = ETHERNET + 16;
/// `EtherType` of ARP, in wire order, and the offsets of the sender's addresses in an ARP message of Ethernet and IPv4
/// (RFC 826).
pub const ARP: u16 = 0x0806_u16.to_be();
const ARP_SENDER_MAC: u32 = ETHERNET + 8;
const ARP_SENDER: u32 = ETHERNET + 14;

/// "More fragments" and the offset, in wire order (RFC 791).
const FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x3f, 0xff]);
/// The bit that RFC 791 keeps at zero.
const RESERVED_BIT: u32 = u32::from_ne_bytes([0, 0, 0x80, 0]);
/// The fragment offset, in wire order.
const FRAGMENT_OFFSET: u32 = u32::from_ne_bytes([0, 0, 0x1f, 0xff]);
/// "Don't fragment", in the word of identification and fragment.
const DONT_FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x40, 0]);
/// TTL of packets that begin here, as Linux has it.
const TTL: u8 = 64;

/// The packet's headers up to its ports, for another length of the network layer in bytes.
#[inline(always)]
pub fn header_of_length(packet: &Packet<Ip4>, length: u16) -> Header4 {
    let network = &packet.network;
    let macs = packet.macs.wire();
    let difference = csum::difference(network.wire_length.into(), length.to_be().into());
    Header4 {
        macs: [halves(macs[0]), halves(macs[1]), halves(macs[2])],
        ethertype: V4::ETHERTYPE,
        version_tos: [0x45, network.tos],
        length: length.to_be(),
        id_fragment: halves(network.identity),
        ttl_protocol: [network.ttl, network.protocol],
        checksum: csum::apply(network.checksum, difference),
        source: halves(network.source.wire()),
        destination: halves(network.destination.wire()),
        ports: [packet.source_port.wire(), packet.destination_port.wire()],
    }
}

impl Family for V4 {
    type Address = Ip4;
    type Header = Header4;
    const NUMBER: u8 = AF_INET;
    const ETHERTYPE: u16 = 0x0800_u16.to_be();
    const TRANSPORT: u32 = ETHERNET + 20;
    const ADDRESS_CHECKSUM: u64 = BPF_F_PSEUDO_HDR as u64;
    const ICMP: u8 = echo::ICMP;
    const ECHO: [u8; 2] = [echo::ECHO, echo::ECHO_REPLY];
    const ICMP_HAS_ADDRESSES: bool = false;
    const MINIMUM_MTU: u16 = 576;
    const ACCELERATED: u8 = Device::ACCELERATED;
    const NOT_ACCELERATED: Reason = Reason::UnknownDevice;

    #[inline(always)]
    fn parse(frame: &Frame, skb_length: u32, gso: bool) -> Result<Network<Ip4>, Reason> {
        let words: [u32; 5] = frame.at(ETHERNET)?;
        let first = words[0].to_ne_bytes();
        if first[0] >> 4 != 4 || first[0] & 0xf < 5 {
            return Err(Reason::Malformed);
        }
        if first[0] != 0x45 {
            return Err(Reason::IpOptions);
        }
        if csum::fold16(csum::fold32(csum::sum(&words))) != 0xffff {
            return Err(Reason::BadIpChecksum);
        }
        if words[1] & FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        if words[1] & RESERVED_BIT != 0 {
            return Err(Reason::Malformed);
        }
        let available = skb_length - ETHERNET;
        let wire_length = u16::from_ne_bytes([first[2], first[3]]);
        // IPv4 BIG TCP: a length that does not fit is 0, and the packet's own counts (kernel 6.3, b1a78b9b9886).
        let length = match u16::from_be(wire_length) {
            0 if gso && available > 0xffff => available,
            length => u32::from(length),
        };
        if length < 20 || length > available {
            return Err(Reason::Malformed);
        }
        let third = words[2].to_ne_bytes();
        Ok(Network {
            source: Ip4::from_wire(words[3]),
            destination: Ip4::from_wire(words[4]),
            protocol: third[1],
            tos: first[1],
            ttl: third[0],
            checksum: u16::from_ne_bytes([third[2], third[3]]),
            identity: words[1],
            wire_length,
            length,
            payload: length - 20,
            is_padded: length < available,
        })
    }

    #[inline(always)]
    fn is_unicast(address: Ip4) -> bool {
        address.is_unicast()
    }

    /// Those of IPv4 (RFC 3927) are routed by Linux like any other.
    #[inline(always)]
    fn is_link_local(_: Ip4) -> bool {
        false
    }

    #[inline(always)]
    fn other(_: &Frame, _: u8) -> Reason {
        Reason::OtherProtocol
    }

    #[inline(always)]
    fn is_endpoints(address: Ip4, device: &Device) -> bool {
        address == device.address4
    }

    #[inline(always)]
    fn is_from_another(frame: &Frame, ethertype: u16, device: &Device) -> bool {
        let sender: Result<u32, Reason> = match ethertype {
            Self::ETHERTYPE => frame.at(SOURCE),
            ARP => {
                if frame.at(ARP_SENDER_MAC).is_ok_and(|mac: [u8; 6]| mac != device.mac) {
                    return true;
                }
                frame.at(ARP_SENDER)
            }
            _ => return false,
        };
        // Who has no address yet sends from 0.0.0.0 (RFC 2131, RFC 5227).
        !device.has(Device::ANY_SOURCE)
            && sender.is_ok_and(|word| word != 0 && !Self::is_endpoints(Ip4::from_wire(word), device))
    }

    #[inline(always)]
    fn write_header(packet: &Packet<Ip4>, flow: &Flow<Ip4>, to: &mut Header4) {
        let network = &packet.network;
        let mut difference = u64::from(flow.address_difference);
        let mut ttl = network.ttl;
        if flow.flags & Flow::<Ip4>::ROUTED != 0 {
            ttl = ttl.wrapping_sub(1);
            difference += u64::from(csum::TTL_STEP);
        }
        let macs = flow.out_macs.wire();
        *to = Header4 {
            macs: [halves(macs[0]), halves(macs[1]), halves(macs[2])],
            ethertype: Self::ETHERTYPE,
            version_tos: [0x45, network.tos],
            length: network.wire_length,
            id_fragment: halves(network.identity),
            ttl_protocol: [ttl, network.protocol],
            checksum: csum::apply(network.checksum, csum::fold32(difference)),
            source: halves(flow.source.wire()),
            destination: halves(flow.destination.wire()),
            ports: echo::ports_or_head::<Self>(packet, flow),
        };
    }
    /// The header's own checksum makes up for what changes in it, and the kernel for the transport's.
    #[inline(always)]
    fn correct_sum<S: Skb>(_: &S, _: bool, _: u32) {}
}

/// Writes the headers. Places are in halves of words.
#[inline(always)]
fn write(ends: &Ends<Ip4>, first: u32, identity: u32, ttl_protocol: [u8; 2], checksum: u16, to: &mut Headers) {
    write_ethernet::<V4>(ends.macs, to);
    write_word(to, 7, first);
    write_word(to, 9, identity);
    to[11] = u16::from_ne_bytes(ttl_protocol);
    to[12] = checksum;
    write_addresses(ends, 13, to);
}

impl Translated for V4 {
    const PROTOCOL: u32 = ETHERNET + 9;
    const SOURCE: u32 = SOURCE;
    const HEADER_CHECKSUM: u32 = 10;
    /// Destination unreachable, time exceeded, parameter problem.
    const ERRORS: [u8; 4] = [3, 11, 12, 12];

    #[inline(always)]
    fn any(address: Ip4) -> AnyIp {
        AnyIp::v4(address)
    }

    #[inline(always)]
    fn of_any(address: AnyIp) -> Ip4 {
        address.to_v4()
    }

    #[inline(always)]
    fn address_at(frame: &Frame, offset: u32) -> Result<Ip4, Reason> {
        frame.at(offset).map(Ip4::from_wire)
    }

    #[inline(always)]
    fn write_link(packet: &Packet<Ip4>, ends: &Ends<Ip4>, to: &mut Headers) {
        let network = &packet.network;
        let difference = csum::difference(Ends::of(packet).sum(), ends.sum());
        let length = network.wire_length.to_ne_bytes();
        let first = u32::from_ne_bytes([0x45, network.tos, length[0], length[1]]);
        let checksum = csum::apply(network.checksum, difference);
        write(
            ends,
            first,
            network.identity,
            [network.ttl, network.protocol],
            checksum,
            to,
        );
    }

    #[inline(always)]
    fn write_new_link(packet: &Packet<Ip4>, ends: &Ends<Ip4>, payload: u16, to: &mut Headers) {
        let network = &packet.network;
        let length = (payload + 20).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, network.tos, length[0], length[1]]);
        let ttl_protocol = [TTL, network.protocol];
        let sum =
            u64::from(first) + u64::from(DONT_FRAGMENT) + u64::from(u16::from_ne_bytes(ttl_protocol)) + ends.sum();
        write(
            ends,
            first,
            DONT_FRAGMENT,
            ttl_protocol,
            !csum::fold16(csum::fold32(sum)),
            to,
        );
    }

    #[inline(always)]
    fn quoted(frame: &Frame, offset: u32) -> Result<QuotedNetwork<Ip4>, Reason> {
        let words: [u32; 5] = frame.at(offset)?;
        if words[0].to_ne_bytes()[0] != 0x45 {
            return Err(Reason::IpOptions);
        }
        if words[1] & FRAGMENT_OFFSET != 0 {
            return Err(Reason::Fragment);
        }
        let third = words[2].to_ne_bytes();
        Ok(QuotedNetwork {
            source: Ip4::from_wire(words[3]),
            destination: Ip4::from_wire(words[4]),
            protocol: third[1],
            checksum: u16::from_ne_bytes([third[2], third[3]]),
        })
    }
}
