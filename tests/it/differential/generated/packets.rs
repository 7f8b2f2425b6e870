//! Odd packets, as frames.

use std::net::Ipv4Addr;

use netfast_tests::seeds::{names, odd::Odd, scenario::Place};

use super::super::{
    conversation::set_tcp,
    describe::sum,
    station::Offload,
    wire::{Checksum, DF, Packet, TCP, Transport, pseudo_header},
};

/// Where the IP header begins, there being no tag.
const IP: usize = 14;
/// And the transport header, there being no options.
const TRANSPORT: usize = 34;
/// What a link carries unless something else is said.
const MTU: usize = 1500;

/// Changes an ordinary packet; a burst, or one in pieces, is several.
pub fn make(packet: Packet, odd: Odd) -> Vec<Packet> {
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
        Odd::IpOptions => with(&|packet| packet.options = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
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
        Odd::SpoofedAddress(place) => with(&|packet| packet.source.set_ip(names::ip(place))),
        Odd::StrangeAddress => with(&|packet| packet.source.set_ip(names::NOBODY)),
        Odd::SpoofedMac(place) => with(&|packet| packet.source_mac = Some(names::mac(place))),
        Odd::MulticastMac => with(&|packet| packet.destination_mac = Some([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb])),
        Odd::BroadcastMac => with(&|packet| packet.destination_mac = Some([0xff; 6])),
        Odd::StrangeMac => with(&|packet| packet.destination_mac = Some([2, 0, 0, 0, 0xee, 0xee])),
        Odd::WrongMac(place) => with(&|packet| packet.destination_mac = Some(names::mac(place))),
        Odd::MulticastAddress => with(&|packet| {
            packet.destination.set_ip([224, 0, 0, 251].into());
            packet.destination_mac = Some([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb]);
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

/// FTP's command that tells where the sender listens (RFC 959, 4.1.2).
fn ftp_port(place: Place, port: u16) -> Vec<u8> {
    let [a, b, c, d] = names::ip(place).octets();
    let [high, low] = port.to_be_bytes();
    format!("PORT {a},{b},{c},{d},{high},{low}\r\n").into_bytes()
}

/// What the kernel must be told of a packet that the device is to cut; the frame gets the partial checksum that goes
/// with that.
pub fn offload(frame: &mut [u8], odd: Odd) -> Option<Offload> {
    let Odd::Gso { size, .. } = odd else { return None };
    let is_tcp = frame[IP + 9] == TCP;
    let checksum = if is_tcp { 16 } else { 6 };
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let length = frame.len() - TRANSPORT;
    let pseudo = pseudo_header(address(IP + 12), address(IP + 16), frame[IP + 9], length);
    let place = TRANSPORT + checksum;
    frame[place..place + 2].copy_from_slice(&sum(&[&pseudo]).to_be_bytes());
    let transport = if is_tcp {
        usize::from(frame[TRANSPORT + 12] >> 4) * 4
    } else {
        8
    };
    Some(Offload {
        is_tcp,
        header: u16::try_from(TRANSPORT + transport).expect("short"),
        size,
        start: u16::try_from(TRANSPORT).expect("short"),
        checksum: u16::try_from(checksum).expect("short"),
    })
}

/// What is wrong with a frame rather than with its packet.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all else is wrong with the packet, see `make`, which lists all"
)]
pub fn spoil(frame: &mut Vec<u8>, odd: Odd) {
    match odd {
        Odd::Padded(count) => frame.extend(vec![0xee; count.into()]),
        Odd::Truncated(count) => {
            let length = u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]) + u16::from(count);
            frame[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
            sum_up(frame);
        }
        Odd::BadHeaderLength => {
            frame[IP] = 0x44;
            sum_up(frame);
        }
        Odd::NotIp => frame[12..14].copy_from_slice(&[0x88, 0xb6]),
        Odd::BadLength if frame[IP + 9] == TCP => frame[TRANSPORT + 12] = 0x40,
        Odd::BadLength => {
            let length = u16::from_be_bytes([frame[TRANSPORT + 4], frame[TRANSPORT + 5]]) + 8;
            frame[TRANSPORT + 4..TRANSPORT + 6].copy_from_slice(&length.to_be_bytes());
        }
        _ => {}
    }
}

fn sum_up(frame: &mut [u8]) {
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
