//! Packets as tests write them: every field by name, lengths and checksums right unless asked otherwise, and a
//! difference between two packets that tells fields and not offsets.
//!
//! Checksums here are computed from nothing, the plain way, so that they can judge incremental ones.

use std::{fmt::Write as _, net::Ipv4Addr};

pub mod odd;
pub mod six;

/// A MAC address.
pub type Mac = [u8; 6];

/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// IANA protocol numbers.
pub const TCP: u8 = 6;
/// As above.
pub const UDP: u8 = 17;
/// As above.
pub const ICMP: u8 = 1;

/// Types of ICMP: a reply of echo, and a request.
pub const ECHO_REPLY: u8 = 0;
/// As above.
pub const ECHO: u8 = 8;

/// TCP flags.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement counts.
    pub const ACK: u8 = 0x10;
}

/// An Ethernet frame with an IPv4 packet in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination MAC address.
    pub to_mac: Mac,
    /// Source MAC address.
    pub from_mac: Mac,
    /// `EtherType`.
    pub ethertype: u16,
    /// IP version and header length in words; `None`: the right ones.
    pub version_length: Option<u8>,
    /// TOS: DSCP and ECN.
    pub tos: u8,
    /// IP length field; `None`: the right one.
    pub length: Option<u16>,
    /// IP identification.
    pub id: u16,
    /// IP flags and fragment offset, as the 16-bit field.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// IP protocol.
    pub protocol: u8,
    /// IP header checksum; `None`: the right one.
    pub ip_checksum: Option<u16>,
    /// Source address and port.
    pub source: (Ipv4Addr, u16),
    /// Destination address and port.
    pub destination: (Ipv4Addr, u16),
    /// IP options: a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// ICMP's type and code; `None`: echo, a request if there is a source port, else a reply. What of the two ports is not zero is
    /// its identifier.
    pub icmp_type: Option<[u8; 2]>,
    /// ICMP's second word; `None`: identifier and sequence number.
    pub icmp_word: Option<[u8; 4]>,
    /// TCP sequence number; the lower half is that of ICMP echo.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// TCP flags.
    pub flags: u8,
    /// TCP window.
    pub window: u16,
    /// TCP options: a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    /// TCP header length in words; `None`: the right one.
    pub data_offset: Option<u8>,
    /// UDP length field; `None`: the right one.
    pub udp_length: Option<u16>,
    /// Transport checksum; `None`: the right one.
    pub checksum: Option<u16>,
    /// Payload of the transport; of the IP packet if the protocol is neither TCP, UDP nor ICMP.
    pub payload: Vec<u8>,
    /// Bytes after the IP packet: Ethernet's padding.
    pub trailer: Vec<u8>,
}

/// Don't fragment.
pub const DF: u16 = 0x4000;
/// More fragments.
pub const MF: u16 = 0x2000;

