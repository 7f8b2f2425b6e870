//! Bytes to one readable line that holds all that must be the same with netfast off and on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use etherparse::{TcpHeaderSlice, UdpHeaderSlice};
use netfast_tests::{packet::internet_checksum, seeds::family::Family};

use super::{
    ip::{Header, read},
    wire::{FIRST_ID, ICMP, ICMP6, TCP, UDP, pseudo_header},
};

/// IANA's number.
const IGMP: u8 = 2;

/// Names of the MAC addresses of a topology; some are random.
pub type MacNames = BTreeMap<[u8; 6], String>;

/// A frame as an observer got it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// A tag that the kernel took off.
    pub vlan: Option<u16>,
    /// The transport checksum is left to the hardware: it is partial.
    pub is_partial: bool,
}

/// What an IP packet is, as far as scripts need it to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub protocol: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Frame {
    /// The IP packet in it; `None` for ARP and all else.
    fn ip(&self) -> Option<Ip<'_>> {
        let of = |at: usize| {
            let ethertype = u16::from_be_bytes([*self.bytes.get(at)?, *self.bytes.get(at + 1)?]);
            let mut families = [Family::V4, Family::V6].into_iter();
            let family = families.find(|family| family.ethertype() == ethertype)?;
            let bytes = self.bytes.get(at + 2..)?;
            Some(Ip { family, bytes })
        };
        match self.bytes.get(12..14)? {
            [0x81, 0x00] => of(16),
            _ => of(12),
        }
    }

    /// Addresses and ports; of what is neither TCP nor UDP, ports are zero.
    pub fn tuple(&self) -> Option<Tuple> {
        let ip = self.ip()?.header()?;
        let port = |at: usize| match (ip.protocol, ip.rest.get(at..at + 2)) {
            (TCP | UDP, Some(bytes)) => u16::from_be_bytes([bytes[0], bytes[1]]),
            _ => 0,
        };
        Some(Tuple {
            protocol: ip.protocol,
            source: SocketAddr::new(ip.source, port(0)),
            destination: SocketAddr::new(ip.destination, port(2)),
        })
    }

    /// Sequence and acknowledgement number of a TCP segment that accepts a connection.
    pub fn syn_ack(&self) -> Option<(u32, u32)> {
        let ip = self.ip()?.header()?;
        if ip.protocol != TCP {
            return None;
        }
        let tcp = TcpHeaderSlice::from_slice(ip.rest).ok()?;
        (tcp.syn() && tcp.ack()).then(|| (tcp.sequence_number(), tcp.acknowledgment_number()))
    }

    /// Whether it is a TCP segment from or to such a port, or an ICMP error about one.
    pub fn is_of_ports(&self, is_one: fn(u16) -> bool) -> bool {
        self.ip().is_some_and(|ip| ip.is_tcp_of(is_one))
    }

    /// Whether a script can have caused it: IP, and neither IGMP, which bridges speak when they please, nor what IPv6 has for that
    /// and for ARP, unless a script has sent it.
    pub fn is_scripted(&self) -> bool {
        let Some(ip) = self.ip() else { return false };
        let Some(header) = ip.header() else { return true };
        match ip.family {
            Family::V4 => header.protocol != IGMP,
            Family::V6 => !header.is_of_the_link() || (FIRST_ID..=0x4eff).contains(&header.id),
        }
    }

    /// The line; `None` for what is not IP. Of identifications, only those that were sent are told.
    pub fn describe(&self, names: &MacNames, sent: &BTreeSet<u16>) -> Option<String> {
        let ip = self.ip()?;
        let mac = |at: usize| {
            let mac: [u8; 6] = self.bytes[at..at + 6].try_into().expect("six bytes");
            names.get(&mac).cloned().unwrap_or_else(|| format!("{mac:02x?}"))
        };
        let mut line = format!("[{}>{}", mac(6), mac(0));
        if let Some(tag) = self.vlan {
            let _ = write!(line, " vlan {tag}");
        }
        if self.bytes[12..14] == [0x81, 0x00] {
            let _ = write!(line, " tag {:02x?}", &self.bytes[14..16]);
        }
        line.push_str("] ");
        line.push_str(&packet(&ip, self.is_partial));
        Some(with_known_ids(&line, sent))
    }
}

/// An IP packet, or what is left of it in an ICMP error.
struct Ip<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl<'a> Ip<'a> {
    fn header(&self) -> Option<Header<'a>> {
        read(self.family, self.bytes)
    }

    /// Whether it is TCP from or to such a port, or an ICMP error about one that is.
    fn is_tcp_of(&self, is_one: fn(u16) -> bool) -> bool {
        let Some(Header { protocol, rest, .. }) = self.header() else {
            return false;
        };
        let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
        match protocol {
            TCP => [0, 2].into_iter().filter_map(port).any(is_one),
            ICMP | ICMP6 if is_error(self.family, rest) => rest.get(8..).is_some_and(|quoted| {
                let quoted = Ip {
                    family: self.family,
                    bytes: quoted,
                };
                quoted.is_tcp_of(is_one)
            }),
            _ => false,
        }
    }
}

