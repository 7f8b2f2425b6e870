//! Packets of a script's making, odd ones included: fields to bytes. The bytes are what is said, so a packet can be
//! wrong in any way that a case needs.
//!
//! They are not those of [`netfast_tests::packet`], whose protocol says what follows the IP header: here the transport
//! part is of its own kind, so that it can contradict the protocol's number, be a piece of a packet, or be an ICMP
//! message; and MAC addresses are filled in by who sends it.

use std::net::{Ipv4Addr, SocketAddrV4};

pub use netfast_tests::packet::{
    DF, MF, TCP, UDP,
    flag::{ACK, FIN, PSH, RST, SYN},
};

use super::describe::sum;

/// IANA protocol number.
pub const ICMP: u8 = 1;

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
    /// ICMP: type, code, and the second word.
    Icmp(u8, u8, [u8; 4]),
    /// Nothing but the payload: later fragments.
    None,
}

/// An IPv4 packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub protocol: u8,
    pub transport: Transport,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub tos: u8,
    pub id: u16,
    /// Flags and offset.
    pub fragment: u16,
    /// IP options, a multiple of four bytes.
    pub options: Vec<u8>,
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
    fn new(source: SocketAddrV4, destination: SocketAddrV4, protocol: u8, transport: Transport) -> Self {
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
    pub fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..Self::new(source, destination, UDP, Transport::Udp)
        }
    }

    /// A segment.
    pub fn tcp(source: SocketAddrV4, destination: SocketAddrV4, flags: u8, seq: u32, ack: u32) -> Self {
        let transport = Transport::Tcp {
            seq,
            ack,
            flags,
            options: Vec::new(),
        };
        Self::new(source, destination, TCP, transport)
    }

    /// An ICMP message.
    pub fn icmp(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, code: u8, word: [u8; 4], payload: &[u8]) -> Self {
        let (source, destination) = (SocketAddrV4::new(source, 0), SocketAddrV4::new(destination, 0));
        Self {
            payload: payload.to_vec(),
            ..Self::new(source, destination, ICMP, Transport::Icmp(kind, code, word))
        }
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
        let transport = self.transport_bytes();
        let header = 20 + self.options.len();
        let length = u16::try_from(header + transport.len()).expect("a length");
        let words = u8::try_from(header / 4).expect("a header length");
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.ip().octets());
        bytes.extend(self.destination.ip().octets());
        bytes.extend(&self.options);
        let checksum = self.ip_checksum.of(!sum(&[&bytes]));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(transport);
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
        bytes.extend([0x08, 0x00]);
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
            pseudo_header(*self.source.ip(), *self.destination.ip(), self.protocol, bytes.len())
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

/// What TCP's and UDP's checksums cover besides their own bytes.
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = source.octets().to_vec();
    bytes.extend(destination.octets());
    bytes.extend([0, protocol]);
    bytes.extend(u16::try_from(length).expect("a length").to_be_bytes());
    bytes
}
