//! Packets of a script's making, odd ones included: fields to bytes. The bytes are what is said, so a packet can be
//! wrong in any way that a case needs.
//!
//! They are not those of [`netfast_tests::packet`], whose protocol says what follows the IP header: here the transport
//! part is of its own kind, so that it can contradict the protocol's number, be a piece of a packet, or be an ICMP
//! message; and MAC addresses are filled in by who sends it.

use std::net::{IpAddr, SocketAddr};

pub use netfast_tests::packet::{
    DF, MF, TCP, UDP,
    flag::{ACK, FIN, PSH, RST, SYN},
};
use netfast_tests::seeds::family::Family;

use super::describe::sum;

/// IANA protocol numbers.
pub const ICMP: u8 = 1;
/// See above.
pub const ICMP6: u8 = 58;
/// Of IPv6's fragment header.
pub const FRAGMENT: u8 = 44;

/// Scripts number their packets from here on, so that the numbers that the kernel chooses can be told apart.
pub const FIRST_ID: u16 = 0x4e00;

/// What a checksum is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Right.
    #[default]
    Right,
    /// Off by one.
    Wrong,
    /// Zero.
    Zero,
}

/// The transport part.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP with these options.
    Tcp {
        seq: u32,
        ack: u32,
        flags: u8,
        options: Vec<u8>,
    },
    /// UDP.
    Udp,
    /// ICMP of either family: type, code, and the second word.
    Icmp(u8, u8, [u8; 4]),
    /// Nothing but the payload: later fragments.
    None,
}

/// An IP packet in an Ethernet frame, of the family that its addresses are of.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// IPv6: hop limit.
    pub ttl: u8,
    /// IPv6: traffic class.
    pub tos: u8,
    /// IPv6: flow label, and the identification of fragments.
    pub id: u16,
    /// Flags and offset.
    pub fragment: u16,
    /// IP options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6: a header before the transport part: its number, and its bytes behind the first.
    pub extension: Option<(u8, Vec<u8>)>,
    pub ip_checksum: Checksum,
    pub transport_checksum: Checksum,
    /// TCP's.
    pub window: u16,
    pub vlan: Option<u16>,
    /// Bytes behind the IP packet, which a network card pads short frames with.
    pub trailer: Vec<u8>,
    /// Instead of the sender's and of its next hop's.
    pub source_mac: Option<[u8; 6]>,
    pub destination_mac: Option<[u8; 6]>,
}

impl Packet {
    fn new(source: SocketAddr, destination: SocketAddr, protocol: u8, transport: Transport) -> Self {
        Self {
            source,
            destination,
            protocol,
            transport,
            payload: Vec::new(),
            ttl: 64,
            tos: 0,
            id: FIRST_ID,
            fragment: DF,
            options: Vec::new(),
            extension: None,
            ip_checksum: Checksum::Right,
            transport_checksum: Checksum::Right,
            window: 0xffff,
            vlan: None,
            trailer: Vec::new(),
            source_mac: None,
            destination_mac: None,
        }
    }

