//! Packets that take the slow path for their own sake: what is odd about each, and the reason that it is counted by. The
//! packet ring sends them on the real kernel, and the fuzz targets' tests on the faked one.
//!
//! Two other lists are of another kind, and stay where they are:
//!
//! - the fuzz scripts' `Edit` is what random bytes may do to a packet. Its values have no reason of their own, since
//!   several come together and some change nothing; and the corpus is written in it, so that its variants may not move;
//! - [`crate::seeds::odd::Odd`] is what the differential ring sends through whole hosts. What must become of those is what
//!   the kernel does without netfast; many are fast (TTL 2, ECN), and some no single frame (fragments, bursts, GSO).

use std::net::Ipv4Addr;

use netfast_common::reason::Reason;

use super::{DF, MF, Packet, flag};

/// What is odd, the reason that it is counted by, and how an ordinary packet becomes it.
pub type Row = (&'static str, Reason, fn(&mut Packet));

/// Odd TCP segments.
pub const TCP: &[Row] = &[
    ("ARP", Reason::NotIp, |p| p.ethertype = 0x0806),
    ("IPv4 that says it is IPv6", Reason::Malformed, |p| p.ethertype = 0x86dd),
    ("a VLAN tag in the frame", Reason::NotIp, |p| p.ethertype = 0x8100),
    ("LLC", Reason::NotIp, |p| p.ethertype = 40),
    ("another IP version", Reason::Malformed, |p| {
        p.version_length = Some(0x65);
    }),
    ("an IP header of 16 bytes", Reason::Malformed, |p| {
        p.version_length = Some(0x44);
    }),
    ("an IP length under the header's", Reason::Malformed, |p| {
        p.length = Some(19);
    }),
    ("an IP length beyond the frame", Reason::Malformed, |p| {
        p.length = Some(2000);
    }),
    ("an IP length of zero", Reason::Malformed, |p| p.length = Some(0)),
    ("the reserved flag", Reason::Malformed, |p| p.fragment = 0x8000 | DF),
    ("a TCP header of 16 bytes", Reason::Malformed, |p| {
        p.data_offset = Some(4);
    }),
    ("a TCP header beyond the packet", Reason::Malformed, |p| {
        p.data_offset = Some(15);
        p.payload.truncate(39);
    }),
    ("an IP length in the TCP header", Reason::Malformed, |p| {
        p.length = Some(30);
    }),
    ("padding, which a container does not send", Reason::Malformed, |p| {
        p.trailer = vec![0; 3];
    }),
    ("a wrong IP checksum", Reason::BadIpChecksum, |p| {
        p.ip_checksum = Some(0x1234);
    }),
    ("an IP checksum of zero", Reason::BadIpChecksum, |p| {
        p.ip_checksum = Some(0);
    }),
    ("IP options", Reason::IpOptions, |p| p.ip_options = vec![1, 1, 1, 0]),
    ("forty bytes of IP options", Reason::IpOptions, |p| {
        p.ip_options = vec![1; 40];
    }),
    ("the first fragment", Reason::Fragment, |p| p.fragment = MF),
    ("a fragment in the middle", Reason::Fragment, |p| p.fragment = MF | 8),
    ("the last fragment", Reason::Fragment, |p| p.fragment = 8),
    ("a fragment at the last offset", Reason::Fragment, |p| {
        p.fragment = 0x1000;
    }),
    ("a TTL of 1", Reason::TtlExpiring, |p| p.ttl = 1),
    ("a TTL of 0", Reason::TtlExpiring, |p| p.ttl = 0),
    ("a multicast MAC", Reason::NotUnicast, |p| {
        p.to_mac = [0x01, 0, 0x5e, 0, 0, 1];
    }),
    ("the broadcast MAC", Reason::NotUnicast, |p| p.to_mac = [0xff; 6]),
    ("a group MAC as its source", Reason::NotUnicast, |p| p.from_mac[0] |= 1),
    ("a multicast address", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::new(224, 0, 0, 251);
    }),
    ("the broadcast address", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::BROADCAST;
    }),
    ("an address of 0/8", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::new(0, 0, 0, 1);
    }),
    ("no source address", Reason::NotUnicast, |p| {
        p.source.0 = Ipv4Addr::UNSPECIFIED;
    }),
    ("a multicast source", Reason::NotUnicast, |p| {
        p.source.0 = Ipv4Addr::new(239, 1, 2, 3);
    }),
    ("SCTP", Reason::OtherProtocol, |p| p.protocol = 132),
    ("no TCP flags", Reason::TcpFlags, |p| p.flags = 0),
    ("PSH without ACK", Reason::TcpFlags, |p| p.flags = flag::PSH),
    ("a wrong TCP checksum", Reason::BadChecksum, |p| {
        p.checksum = Some(0x1234);
    }),
    ("a TCP checksum of zero", Reason::BadChecksum, |p| p.checksum = Some(0)),
    (
        "a wrong TCP checksum of a packet without payload",
        Reason::BadChecksum,
        |p| {
            p.payload.clear();
            p.checksum = Some(0x1234);
        },
    ),
    ("a wrong TCP checksum of a long packet", Reason::BadChecksum, |p| {
        p.payload = vec![7; 1460];
        p.checksum = Some(0x1234);
    }),
];