/// Unreachable, too big, time exceeded, parameter problem: the packet in question follows the header.
fn is_error(family: Family, icmp: &[u8]) -> bool {
    icmp.first().is_some_and(|kind| match family {
        Family::V4 => [3, 11, 12].contains(kind),
        Family::V6 => *kind < 128,
    })
}

/// One IP packet.
fn packet(ip: &Ip<'_>, is_partial: bool) -> String {
    let Some(header) = ip.header() else {
        return format!("no {} header: {}", ip.family.name(), data(ip.bytes));
    };
    let Header { protocol, length, .. } = header;
    let mut line = format!("{}>{}", header.source, header.destination);
    let _ = write!(line, " ttl={} tos={:#04x} len={length}", header.ttl, header.tos);
    match header.id {
        id @ FIRST_ID..=0x4eff => {
            let _ = write!(line, " id={id:#06x}");
        }
        // The kernel's choice.
        _ => line.push_str(" id=other"),
    }
    line.push_str(&header.more);
    if let Some(fragment) = header.fragment {
        let _ = write!(line, " fragment at {}", fragment.offset);
        line.push_str(if fragment.is_last { ", the last" } else { "" });
    }
    if length < ip.bytes.len() {
        let _ = write!(line, " and {} bytes behind it", ip.bytes.len() - length);
    }
    let quoted = length > ip.bytes.len();
    let rest = header.rest;
    if header.fragment.is_some() {
        let _ = write!(line, " protocol {protocol} {}", data(rest));
        return line;
    }
    line.push_str(&transport(ip.family, protocol, rest));
    let is_unsummed = protocol == UDP && is_unsummed(rest);
    if !quoted && !is_partial && !is_unsummed {
        let is_right = is_sum_right(&header, rest);
        line.push_str(if is_right { "" } else { " BAD CHECKSUM" });
    }
    if is_unsummed {
        line.push_str(" no checksum");
    }
    line
}

/// One that the kernel has chosen may look like a script's by chance.
fn with_known_ids(line: &str, sent: &BTreeSet<u16>) -> String {
    let words = line.split(' ').map(|word| {
        let id = word
            .strip_prefix("id=0x")
            .and_then(|id| u16::from_str_radix(id, 16).ok());
        if id.is_some_and(|id| !sent.contains(&id)) {
            "id=other"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn transport(family: Family, protocol: u8, bytes: &[u8]) -> String {
    if protocol == TCP
        && let Ok(tcp) = TcpHeaderSlice::from_slice(bytes)
    {
        return format!(
            " tcp {}>{} {} seq={} ack={} win={} urg={} options={:02x?} {}",
            tcp.source_port(),
            tcp.destination_port(),
            flags(bytes[13]),
            tcp.sequence_number(),
            tcp.acknowledgment_number(),
            tcp.window_size(),
            tcp.urgent_pointer(),
            tcp.options(),
            data(&bytes[tcp.slice().len()..])
        );
    }
    if protocol == UDP
        && let Ok(udp) = UdpHeaderSlice::from_slice(bytes)
    {
        return format!(
            " udp {}>{} length={} {}",
            udp.source_port(),
            udp.destination_port(),
            udp.length(),
            data(&bytes[8..])
        );
    }
    if protocol == icmp_of(family) && bytes.len() >= 8 {
        let mut text = format!(" icmp {}/{} {:02x?}", bytes[0], bytes[1], &bytes[4..8]);
        if is_error(family, bytes) {
            let about = Ip {
                family,
                bytes: &bytes[8..],
            };
            let _ = write!(text, " about {{{}}}", packet(&about, true));
        } else {
            let _ = write!(text, " {}", data(&bytes[8..]));
        }
        return text;
    }
    format!(" protocol {protocol} {}", data(bytes))
}

fn flags(byte: u8) -> String {
    let names = "FSRPAUEC".chars().enumerate();
    names
        .filter(|(bit, _)| byte & 1 << bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// Length, beginning, and sum over all.
fn data(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .take(16)
        .flat_map(|byte| byte.escape_ascii())
        .map(char::from)
        .collect();
    format!("data={}:{text}:{:04x}", bytes.len(), sum(&[bytes]))
}

fn is_unsummed(udp: &[u8]) -> bool {
    udp.get(6..8) == Some(&[0, 0])
}

fn is_sum_right(header: &Header<'_>, bytes: &[u8]) -> bool {
    let Header {
        source,
        destination,
        protocol,
        ..
    } = *header;
    match (source, protocol) {
        (_, TCP | UDP) | (IpAddr::V6(_), ICMP6) => {
            sum(&[&pseudo_header(source, destination, protocol, bytes.len()), bytes]) == 0xffff
        }
        (IpAddr::V4(_), ICMP) => sum(&[bytes]) == 0xffff,
        _ => true,
    }
}

const fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMP6,
    }
}

/// The Internet checksum's sum (RFC 1071) over parts of even length, the last of any.
pub fn sum(parts: &[&[u8]]) -> u16 {
    !internet_checksum(parts)
}