impl Packet {
    /// A TCP segment in the middle of a connection, with payload.
    pub fn tcp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self {
            to_mac: [0x02, 0x42, 0, 0, 0, 1],
            from_mac: [0x02, 0x42, 0, 0, 0, 2],
            ethertype: IPV4,
            version_length: None,
            tos: 0,
            length: None,
            id: 0x1234,
            fragment: DF,
            ttl: 64,
            protocol: TCP,
            ip_checksum: None,
            source,
            destination,
            ip_options: Vec::new(),
            icmp_type: None,
            icmp_word: None,
            sequence: 0x1000_0001,
            acknowledgement: 0x2000_0002,
            flags: flag::ACK | flag::PSH,
            window: 502,
            tcp_options: Vec::new(),
            data_offset: None,
            udp_length: None,
            checksum: None,
            payload: b"the quick brown fox jumps over the lazy dog".to_vec(),
            trailer: Vec::new(),
        }
    }

    /// A UDP datagram.
    pub fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self {
            protocol: UDP,
            ..Self::tcp(source, destination)
        }
    }

    /// A message of ICMP echo: see [`Packet::icmp_type`].
    pub fn echo(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self {
            protocol: ICMP,
            ..Self::tcp(source, destination)
        }
    }

    /// The same, changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The same between other MAC addresses.
    #[must_use]
    pub fn macs(self, to: Mac, from: Mac) -> Self {
        self.with(|packet| {
            packet.to_mac = to;
            packet.from_mac = from;
        })
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let header = 20 + self.ip_options.len();
        let mut ip = vec![self.version_length.unwrap_or(0x40 | low_byte(header / 4)), self.tos];
        ip.extend(
            self.length
                .unwrap_or_else(|| field(header + transport.len()))
                .to_be_bytes(),
        );
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source.0.octets());
        ip.extend(self.destination.0.octets());
        ip.extend(&self.ip_options);
        let checksum = self.ip_checksum.unwrap_or_else(|| internet_checksum(&[&ip]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [self.to_mac, self.from_mac].concat();
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(ip);
        frame.extend(transport);
        frame.extend(&self.trailer);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let place = match self.protocol {
            TCP => {
                bytes.extend(self.source.1.to_be_bytes());
                bytes.extend(self.destination.1.to_be_bytes());
                bytes.extend(self.sequence.to_be_bytes());
                bytes.extend(self.acknowledgement.to_be_bytes());
                let words = self.data_offset.unwrap_or(low_byte(5 + self.tcp_options.len() / 4));
                bytes.extend([words << 4, self.flags]);
                bytes.extend(self.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(&self.tcp_options);
                16
            }
            UDP => {
                bytes.extend(self.source.1.to_be_bytes());
                bytes.extend(self.destination.1.to_be_bytes());
                bytes.extend(
                    self.udp_length
                        .unwrap_or_else(|| field(8 + self.payload.len()))
                        .to_be_bytes(),
                );
                bytes.extend([0; 2]);
                6
            }
            ICMP => {
                let (kind, identifier) = match self.source.1 {
                    0 => (ECHO_REPLY, self.destination.1),
                    identifier => (ECHO, identifier),
                };
                bytes.extend(self.icmp_type.unwrap_or([kind, 0]));
                bytes.extend([0; 2]);
                let ([a, b], [.., c, d]) = (identifier.to_be_bytes(), self.sequence.to_be_bytes());
                bytes.extend(self.icmp_word.unwrap_or([a, b, c, d]));
                2
            }
            _ => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        let computed = transport_checksum(self.source.0, self.destination.0, self.protocol, &bytes);
        bytes[place..place + 2].copy_from_slice(&self.checksum.unwrap_or(computed).to_be_bytes());
        bytes
    }
}

fn field(length: usize) -> u16 {
    // IPv4 BIG TCP writes 0 where the length does not fit.
    u16::try_from(length).unwrap_or(0)
}

fn low_byte(number: usize) -> u8 {
    u8::try_from(number).expect("a header is short")
}

/// RFC 1071, over the parts one after the other; each but the last has an even length.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The checksum that a transport header and its payload should have; its own field counts as zero if it is.
fn transport_checksum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: &[u8]) -> u16 {
    let length = u32::try_from(bytes.len()).expect("a packet is short").to_be_bytes();
    let mut pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, protocol]].concat();
    if protocol == ICMP {
        pseudo.clear();
    }
    match internet_checksum(&[&pseudo, bytes]) {
        // RFC 768: zero means none, so a computed zero is sent as all ones.
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    }
}

/// Whether the checksums of a frame's IPv4 header and of its TCP, UDP or ICMP part are right, counted anew.
pub fn check_checksums(frame: &[u8]) -> Result<(), String> {
    let ip = frame.get(14..34).ok_or("no IPv4 header")?;
    if internet_checksum(&[ip]) != 0 {
        return Err("the IP checksum is wrong".to_owned());
    }
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let transport = frame.get(34..14 + length).ok_or("cut short")?;
    if ip[9] == UDP && transport[6..8] == [0, 0] {
        return Ok(());
    }
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let length = u32::try_from(transport.len()).expect("a packet is short").to_be_bytes();
    let mut pseudo = [&address(12).octets()[..], &address(16).octets(), &length, &[0, ip[9]]].concat();
    if ip[9] == ICMP {
        pseudo.clear();
    }
    match internet_checksum(&[&pseudo, transport]) {
        0 => Ok(()),
        off => Err(format!("the transport checksum is off by {off:#06x}")),
    }
}

