//! Odd packets, as frames.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use netfast_tests::seeds::{family::Family, names, odd::Odd, scenario::Place};

use super::super::{
    conversation::set_tcp,
    describe::sum,
    station::Offload,
    wire::{Checksum, DF, Packet, TCP, Transport, pseudo_header},
};

/// Where the IP header begins, there being no tag.
const IP: usize = 14;
/// What a link carries unless something else is said.
const MTU: usize = 1500;

/// The hop limit of neighbour discovery: what has passed a router is none (RFC 4861, 3.1).
const NEIGHBOURLY: u8 = 255;

/// Changes an ordinary packet; a burst, or one in pieces, is several.
pub fn make(packet: Packet, odd: Odd) -> Vec<Packet> {
    let family = packet.family();
    let with = |change: &dyn Fn(&mut Packet)| vec![packet.clone().with(|packet| change(packet))];
    match odd {
        Odd::Plain(length) => with(&|packet| packet.payload = bytes(length.into())),
        Odd::Full { df } => {
            let room = MTU - packet.clone().data(b"").ip_bytes().len();
            with(&|packet| {
                packet.payload = bytes(room);
                packet.fragment = if df { DF } else { 0 };
            })
        }
        Odd::Ttl(ttl) => with(&|packet| packet.ttl = ttl),
        Odd::Dscp(dscp) => with(&|packet| packet.tos = dscp << 2),
        Odd::Ecn(ecn) => with(&|packet| packet.tos = ecn),
        // Record route with room for two; timestamps are of the moment, so not that.
        Odd::IpOptions if family == Family::V4 => {
            with(&|packet| packet.options = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        Odd::IpOptions => with(&|packet| packet.extension = Some(extension(60))),
        Odd::Extension(number) => with(&|packet| packet.extension = Some(extension(number))),
        Odd::LinkLocal { source } => with(&|packet| link_local(packet, source)),
        Odd::Discovery(kind) => vec![discovery(&packet, kind)],
        Odd::Fragments {
            size,
            reversed,
            first_only,
        } => {
            let mut pieces = packet.data(&bytes(60)).fragments(size.into());
            if first_only {
                pieces.truncate(1);
            }
            if reversed {
                pieces.reverse();
            }
            pieces
        }
        Odd::ReservedBit => with(&|packet| packet.fragment = 0x8000),
        Odd::NoDf => with(&|packet| packet.fragment = 0),
        Odd::BadIpChecksum => with(&|packet| packet.ip_checksum = Checksum::Wrong),
        Odd::BadChecksum => with(&|packet| packet.transport_checksum = Checksum::Wrong),
        Odd::ZeroChecksum => with(&|packet| packet.transport_checksum = Checksum::Zero),
        Odd::Vlan(tag) => with(&|packet| packet.vlan = Some(tag)),
        Odd::Protocol(protocol) => with(&|packet| packet.protocol = protocol),
        Odd::SpoofedAddress(place) => with(&|packet| packet.source.set_ip(names::ip(place, family))),
        Odd::StrangeAddress => with(&|packet| packet.source.set_ip(names::nobody(family))),
        Odd::SpoofedMac(place) => with(&|packet| packet.source_mac = Some(names::mac(place))),
        Odd::MulticastMac => with(&|packet| packet.destination_mac = Some(group(family).1)),
        Odd::BroadcastMac => with(&|packet| packet.destination_mac = Some([0xff; 6])),
        Odd::StrangeMac => with(&|packet| packet.destination_mac = Some([2, 0, 0, 0, 0xee, 0xee])),
        Odd::WrongMac(place) => with(&|packet| packet.destination_mac = Some(names::mac(place))),
        Odd::MulticastAddress => with(&|packet| {
            let (ip, mac) = group(family);
            packet.destination.set_ip(ip);
            packet.destination_mac = Some(mac);
        }),
        Odd::Flags(new) => with(&|packet| change_tcp(packet, |flags, _, _| *flags = new)),
        Odd::TcpOptions { long } => with(&|packet| {
            change_tcp(packet, |_, _, options| {
                *options = if long {
                    vec![0; 40]
                } else {
                    vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
                };
            });
        }),
        // Behind all that was acknowledged, as if something before it was missing.
        Odd::Sack => with(&|packet| {
            change_tcp(packet, |_, _, options| {
                *options = vec![1, 1, 5, 10, 0, 0x20, 0, 0, 0, 0x20, 0, 10];
            });
        }),
        Odd::Window(window) => with(&|packet| packet.window = window),
        Odd::Needle => with(&|packet| packet.payload = b"needle in a packet".to_vec()),
        Odd::Ftp(place, port) => with(&|packet| packet.payload = ftp_port(place, port)),
        Odd::OutOfWindow(distance) => with(&|packet| {
            change_tcp(packet, |_, seq, _| *seq = seq.wrapping_add(distance));
        }),
        Odd::Burst(count) => (1..=count)
            .map(|number| packet.clone().data(&bytes(usize::from(number) * 10)))
            .collect(),
        Odd::Gso { size, count } => with(&|packet| packet.payload = bytes(usize::from(size) * usize::from(count))),
        // Done to the frame.
        Odd::Padded(_) | Odd::Truncated(_) | Odd::BadLength | Odd::NotIp | Odd::BadHeaderLength => vec![packet],
    }
}

/// A group's address, that of mDNS, and the MAC address that goes with it.
fn group(family: Family) -> (IpAddr, [u8; 6]) {
    match family {
        Family::V4 => ([224, 0, 0, 251].into(), [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb]),
        Family::V6 => {
            let ip = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfb);
            (ip.into(), [0x33, 0x33, 0, 0, 0, 0xfb])
        }
    }
}

/// An extension header that says nothing, without its first byte: padding as its only option, no segment left of a route, the
/// only fragment of a datagram.
fn extension(number: u8) -> (u8, Vec<u8>) {
    let body = match number {
        43 => [0, 4, 0, 0, 0, 0, 0],
        44 => [0, 0, 0, 0, 0, 0x4e, 0xff],
        _ => [0, 1, 4, 0, 0, 0, 0],
    };
    (number, body.to_vec())
}

/// Puts a link-local address in the place of the source's or, between neighbours, the destination's: the host would ask for
/// another's, and be told by its timers that nobody has it.
fn link_local(packet: &mut Packet, is_source: bool) {
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    if is_source || !names::are_neighbours(source, destination) {
        packet.source.set_ip(names::link_local(source));
    } else {
        packet.destination.set_ip(names::link_local(destination));
    }
}

/// A message of neighbour or router discovery by the sender of a packet, about itself or about whom that goes to.
fn discovery(packet: &Packet, kind: u8) -> Packet {
    let octets = |end: SocketAddr| match end.ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
    };
    let (own, other) = (octets(packet.source), octets(packet.destination));
    let (word, body) = match kind {
        // Of no router: hop limit and lifetime are 0, and so are the times behind them.
        134 => ([0; 4], vec![0; 8]),
        135 => ([0; 4], other.to_vec()),
        136 => ([0x20, 0, 0, 0], own.to_vec()),
        // The better way to the destination is the destination.
        137 => ([0; 4], [other, other].concat()),
        _ => ([0; 4], Vec::new()),
    };
    let made = Packet::icmp(packet.source.ip(), packet.destination.ip(), kind, 0, word, &body);
    made.with(|made| made.ttl = NEIGHBOURLY)
}

