//! The same packet of IPv6: what the packet ring's rows say of IPv4 they say of IPv6, too, by other addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{DF, ECHO, ECHO_REPLY, ICMP, IPV4, TCP, UDP, internet_checksum};

/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Bytes that its header is longer.
pub const MORE: usize = 20;
/// IANA protocol number.
pub const ICMP6: u8 = 58;
/// Types of `ICMPv6`: a request of echo, and a reply.
pub const ECHO6: u8 = 128;
/// As above.
pub const ECHO6_REPLY: u8 = 129;

/// The address in the place of another; `None` for those that have no like.
pub fn address(ip: Ipv4Addr) -> Option<Ipv6Addr> {
    let [a, b, c, d] = ip.octets().map(u16::from);
    if ip.is_unspecified() {
        return Some(Ipv6Addr::UNSPECIFIED);
    }
    if a == 0 {
        return None;
    }
    Some(if ip.is_broadcast() || ip.is_multicast() {
        Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
    } else {
        Ipv6Addr::new(0xfd00, 0x4e46, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
    })
}

/// The address that [`address`] took the place of.
pub fn back(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// The frame with an IPv6 header in the place of an IPv4 one, and a transport checksum that is as right or wrong as it was;
/// `None` for what has no like in IPv6: options, fragments, a wrong header checksum. The identification becomes the flow
/// label: neither changes on the way. ICMP becomes `ICMPv6`; what is not echo keeps its type.
pub fn frame(frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(14..34)?;
    let number = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let is_plain = frame[12..14] == IPV4.to_be_bytes() && ip[0] == 0x45 && number(6) == DF;
    if !is_plain || internet_checksum(&[ip]) != 0 {
        return None;
    }
    let addresses = [12, 16].map(|at| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]));
    let [source, destination] = addresses.map(address);
    let (source, destination) = (source?, destination?);
    let (tos, label, protocol) = (ip[1], number(4).to_be_bytes(), ip[9]);
    // BIG TCP has 0 in either.
    let length = match number(2) {
        0 => 0,
        length => length.checked_sub(20)?,
    };
    let mut six = frame[..12].to_vec();
    six.extend(IPV6.to_be_bytes());
    six.extend([0x60 | tos >> 4, tos << 4, label[0], label[1]]);
    six.extend(length.to_be_bytes());
    six.extend([if protocol == ICMP { ICMP6 } else { protocol }, ip[8]]);
    six.extend(source.octets());
    six.extend(destination.octets());
    let start = six.len();
    six.extend(&frame[34..]);
    let place = start
        + match protocol {
            TCP => 16,
            UDP => 6,
            ICMP => {
                six_of_icmp(&mut six, start, length);
                return Some(six);
            }
            _ => return Some(six),
        };
    if let Some(field) = six.get(place..place + 2) {
        let field = u16::from_be_bytes([field[0], field[1]]);
        // Zero is none with UDP, and wrong with TCP.
        if field != 0 {
            let old = !internet_checksum(&[&ip[12..20]]);
            let new = !internet_checksum(&[&source.octets(), &destination.octets()]);
            let parts = [(!field).to_be_bytes(), (!old).to_be_bytes(), new.to_be_bytes()];
            let field = match internet_checksum(&[&parts.concat()]) {
                0 if protocol == UDP => 0xffff,
                field => field,
            };
            six[place..place + 2].copy_from_slice(&field.to_be_bytes());
        }
    }
    Some(six)
}

/// Types of ICMP errors, and those of `ICMPv6` in their place: unreachable, time exceeded, parameter problem.
const ERRORS: [(u8, u8); 3] = [(3, 1), (11, 3), (12, 4)];
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// Makes of an ICMP message one of `ICMPv6`: its type, the packet that it quotes, and its checksum, which covers the addresses,
/// too.
fn six_of_icmp(six: &mut Vec<u8>, start: usize, length: u16) {
    let Some(&[kind, _, upper, lower]) = six[start..].first_chunk() else {
        return;
    };
    if let Some((_, error)) = ERRORS.iter().find(|(error, _)| *error == kind) {
        let is_right = internet_checksum(&[&six[start..]]) == 0;
        let quoted = [&[0; 12][..], &IPV4.to_be_bytes(), &six[start + ICMP_HEADER..]].concat();
        if let Some(quoted) = frame(&quoted) {
            six.truncate(start + ICMP_HEADER);
            six.extend(&quoted[14..]);
        }
        six[start] = *error;
        let length = six.len() - start;
        six[18..20].copy_from_slice(&u16::try_from(length).expect("short").to_be_bytes());
        six[start + 2..start + 4].fill(0);
        let right = icmp6_checksum(six).to_be_bytes();
        // What was wrong is wrong by as much as the field allows.
        let wrong = u8::from(!is_right);
        six[start + 2..start + 4].copy_from_slice(&[right[0], right[1] ^ wrong]);
        return;
    }
    let new_kind = match kind {
        ECHO => ECHO6,
        ECHO_REPLY => ECHO6_REPLY,
        kind => kind,
    };
    six[start] = new_kind;
    let field = u16::from_be_bytes([upper, lower]);
    let pseudo = [&six[22..54], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, ICMP6]].concat();
    // What was taken away, and what came instead.
    let taken = !u16::from(kind).rotate_left(8);
    let more = [(!field).to_be_bytes(), taken.to_be_bytes(), [new_kind, 0]].concat();
    six[start + 2..start + 4].copy_from_slice(&internet_checksum(&[&pseudo, &more]).to_be_bytes());
}

