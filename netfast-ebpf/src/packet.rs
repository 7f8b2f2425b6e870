//! Headers, and what can be read and written of them. Only [`parse`], [`echo`] and [`icmp`] read headers and only [`rewrite`] writes
//! them.

use netfast_common::{
    net::{Address, MacPair, Port},
    reason::Reason,
};

pub mod echo;
pub mod ends;
pub mod family;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod outer;
pub mod parse;
pub mod rewrite;

pub use self::{family::Family, ipv4::V4, ipv6::V6, parse::parse};

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;
/// The ECN bits of TOS or traffic class (RFC 3168): no verdict depends on them.
pub const ECN: u8 = 3;

/// TCP's flag.
pub const FIN: u8 = 0x01;
/// TCP's flag.
pub const SYN: u8 = 0x02;
/// TCP's flag.
pub const RST: u8 = 0x04;
/// TCP's flag.
pub const ACK: u8 = 0x10;

/// IANA protocol numbers.
pub const TCP: u8 = 6;
/// As above.
pub const UDP: u8 = 17;

/// A word as two halves in memory order: the header's fields are aligned to 2 bytes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
pub const fn halves(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [word as u16, (word >> 16) as u16]
    } else {
        [(word >> 16) as u16, word as u16]
    }
}

/// The directly readable part of a packet.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// Of addresses of the first byte and of the one after the last.
    #[inline(always)]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Reads a value at an offset.
    #[inline(always)]
    pub fn at<T: Copy>(&self, offset: u32) -> Result<T, Reason> {
        if self.start + offset as usize + size_of::<T>() > self.end {
            return Err(Reason::Malformed);
        }
        let place = (self.start + offset as usize) as *const T;
        // SAFETY: the bytes are within the packet, checked above in the form that the verifier understands, and T is
        // made of integers. On BPF a read_unaligned becomes one load per byte; the kernel's verifier refuses a wide
        // load itself where the machine cannot do it unaligned.
        Ok(unsafe {
            if cfg!(target_arch = "bpf") {
                *place
            } else {
                place.read_unaligned()
            }
        })
    }
}

/// What both network headers tell.
#[derive(Clone, Copy, Debug)]
pub struct Network<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// IANA protocol number of the transport header.
    pub protocol: u8,
    /// TOS or traffic class, ECN included.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 header checksum, in wire order.
    pub checksum: u16,
    /// IPv4: identification, flags and fragment offset. IPv6: flow label.
    pub identity: u32,
    /// The length field, in wire order.
    pub wire_length: u16,
    /// Bytes of the network layer: header and payload.
    pub length: u32,
    /// Bytes after the network header.
    pub payload: u32,
    /// Whether bytes follow that belong to no header (Ethernet's padding to 60 bytes).
    pub is_padded: bool,
}

/// What the programs know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<A> {
    /// Ethernet addresses.
    pub macs: MacPair,
    /// Network header.
    pub network: Network<A>,
    /// Source port; of ICMP echo see [`echo_ports`](echo::echo_ports).
    pub source_port: Port,
    /// Destination port, likewise.
    pub destination_port: Port,
    /// TCP: sequence number, acknowledgement, and the word of offset, flags and window; UDP: the length field and
    /// zeros; ICMP echo: type and code, sequence number, and zeros. All in wire order.
    pub transport: [u32; 3],
    /// Transport checksum, in wire order; with UDP 0 is none (RFC 768).
    pub checksum: u16,
    /// Bytes from the start of the frame to the transport's payload.
    pub payload_offset: u32,
    /// Bytes of the transport's payload.
    pub payload: u32,
}

impl<A: Address> Packet<A> {
    /// TCP's flag byte.
    #[inline(always)]
    pub const fn tcp_flags(&self) -> u8 {
        self.transport[2].to_ne_bytes()[1]
    }

    /// UDP's length field, in bytes.
    #[inline(always)]
    pub const fn udp_length(&self) -> u16 {
        let field = self.transport[0].to_ne_bytes();
        u16::from_be_bytes([field[0], field[1]])
    }

    /// ICMP's type and code, in wire order.
    #[inline(always)]
    pub const fn icmp_type(&self) -> u16 {
        let field = self.transport[0].to_ne_bytes();
        u16::from_ne_bytes([field[0], field[1]])
    }
}

/// Bytes of the network layer that must fit a link: the packet's, or those of each segment of a GSO packet.
#[inline(always)]
pub fn segment_length<A>(packet: &Packet<A>, gso_size: u32) -> u32 {
    match gso_size {
        0 => packet.network.length,
        size => packet.network.length - packet.payload + size,
    }
}