/// FTP's command that tells where the sender listens (RFC 959, 4.1.2).
fn ftp_port(place: Place, port: u16) -> Vec<u8> {
    let IpAddr::V4(ip) = names::ip(place, Family::V4) else {
        unreachable!("an address of IPv4")
    };
    let [a, b, c, d] = ip.octets();
    let [high, low] = port.to_be_bytes();
    format!("PORT {a},{b},{c},{d},{high},{low}\r\n").into_bytes()
}

/// What the kernel must be told of a packet that the device is to cut; the frame gets the partial checksum that goes
/// with that.
pub fn offload(frame: &mut [u8], odd: Odd) -> Option<Offload> {
    let Odd::Gso { size, .. } = odd else { return None };
    let family = family_of(frame)?;
    let protocol = frame[IP + place_of_protocol(family)];
    let is_tcp = protocol == TCP;
    let checksum = if is_tcp { 16 } else { 6 };
    let start = IP + family.header();
    let length = frame.len() - start;
    let (source, destination) = match family {
        Family::V4 => (four(frame, IP + 12), four(frame, IP + 16)),
        Family::V6 => (six(frame, IP + 8), six(frame, IP + 24)),
    };
    let pseudo = pseudo_header(source, destination, protocol, length);
    let place = start + checksum;
    frame[place..place + 2].copy_from_slice(&sum(&[&pseudo]).to_be_bytes());
    let transport = if is_tcp {
        usize::from(frame[start + 12] >> 4) * 4
    } else {
        8
    };
    Some(Offload {
        family,
        is_tcp,
        header: u16::try_from(start + transport).expect("short"),
        size,
        start: u16::try_from(start).expect("short"),
        checksum: u16::try_from(checksum).expect("short"),
    })
}