/// The checksum of a frame's `ICMPv6` message, whose field is zero.
fn icmp6_checksum(six: &[u8]) -> u16 {
    let length = u32::try_from(six.len() - 54).expect("short").to_be_bytes();
    internet_checksum(&[&[&six[22..54], &length, &[0, 0, 0, ICMP6]].concat(), &six[54..]])
}

/// Whether the checksum of a frame's `ICMPv6` message is right, whatever follows the packet.
fn has_right_icmp6_checksum(six: &[u8]) -> bool {
    let length = [six[18], six[19]];
    let message = &six[54..];
    let message = message.get(..u16::from_be_bytes(length).into()).unwrap_or(message);
    let pseudo = [&six[22..54], &[0, 0], &length, &[0, 0, 0, ICMP6]].concat();
    internet_checksum(&[&pseudo, message]) == 0
}

/// The frame of IPv4 that [`frame`] makes this one of; `None` for what it does not make.
pub fn four(six: &[u8]) -> Option<Vec<u8>> {
    let ip = six.get(14..54).filter(|_| six[12..14] == IPV6.to_be_bytes())?;
    let [source, destination] = [8, 24].map(|at| {
        let bytes: [u8; 16] = ip[at..at + 16].try_into().expect("16 bytes");
        back(Ipv6Addr::from(bytes))
    });
    let is_icmp = ip[6] == ICMP6;
    let mut message = six[54..].to_vec();
    if is_icmp {
        four_of_icmp(&mut message);
    }
    let change = message.len().cast_signed() - (six.len() - 54).cast_signed();
    let length = usize::from(u16::from_be_bytes([ip[4], ip[5]])).checked_add_signed(change)? + 20;
    let mut four = six[..12].to_vec();
    four.extend(IPV4.to_be_bytes());
    four.extend([0x45, ip[0] << 4 | ip[1] >> 4]);
    four.extend(u16::try_from(length).ok()?.to_be_bytes());
    four.extend([ip[2], ip[3]]);
    four.extend(DF.to_be_bytes());
    four.extend([ip[7], if is_icmp { ICMP } else { ip[6] }]);
    four.extend([0, 0]);
    four.extend(source.octets());
    four.extend(destination.octets());
    let checksum = internet_checksum(&[&four[14..34]]).to_be_bytes();
    four[24..26].copy_from_slice(&checksum);
    four.extend(&message);
    let place = 34
        + match four[23] {
            TCP => 16,
            UDP => 6,
            ICMP => {
                // What was wrong stays wrong.
                let wrong = u8::from(!has_right_icmp6_checksum(six));
                if let Some(field) = four.get_mut(36..38) {
                    field.fill(0);
                    let [upper, lower] = internet_checksum(&[&four[34..]]).to_be_bytes();
                    four[36..38].copy_from_slice(&[upper, lower ^ wrong]);
                }
                return Some(four);
            }
            _ => return Some(four),
        };
    if let Some(field) = four.get(place..place + 2) {
        let field = u16::from_be_bytes([field[0], field[1]]);
        if field != 0 {
            let old = !internet_checksum(&[&ip[8..40]]);
            let new = !internet_checksum(&[&four[26..34]]);
            let parts = [(!field).to_be_bytes(), (!old).to_be_bytes(), new.to_be_bytes()];
            let field = match internet_checksum(&[&parts.concat()]) {
                0 if four[23] == UDP => 0xffff,
                field => field,
            };
            four[place..place + 2].copy_from_slice(&field.to_be_bytes());
        }
    }
    Some(four)
}

