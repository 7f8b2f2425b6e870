//! What can be odd about a packet of a conversation.

use serde::{Deserialize, Serialize};

use super::{family::Family, scenario::Place};

/// How a packet differs from an ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Odd {
    /// In nothing but its payload's length.
    Plain(u16),
    /// As long as the sender's link carries, with "don't fragment" or without.
    Full {
        /// "Don't fragment".
        df: bool,
    },
    /// Its TTL.
    Ttl(u8),
    /// Its DSCP.
    Dscp(u8),
    /// Its ECN bits.
    Ecn(u8),
    /// IP options; with IPv6, a header of options for the destination.
    IpOptions,
    /// IPv6: an extension header of this number.
    Extension(u8),
    /// IPv6: the sender's link-local address, or that of who it goes to.
    LinkLocal {
        /// The sender's.
        source: bool,
    },
    /// IPv6: a message of neighbour or router discovery of this type (RFC 4861) instead.
    Discovery(u8),
    /// In pieces.
    Fragments {
        /// Bytes in each, a multiple of eight.
        size: u16,
        /// Last piece first.
        reversed: bool,
        /// Only the first piece.
        first_only: bool,
    },
    /// IPv4: the bit that RFC 791 keeps at zero.
    ReservedBit,
    /// IPv4: may be fragmented.
    NoDf,
    /// IPv4: header checksum off by one.
    BadIpChecksum,
    /// Transport checksum off by one.
    BadChecksum,
    /// Transport checksum zero.
    ZeroChecksum,
    /// A VLAN tag.
    Vlan(u16),
    /// Another IP protocol.
    Protocol(u8),
    /// From another's address, by the same sender.
    SpoofedAddress(Place),
    /// From an address of nobody's.
    StrangeAddress,
    /// From another's MAC address.
    SpoofedMac(Place),
    /// To a multicast MAC address.
    MulticastMac,
    /// To a broadcast MAC address.
    BroadcastMac,
    /// To a MAC address of nobody's.
    StrangeMac,
    /// To another station of the same bridge, by MAC.
    WrongMac(Place),
    /// To a multicast address.
    MulticastAddress,
    /// TCP flags as they are; UDP: an ordinary packet.
    Flags(u8),
    /// TCP options: timestamps, or 40 bytes of end-of-list.
    TcpOptions {
        /// As many as fit.
        long: bool,
    },
    /// TCP option: a selective acknowledgement of one block.
    Sack,
    /// TCP window.
    Window(u16),
    /// A payload with a certain word at its beginning.
    Needle,
    /// FTP's command that tells the sender's address (`PORT`), at this port of the sender's.
    Ftp(Place, u16),
    /// TCP: ahead of the window by this much.
    OutOfWindow(u32),
    /// IP length field shorter than the packet, so that bytes follow that belong to no header.
    Padded(u8),
    /// IP length field longer than the packet.
    Truncated(u8),
    /// Transport header contradicts the IP header: UDP length, TCP data offset.
    BadLength,
    /// An `EtherType` that is not IP.
    NotIp,
    /// An IPv4 header length under 20 bytes; an IPv6 header of version 5.
    BadHeaderLength,
    /// Several packets at once, each of another length.
    Burst(u8),
    /// Several segments as one packet, which the device is to cut (GSO).
    Gso {
        /// Bytes of payload in each, `gso_size`.
        size: u16,
        /// How many.
        count: u8,
    },
}

impl Odd {
    /// The family that it is of, if it is of one only.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self::ReservedBit | Self::NoDf | Self::BadIpChecksum | Self::Ftp(..) => Some(Family::V4),
            Self::Extension(_) | Self::LinkLocal { .. } | Self::Discovery(_) => Some(Family::V6),
            Self::Plain(_)
            | Self::Full { .. }
            | Self::Ttl(_)
            | Self::Dscp(_)
            | Self::Ecn(_)
            | Self::IpOptions
            | Self::Fragments { .. }
            | Self::BadChecksum
            | Self::ZeroChecksum
            | Self::Vlan(_)
            | Self::Protocol(_)
            | Self::SpoofedAddress(_)
            | Self::StrangeAddress
            | Self::SpoofedMac(_)
            | Self::MulticastMac
            | Self::BroadcastMac
            | Self::StrangeMac
            | Self::WrongMac(_)
            | Self::MulticastAddress
            | Self::Flags(_)
            | Self::TcpOptions { .. }
            | Self::Sack
            | Self::Window(_)
            | Self::Needle
            | Self::OutOfWindow(_)
            | Self::Padded(_)
            | Self::Truncated(_)
            | Self::BadLength
            | Self::NotIp
            | Self::BadHeaderLength
            | Self::Burst(_)
            | Self::Gso { .. } => None,
        }
    }

    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Plain(_) => "packet: plain",
            Self::Full { .. } => "packet: as long as the link",
            Self::Ttl(0..=1) => "packet: TTL 0 or 1",
            Self::Ttl(_) => "packet: other TTL",
            Self::Dscp(_) => "packet: DSCP",
            Self::Ecn(_) => "packet: ECN",
            Self::IpOptions => "packet: IP options",
            Self::Extension(_) => "packet: extension header",
            Self::LinkLocal { .. } => "packet: link-local address",
            Self::Discovery(_) => "packet: neighbour discovery",
            Self::Fragments { .. } => "packet: fragments",
            Self::ReservedBit => "packet: reserved bit",
            Self::NoDf => "packet: may be fragmented",
            Self::BadIpChecksum => "packet: bad IP checksum",
            Self::BadChecksum => "packet: bad transport checksum",
            Self::ZeroChecksum => "packet: zero transport checksum",
            Self::Vlan(_) => "packet: VLAN tag",
            Self::Protocol(_) => "packet: other protocol",
            Self::SpoofedAddress(_) => "packet: neighbour's address",
            Self::StrangeAddress => "packet: nobody's address",
            Self::SpoofedMac(_) => "packet: neighbour's MAC",
            Self::MulticastMac => "packet: to a multicast MAC",
            Self::BroadcastMac => "packet: to a broadcast MAC",
            Self::StrangeMac => "packet: to nobody's MAC",
            Self::WrongMac(_) => "packet: to another's MAC",
            Self::MulticastAddress => "packet: to a multicast address",
            Self::Flags(_) => "packet: TCP flags",
            Self::TcpOptions { .. } => "packet: TCP options",
            Self::Sack => "packet: TCP SACK",
            Self::Window(_) => "packet: TCP window",
            Self::Needle => "packet: a word in the payload",
            Self::Ftp(..) => "packet: FTP PORT",
            Self::OutOfWindow(_) => "packet: ahead of the window",
            Self::Padded(_) => "packet: padded",
            Self::Truncated(_) => "packet: truncated",
            Self::BadLength => "packet: bad transport length",
            Self::NotIp => "packet: not IP",
            Self::BadHeaderLength => "packet: bad IP header length",
            Self::Burst(_) => "packet: burst",
            Self::Gso { .. } => "packet: GSO",
        }
    }
}
