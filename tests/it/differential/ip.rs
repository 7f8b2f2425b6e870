//! IP headers of either family, read as far as they go.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use etherparse::Ipv4HeaderSlice;
use netfast_tests::seeds::family::Family;

use super::{
    describe::sum,
    wire::{DF, FRAGMENT, ICMP6, MF},
};

/// Hop-by-hop options, routing, options for the destination: headers with their length in the second byte.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// A piece of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Bytes before it.
    pub offset: u16,
    pub is_last: bool,
}

/// What is in front of the transport part.
#[derive(Debug)]
pub struct Header<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    /// Of the whole packet, as it says itself.
    pub length: usize,
    /// IPv4's identification, or IPv6's flow label; one that is too long for this is the kernel's choice, and 0 here.
    pub id: u16,
    pub fragment: Option<Fragment>,
    /// What else there is to say, each word after a space.
    pub more: String,
    /// Of the transport part.
    pub protocol: u8,
    pub rest: &'a [u8],
}

impl Header<'_> {
    /// Whether it is what IPv6 has for ARP and IGMP: neighbour and router discovery, and reports of listeners (RFC 4861, 2710,
    /// 3810).
    pub fn is_of_the_link(&self) -> bool {
        let kinds = [130, 131, 132, 133, 134, 135, 136, 137, 143];
        self.protocol == ICMP6 && self.rest.first().is_some_and(|kind| kinds.contains(kind))
    }
}

/// Reads it; `None` if it is not whole.
pub fn read(family: Family, bytes: &[u8]) -> Option<Header<'_>> {
    match family {
        Family::V4 => read4(bytes),
        Family::V6 => read6(bytes),
    }
}

fn read4(bytes: &[u8]) -> Option<Header<'_>> {
    let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let header = ip.slice();
    let length = usize::from(ip.total_len());
    let word = u16::from_be_bytes([header[6], header[7]]);
    let mut more = String::new();
    if word & DF != 0 {
        more.push_str(" df");
    }
    // The reserved bit by itself makes no fragment.
    let offset = word & 0x1fff;
    let fragment = (offset != 0 || word & MF != 0).then_some(Fragment {
        offset: offset * 8,
        is_last: word & MF == 0,
    });
    if word & 0x8000 != 0 {
        more.push_str(" reserved bit");
    }
    if !ip.options().is_empty() {
        let _ = write!(more, " options={:02x?}", ip.options());
    }
    if sum(&[header]) != 0xffff {
        more.push_str(" BAD IP CHECKSUM");
    }
    let rest = &bytes[header.len()..];
    Some(Header {
        source: ip.source_addr().into(),
        destination: ip.destination_addr().into(),
        ttl: ip.ttl(),
        tos: header[1],
        length,
        id: ip.identification(),
        fragment,
        more,
        protocol: ip.protocol().0,
        rest: &rest[..rest.len().min(length.saturating_sub(header.len()))],
    })
}

fn read6(bytes: &[u8]) -> Option<Header<'_>> {
    let header = bytes.get(..40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let number = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let length = 40 + usize::from(number(&header[4..6]));
    let label = u32::from_be_bytes([0, header[1] & 0xf, header[2], header[3]]);
    let mut rest = &bytes[40..bytes.len().min(length)];
    let (mut protocol, mut fragment, mut more) = (header[6], None, String::new());
    while fragment.is_none() && (EXTENSIONS.contains(&protocol) || protocol == FRAGMENT) {
        let Some(first) = rest.get(..8) else { break };
        let size = if protocol == FRAGMENT {
            // Its identification is the kernel's choice where that has put the pieces together and cut them again.
            let field = number(&first[2..4]);
            fragment = Some(Fragment {
                offset: field & !7,
                is_last: field & 1 == 0,
            });
            8
        } else {
            8 * (1 + usize::from(first[1]))
        };
        let Some(whole) = rest.get(..size) else { break };
        if protocol != FRAGMENT {
            let _ = write!(more, " extension {protocol}={:02x?}", &whole[1..]);
        }
        protocol = whole[0];
        rest = &rest[size..];
    }
    Some(Header {
        source: address(8),
        destination: address(24),
        ttl: header[7],
        tos: header[0] << 4 | header[1] >> 4,
        length,
        id: u16::try_from(label).unwrap_or_default(),
        fragment,
        more,
        protocol,
        rest,
    })
}