/// The family of an untagged frame.
fn family_of(frame: &[u8]) -> Option<Family> {
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let mut families = [Family::V4, Family::V6].into_iter();
    families.find(|family| family.ethertype() == ethertype)
}

const fn place_of_protocol(family: Family) -> usize {
    match family {
        Family::V4 => 9,
        Family::V6 => 6,
    }
}

fn four(frame: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 4] = frame[at..at + 4].try_into().expect("four bytes");
    octets.into()
}

fn six(frame: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 16] = frame[at..at + 16].try_into().expect("sixteen bytes");
    octets.into()
}

/// What is wrong with a frame rather than with its packet.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all else is wrong with the packet, see `make`, which lists all"
)]
pub fn spoil(frame: &mut Vec<u8>, odd: Odd) {
    let Some(family) = family_of(frame) else { return };
    let start = IP + family.header();
    match odd {
        Odd::Padded(count) => frame.extend(vec![0xee; count.into()]),
        Odd::Truncated(count) => {
            let place = match family {
                Family::V4 => IP + 2,
                Family::V6 => IP + 4,
            };
            let length = u16::from_be_bytes([frame[place], frame[place + 1]]) + u16::from(count);
            frame[place..place + 2].copy_from_slice(&length.to_be_bytes());
            sum_up(frame, family);
        }
        Odd::BadHeaderLength => {
            frame[IP] = match family {
                Family::V4 => 0x44,
                Family::V6 => 0x50 | frame[IP] & 0xf,
            };
            sum_up(frame, family);
        }
        Odd::NotIp => frame[12..14].copy_from_slice(&[0x88, 0xb6]),
        Odd::BadLength if frame[IP + place_of_protocol(family)] == TCP => frame[start + 12] = 0x40,
        Odd::BadLength => {
            let length = u16::from_be_bytes([frame[start + 4], frame[start + 5]]) + 8;
            frame[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
        }
        _ => {}
    }
}

/// The checksum of IPv4's header.
fn sum_up(frame: &mut [u8], family: Family) {
    if family == Family::V6 {
        return;
    }
    frame[IP + 10..IP + 12].fill(0);
    let sum = !sum(&[&frame[IP..IP + 20]]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

fn change_tcp(packet: &mut Packet, change: impl Fn(&mut u8, &mut u32, &mut Vec<u8>)) {
    if let Transport::Tcp {
        seq,
        ack,
        flags,
        options,
    } = &packet.transport
    {
        let (mut flags, mut seq, ack, mut options) = (*flags, *seq, *ack, options.clone());
        change(&mut flags, &mut seq, &mut options);
        set_tcp(packet, flags, seq, ack, &options);
    }
}

/// A payload of which every byte tells its place.
pub fn bytes(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}