/// Makes of an `ICMPv6` message one of ICMP, but for its checksum.
fn four_of_icmp(message: &mut Vec<u8>) {
    let Some(kind) = message.first().copied() else {
        return;
    };
    if let Some((error, _)) = ERRORS.iter().find(|(_, error)| *error == kind) {
        message[0] = *error;
        let quoted = [
            &[0; 12][..],
            &IPV6.to_be_bytes(),
            message.get(ICMP_HEADER..).unwrap_or_default(),
        ]
        .concat();
        if let Some(quoted) = four(&quoted) {
            message.truncate(ICMP_HEADER);
            message.extend(&quoted[14..]);
        }
    }
    message[0] = match message[0] {
        ECHO6 => ECHO,
        ECHO6_REPLY => ECHO_REPLY,
        kind => kind,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;

    #[test]
    fn echo_becomes_that_of_the_other_family() {
        let (a, b) = (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(198, 51, 100, 9));
        for (source, destination, kind) in [((a, 7), (b, 0), ECHO6), ((a, 0), (b, 7), ECHO6_REPLY)] {
            let packet = Packet::echo(source, destination);
            let six = frame(&packet.bytes()).expect("a plain packet");
            assert_eq!((six[20], six[54], &six[58..60]), (ICMP6, kind, &[0, 7][..]));
            let length = u32::try_from(six.len() - 54).expect("short").to_be_bytes();
            let pseudo = [&six[22..54], &length, &[0, 0, 0, ICMP6]].concat();
            assert_eq!(internet_checksum(&[&pseudo, &six[54..]]), 0, "a right one stays right");
            let wrong = packet.with(|packet| packet.checksum = Some(0x1234));
            let six = frame(&wrong.bytes()).expect("a plain packet");
            assert_ne!(internet_checksum(&[&pseudo, &six[54..]]), 0, "a wrong one stays wrong");
        }
    }

    #[test]
    fn what_it_becomes_becomes_it_again() {
        let (a, b) = (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(198, 51, 100, 9));
        let udp = Packet::udp((a, 7), (b, 9));
        let quote = udp.bytes()[14..].to_vec();
        let error = |bytes: usize| {
            udp.clone().with(|packet| {
                packet.protocol = ICMP;
                (packet.icmp_type, packet.icmp_word) = (Some([3, 1]), Some([0; 4]));
                packet.payload = quote[..bytes].to_vec();
            })
        };
        for packet in [
            udp.clone(),
            Packet::tcp((a, 7), (b, 9)),
            Packet::echo((a, 7), (b, 0)),
            Packet::echo((a, 0), (b, 7)),
            error(28),
            error(quote.len()),
        ] {
            let four = packet.bytes();
            let six = frame(&four).expect("a plain packet");
            assert_eq!(super::four(&six), Some(four));
            if packet.protocol == ICMP {
                let mut zeroed = six.clone();
                zeroed[56..58].fill(0);
                assert_eq!(icmp6_checksum(&zeroed).to_be_bytes(), six[56..58], "a right one");
                let mut wrong = six.clone();
                wrong[57] ^= 1;
                let four = super::four(&wrong).expect("a packet of IPv6");
                assert_ne!(internet_checksum(&[&four[34..]]), 0, "a wrong one stays wrong");
            }
        }
    }

    #[test]
    fn it_is_the_same_packet_by_other_addresses() {
        let ends = (
            (Ipv4Addr::new(172, 17, 0, 2), 40000),
            (Ipv4Addr::new(198, 51, 100, 9), 443),
        );
        for packet in [Packet::tcp(ends.0, ends.1), Packet::udp(ends.0, ends.1)] {
            let packet = packet.with(|packet| packet.tos = 0x2e);
            let six = frame(&packet.bytes()).expect("a plain packet");
            let sliced = etherparse::SlicedPacket::from_ethernet(&six).expect("a packet");
            let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else {
                panic!("not IPv6")
            };
            let header = ip.header().to_header();
            assert_eq!(
                (header.traffic_class, header.hop_limit, header.flow_label.value()),
                (0x2e, 64, 0x1234)
            );
            assert_eq!(back(header.source_addr()), ends.0.0);
            assert_eq!(back(header.destination_addr()), ends.1.0);
            let transport = &six[54..];
            let place = if packet.protocol == TCP { 16 } else { 6 };
            let mut zeroed = transport.to_vec();
            zeroed[place..place + 2].fill(0);
            let length = u32::try_from(zeroed.len()).expect("short").to_be_bytes();
            let pseudo = [&six[22..54], &length, &[0, 0, 0, packet.protocol]].concat();
            let right = internet_checksum(&[&pseudo, &zeroed]).to_be_bytes();
            assert_eq!(transport[place..place + 2], right);
        }
        let fragment = Packet::udp(ends.0, ends.1).with(|packet| packet.fragment = 8);
        assert_eq!(frame(&fragment.bytes()), None);
    }
}