    /// A datagram.
    pub fn udp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..Self::new(source.into(), destination.into(), UDP, Transport::Udp)
        }
    }

    /// A segment.
    pub fn tcp(
        source: impl Into<SocketAddr>,
        destination: impl Into<SocketAddr>,
        flags: u8,
        seq: u32,
        ack: u32,
    ) -> Self {
        let transport = Transport::Tcp {
            seq,
            ack,
            flags,
            options: Vec::new(),
        };
        Self::new(source.into(), destination.into(), TCP, transport)
    }

    /// An ICMP message.
    pub fn icmp(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        kind: u8,
        code: u8,
        word: [u8; 4],
        payload: &[u8],
    ) -> Self {
        let (source, destination) = (source.into(), destination.into());
        let protocol = match Family::of(source) {
            Family::V4 => ICMP,
            Family::V6 => ICMP6,
        };
        let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
        Self {
            payload: payload.to_vec(),
            ..Self::new(source, destination, protocol, Transport::Icmp(kind, code, word))
        }
    }

    /// Its address family.
    pub const fn family(&self) -> Family {
        Family::of(self.source.ip())
    }

    /// The same with this payload.
    #[must_use]
    pub fn data(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The same, changed in place.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The IP packet in pieces whose payload has at most `size` bytes, a multiple of eight.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let whole = self.transport_bytes();
        let count = whole.len().div_ceil(size);
        let pieces = whole.chunks(size).enumerate();
        pieces
            .map(|(number, piece)| {
                let offset = u16::try_from(number * size / 8).expect("an offset");
                let more = if number + 1 < count { MF } else { 0 };
                self.clone().with(|packet| {
                    packet.transport = Transport::None;
                    packet.payload = piece.to_vec();
                    packet.fragment = offset | more;
                })
            })
            .collect()
    }

    /// IP header and what follows.
    pub fn ip_bytes(&self) -> Vec<u8> {
        match self.family() {
            Family::V4 => self.ipv4_bytes(),
            Family::V6 => self.ipv6_bytes(),
        }
    }

    fn ipv4_bytes(&self) -> Vec<u8> {
        let transport = self.transport_bytes();
        let header = 20 + self.options.len();
        let length = u16::try_from(header + transport.len()).expect("a length");
        let words = u8::try_from(header / 4).expect("a header length");
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(octets(self.source.ip()));
        bytes.extend(octets(self.destination.ip()));
        bytes.extend(&self.options);
        let checksum = self.ip_checksum.of(!sum(&[&bytes]));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(transport);
        bytes
    }

    /// RFC 8200; what follows the header is options for the destination, a fragment header, and the transport part.
    fn ipv6_bytes(&self) -> Vec<u8> {
        let mut next = self.protocol;
        let mut rest = self.transport_bytes();
        let mut before = |number: u8, body: Vec<u8>| {
            rest = [vec![next], body, rest.clone()].concat();
            next = number;
        };
        let [id, fragment] = [self.id, self.fragment & !DF];
        if fragment != 0 {
            let field = fragment << 3 | u16::from(fragment & MF != 0);
            let mut body = vec![0];
            body.extend(field.to_be_bytes());
            body.extend(u32::from(id).to_be_bytes());
            before(FRAGMENT, body);
        }
        if let Some((number, body)) = &self.extension {
            before(*number, body.clone());
        }
        let length = u16::try_from(rest.len()).expect("a length");
        let mut bytes = vec![0x60 | self.tos >> 4, self.tos << 4];
        bytes.extend(id.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, self.ttl]);
        bytes.extend(octets(self.source.ip()));
        bytes.extend(octets(self.destination.ip()));
        bytes.extend(rest);
        bytes
    }

    /// The frame.
    pub fn frame(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        let mut bytes = self.destination_mac.unwrap_or(destination).to_vec();
        bytes.extend(self.source_mac.unwrap_or(source));
        if let Some(tag) = self.vlan {
            bytes.extend([0x81, 0x00]);
            bytes.extend(tag.to_be_bytes());
        }
        bytes.extend(self.family().ethertype().to_be_bytes());
        bytes.extend(self.ip_bytes());
        bytes.extend(&self.trailer);
        bytes
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let (mut bytes, place) = match &self.transport {
            Transport::None => return self.payload.clone(),
            Transport::Tcp {
                seq,
                ack,
                flags,
                options,
            } => {
                let mut bytes = self.ports();
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                let words = u8::try_from((20 + options.len()) / 4).expect("a header length");
                bytes.extend([words << 4, *flags]);
                bytes.extend(self.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                (bytes, 16)
            }
            Transport::Udp => {
                let mut bytes = self.ports();
                let length = u16::try_from(8 + self.payload.len()).expect("a length");
                bytes.extend(length.to_be_bytes());
                bytes.extend([0, 0]);
                (bytes, 6)
            }
            Transport::Icmp(kind, code, word) => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(word);
                (bytes, 2)
            }
        };
        bytes.extend(&self.payload);
        let pseudo = if self.protocol == ICMP {
            Vec::new()
        } else {
            pseudo_header(self.source.ip(), self.destination.ip(), self.protocol, bytes.len())
        };
        let checksum = self.transport_checksum.of(!sum(&[&pseudo, &bytes]));
        bytes[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn ports(&self) -> Vec<u8> {
        let mut bytes = self.source.port().to_be_bytes().to_vec();
        bytes.extend(self.destination.port().to_be_bytes());
        bytes
    }
}

impl Checksum {
    fn of(self, right: u16) -> u16 {
        match self {
            Self::Right => right,
            Self::Wrong => right ^ 1,
            Self::Zero => 0,
        }
    }
}

/// The bytes of an address.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// What the checksums of TCP, UDP and `ICMPv6` cover besides their own bytes; IPv6's longer fields add the same to the sum.
pub fn pseudo_header(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    length: usize,
) -> Vec<u8> {
    let mut bytes = octets(source.into());
    bytes.extend(octets(destination.into()));
    bytes.extend([0, protocol]);
    bytes.extend(u16::try_from(length).expect("a length").to_be_bytes());
    bytes
}