/// Fields of a frame without IP options: name, first byte, bytes.
const FIELDS: [(&str, usize, usize); 16] = [
    ("to mac", 0, 6),
    ("from mac", 6, 6),
    ("ethertype", 12, 2),
    ("version", 14, 1),
    ("tos", 15, 1),
    ("ip length", 16, 2),
    ("id", 18, 2),
    ("fragment", 20, 2),
    ("ttl", 22, 1),
    ("protocol", 23, 1),
    ("ip checksum", 24, 2),
    ("source", 26, 4),
    ("destination", 30, 4),
    ("source port", 34, 2),
    ("destination port", 36, 2),
    ("transport and payload", 38, usize::MAX - 38),
];

/// What differs between two frames, by field; empty if nothing does.
pub fn difference(wanted: &[u8], got: &[u8]) -> String {
    let mut text = String::new();
    for (name, start, bytes) in FIELDS {
        let part = |frame: &[u8]| {
            let end = start.saturating_add(bytes).min(frame.len());
            frame.get(start..end).map(hex).unwrap_or_default()
        };
        let (wanted, got) = (part(wanted), part(got));
        if wanted != got {
            writeln!(text, "  {name}: wanted {wanted}, got {got}").expect("a string takes all");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DNS query as tcpdump showed it once, addresses changed by hand and checksums with them.
    #[test]
    fn a_packet_is_what_the_wire_has() {
        let packet = Packet::udp((Ipv4Addr::new(192, 0, 2, 1), 0x1234), (Ipv4Addr::new(192, 0, 2, 2), 53))
            .with(|packet| packet.payload = vec![1, 2, 3]);
        let bytes = packet.bytes();
        assert_eq!(bytes.len(), 14 + 20 + 8 + 3);
        // 4500 001f 1234 4000 4011 .... c000 0201 c000 0202: the sum of the words but the checksum is 0x1ba6a + …
        assert_eq!(bytes[14..18], [0x45, 0, 0, 31]);
        check_checksums(&bytes).expect("right");
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let is_covered = (14 * 8..).contains(&bit);
            if is_covered {
                check_checksums(&broken).expect_err("every bit of the IP packet is covered by a checksum");
            }
        }
    }

    #[test]
    fn echo_is_what_the_wire_has() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        for (source, destination, kind) in [((a, 0x1234), (b, 0), 8), ((a, 0), (b, 0x1234), 0)] {
            let bytes = Packet::echo(source, destination)
                .with(|packet| packet.sequence = 0xaaaa_0507)
                .bytes();
            let sliced = etherparse::SlicedPacket::from_ethernet(&bytes).expect("a packet");
            let Some(etherparse::TransportSlice::Icmpv4(icmp)) = sliced.transport else {
                panic!("not ICMP")
            };
            assert_eq!((icmp.type_u8(), icmp.code_u8()), (kind, 0));
            assert_eq!(icmp.bytes5to8(), [0x12, 0x34, 5, 7]);
            check_checksums(&bytes).expect("right");
        }
    }

    #[test]
    fn a_difference_tells_fields() {
        let one = Packet::tcp((Ipv4Addr::LOCALHOST, 1), (Ipv4Addr::LOCALHOST, 2));
        let other = one.clone().with(|packet| packet.ttl = 63);
        let text = difference(&one.bytes(), &other.bytes());
        assert!(text.contains("ttl: wanted 40, got 3f"), "{text}");
        assert!(text.contains("ip checksum"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(difference(&one.bytes(), &one.bytes()), "");
    }
}