/// Odd UDP datagrams.
pub const UDP: &[Row] = &[
    ("a UDP length under its header", Reason::Malformed, |p| {
        p.udp_length = Some(7);
    }),
    ("a UDP length zero", Reason::Malformed, |p| p.udp_length = Some(0)),
    ("a UDP length beyond the packet", Reason::Malformed, |p| {
        p.udp_length = Some(52);
    }),
    ("a wrong UDP checksum", Reason::BadChecksum, |p| {
        p.checksum = Some(0x1234);
    }),
];

/// What of ICMP is no echo that a flow may have.
pub const ICMP: &[Row] = &[
    ("a request with a code", Reason::OtherProtocol, |p| {
        p.icmp_type = Some([8, 1]);
    }),
    ("a destination that is unreachable", Reason::OtherProtocol, |p| {
        p.icmp_type = Some([3, 0]);
    }),
    ("a redirect", Reason::OtherProtocol, |p| p.icmp_type = Some([5, 0])),
    ("a time that is exceeded", Reason::OtherProtocol, |p| {
        p.icmp_type = Some([11, 0]);
    }),
    ("a timestamp", Reason::OtherProtocol, |p| p.icmp_type = Some([13, 0])),
    ("a type that nobody has", Reason::OtherProtocol, |p| {
        p.icmp_type = Some([0x77, 0]);
    }),
    ("an identifier of zero", Reason::OtherProtocol, |p| {
        (p.source.1, p.icmp_type) = (0, Some([8, 0]));
    }),
    ("a wrong ICMP checksum", Reason::BadChecksum, |p| {
        p.checksum = Some(0x1234);
    }),
    ("an ICMP checksum of zero", Reason::BadChecksum, |p| {
        p.checksum = Some(0);
    }),
    ("an ICMP checksum of ones", Reason::BadChecksum, |p| {
        p.checksum = Some(0xffff);
    }),
    ("a wrong ICMP checksum of a long packet", Reason::BadChecksum, |p| {
        p.payload = vec![7; 1400];
        p.checksum = Some(0x1234);
    }),
    ("an IP length in the ICMP header", Reason::OtherProtocol, |p| {
        p.length = Some(27);
        p.trailer.clear();
    }),
    ("a TTL of 1", Reason::TtlExpiring, |p| p.ttl = 1),
    ("padding, which a container does not send", Reason::Malformed, |p| {
        p.trailer = vec![0; 3];
    }),
];

/// TCP flags of what ends a connection, or begins another with the same addresses.
pub const ENDS: &[(&str, Reason, u8)] = &[
    ("SYN", Reason::TcpSyn, flag::SYN),
    ("SYN and ACK", Reason::TcpSyn, flag::SYN | flag::ACK),
    ("SYN and RST", Reason::TcpSyn, flag::SYN | flag::RST),
    ("SYN and FIN", Reason::TcpSyn, flag::SYN | flag::FIN),
    ("FIN", Reason::TcpFin, flag::FIN | flag::ACK),
    ("FIN without ACK", Reason::TcpFin, flag::FIN),
    ("RST", Reason::TcpRst, flag::RST),
    ("RST and ACK", Reason::TcpRst, flag::RST | flag::ACK),
    ("RST and FIN", Reason::TcpRst, flag::RST | flag::FIN | flag::ACK),
];
