//! Bytes to one readable line that holds all that must be the same with netfast off and on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use etherparse::{Ipv4HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use netfast_tests::packet::internet_checksum;

use super::wire::{DF, FIRST_ID, ICMP, MF, TCP, UDP, pseudo_header};

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

/// What an IPv4 packet is, as far as scripts need it to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub protocol: u8,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

impl Frame {
    /// The IP packet in it; `None` for ARP, IPv6 and all else.
    fn ip(&self) -> Option<&[u8]> {
        match self.bytes.get(12..14)? {
            [0x08, 0x00] => self.bytes.get(14..),
            [0x81, 0x00] if self.bytes.get(16..18)? == [0x08, 0x00] => self.bytes.get(18..),
            _ => None,
        }
    }

    /// Addresses and ports; of what is neither TCP nor UDP, ports are zero.
    pub fn tuple(&self) -> Option<Tuple> {
        let ip = Ipv4HeaderSlice::from_slice(self.ip()?).ok()?;
        let rest = self.ip()?.get(ip.slice().len()..)?;
        let protocol = ip.protocol().0;
        let port = |at: usize| match (protocol, rest.get(at..at + 2)) {
            (TCP | UDP, Some(bytes)) => u16::from_be_bytes([bytes[0], bytes[1]]),
            _ => 0,
        };
        Some(Tuple {
            protocol,
            source: SocketAddrV4::new(ip.source_addr(), port(0)),
            destination: SocketAddrV4::new(ip.destination_addr(), port(2)),
        })
    }

    /// Sequence and acknowledgement number of a TCP segment that accepts a connection.
    pub fn syn_ack(&self) -> Option<(u32, u32)> {
        let ip = Ipv4HeaderSlice::from_slice(self.ip()?).ok()?;
        if ip.protocol().0 != TCP {
            return None;
        }
        let tcp = TcpHeaderSlice::from_slice(self.ip()?.get(ip.slice().len()..)?).ok()?;
        (tcp.syn() && tcp.ack()).then(|| (tcp.sequence_number(), tcp.acknowledgment_number()))
    }

    /// Whether it is a TCP segment from or to such a port, or an ICMP error about one.
    pub fn is_of_ports(&self, is_one: fn(u16) -> bool) -> bool {
        self.ip().is_some_and(|ip| is_tcp_of(ip, is_one))
    }

    /// Whether a script can have caused it: IPv4, and not IGMP, which bridges speak when they please.
    pub fn is_scripted(&self) -> bool {
        self.ip().is_some_and(|ip| ip.get(9) != Some(&IGMP))
    }

    /// The line; `None` for what is not IPv4. Of identifications, only those that were sent are told.
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
        line.push_str(&packet(ip, self.is_partial));
        Some(with_known_ids(&line, sent))
    }
}

/// Whether an IP packet is TCP from or to such a port, or an ICMP error about one that is.
fn is_tcp_of(bytes: &[u8], is_one: fn(u16) -> bool) -> bool {
    let Some(rest) = Ipv4HeaderSlice::from_slice(bytes)
        .ok()
        .and_then(|ip| bytes.get(ip.slice().len()..))
    else {
        return false;
    };
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match bytes[9] {
        TCP => [0, 2].into_iter().filter_map(port).any(is_one),
        ICMP if is_error(rest) => rest.get(8..).is_some_and(|quoted| is_tcp_of(quoted, is_one)),
        _ => false,
    }
}

/// Unreachable, time exceeded, parameter problem: the packet in question follows the header.
fn is_error(icmp: &[u8]) -> bool {
    icmp.first().is_some_and(|kind| [3, 11, 12].contains(kind))
}

/// One IP packet.
fn packet(bytes: &[u8], is_partial: bool) -> String {
    let Ok(ip) = Ipv4HeaderSlice::from_slice(bytes) else {
        return format!("no IPv4 header: {}", data(bytes));
    };
    let header = ip.slice();
    let length = usize::from(ip.total_len());
    let rest = &bytes[header.len()..];
    let word = u16::from_be_bytes([header[6], header[7]]);
    let mut line = format!("{}>{}", ip.source_addr(), ip.destination_addr());
    let _ = write!(line, " ttl={} tos={:#04x} len={length}", ip.ttl(), header[1]);
    match ip.identification() {
        id @ FIRST_ID..=0x4eff => {
            let _ = write!(line, " id={id:#06x}");
        }
        // The kernel's choice.
        _ => line.push_str(" id=other"),
    }
    if word & DF != 0 {
        line.push_str(" df");
    }
    if word & !DF != 0 {
        let _ = write!(line, " fragment at {}", (word & 0x1fff) * 8);
        line.push_str(if word & MF == 0 { ", the last" } else { "" });
    }
    if !ip.options().is_empty() {
        let _ = write!(line, " options={:02x?}", ip.options());
    }
    if sum(&[header]) != 0xffff {
        line.push_str(" BAD IP CHECKSUM");
    }
    if length < bytes.len() {
        let _ = write!(line, " and {} bytes behind it", bytes.len() - length);
    }
    let quoted = length > bytes.len();
    let rest = &rest[..rest.len().min(length.saturating_sub(header.len()))];
    let protocol = ip.protocol().0;
    if word & 0x1fff != 0 || word & MF != 0 {
        let _ = write!(line, " protocol {protocol} {}", data(rest));
        return line;
    }
    line.push_str(&transport(protocol, rest));
    let is_unsummed = protocol == UDP && is_unsummed(rest);
    if !quoted && !is_partial && !is_unsummed {
        let is_right = is_sum_right(ip.source_addr(), ip.destination_addr(), protocol, rest);
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

fn transport(protocol: u8, bytes: &[u8]) -> String {
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
    if protocol == ICMP && bytes.len() >= 8 {
        let mut text = format!(" icmp {}/{} {:02x?}", bytes[0], bytes[1], &bytes[4..8]);
        if is_error(bytes) {
            let _ = write!(text, " about {{{}}}", packet(&bytes[8..], true));
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

fn is_sum_right(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: &[u8]) -> bool {
    match protocol {
        TCP | UDP => sum(&[&pseudo_header(source, destination, protocol, bytes.len()), bytes]) == 0xffff,
        ICMP => sum(&[bytes]) == 0xffff,
        _ => true,
    }
}

/// The Internet checksum's sum (RFC 1071) over parts of even length, the last of any.
pub fn sum(parts: &[&[u8]]) -> u16 {
    !internet_checksum(parts)
}
