//! ICMP echo of both families, and what is none.

use netfast_common::net::{Address, Port};

use super::*;

/// A frame of IPv4 or IPv6 with an ICMP message of this protocol behind it.
fn frame(is_six: bool, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut plain = steady(Vec::new());
    plain.tcp = None;
    let mut frame = if is_six { plain.frame6() } else { plain.frame() };
    frame.truncate(if is_six { 54 } else { 34 });
    frame.extend(message);
    let length = u16::try_from(message.len()).expect("short");
    if is_six {
        frame[20] = protocol;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
    } else {
        frame[23] = protocol;
        frame[16..18].copy_from_slice(&(length + 20).to_be_bytes());
        correct(&mut frame);
    }
    frame
}

/// What of a packet is of its message: ports, words, checksum, where its payload is, and how long.
type Read = ((u16, u16), [u32; 3], u16, u32, u32);

fn read<A: Address>(packet: Packet<A>) -> Read {
    let ports = (packet.source_port.number(), packet.destination_port.number());
    (
        ports,
        packet.transport,
        packet.checksum,
        packet.payload_offset,
        packet.payload,
    )
}

fn parsed(is_six: bool, skb: &FakeSkb) -> Result<Read, Reason> {
    if is_six {
        parse::<V6, _>(skb).map(read)
    } else {
        parse::<V4, _>(skb).map(read)
    }
}

proptest! {
    #[test]
    fn echo_is_understood_and_nothing_else(
        is_six in any::<bool>(),
        kind in prop_oneof![Just(0_u8), Just(8), Just(128), Just(129), any::<u8>()],
        code in prop_oneof![4 => Just(0_u8), 1 => any::<u8>()],
        rest in any::<[u8; 2]>(),
        id in prop_oneof![4 => any::<u16>(), 1 => Just(0_u16)],
        sequence in any::<u16>(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        linear in 0_usize..120,
    ) {
        let [upper, lower] = sequence.to_be_bytes();
        let mut message = vec![kind, code, rest[0], rest[1]];
        message.extend(id.to_be_bytes());
        message.extend([upper, lower]);
        message.extend(&payload);
        let (protocol, request, reply, start) = if is_six { (58, 128, 129, 54) } else { (1, 8, 0, 34) };
        let got = parsed(is_six, &FakeSkb::new(&frame(is_six, protocol, &message)).with_linear(linear));
        let is_echo = (kind == request || kind == reply) && code == 0 && id != 0;
        if is_echo {
            let ports = if kind == request { (id, 0) } else { (0, id) };
            let words = [u32::from_ne_bytes([kind, 0, upper, lower]), 0, 0];
            let length = u32::try_from(payload.len()).expect("short");
            prop_assert_eq!(got, Ok((ports, words, u16::from_ne_bytes(rest), start + 8, length)));
        } else {
            let is_discovery = is_six && (133..=137).contains(&kind);
            let expected = if is_discovery { Reason::NeighbourDiscovery } else { Reason::OtherProtocol };
            prop_assert_eq!(got, Err(expected));
        }
        // The other family's number means nothing here.
        let other = FakeSkb::new(&frame(is_six, 59 - protocol, &message));
        prop_assert_eq!(parsed(is_six, &other), Err(Reason::OtherProtocol));
        // Nor are there segments of it.
        let mut segments = FakeSkb::new(&frame(is_six, protocol, &message));
        segments.gso_size = 100;
        prop_assert!(parsed(is_six, &segments).is_err());
    }
}

/// A message of less than a header is none, whatever its first bytes are.
#[test]
fn echo_that_is_cut_short() {
    for (is_six, protocol, kind) in [(false, 1, 8), (true, 58, 128)] {
        let message = [kind, 0, 1, 1, 0, 7, 0, 1];
        assert!(parsed(is_six, &FakeSkb::new(&frame(is_six, protocol, &message))).is_ok());
        for length in 0..message.len() {
            let frame = frame(is_six, protocol, &message[..length]);
            let skb = FakeSkb::new(&frame);
            assert_eq!(parsed(is_six, &skb), Err(Reason::OtherProtocol), "{length} bytes");
            // The frame goes on, the packet does not.
            let mut padded = frame.clone();
            padded.extend(&message[length..]);
            assert_eq!(parsed(is_six, &FakeSkb::new(&padded)), Err(Reason::OtherProtocol));
        }
    }
}

/// Who reads TCP and UDP alone is shown no echo.
#[test]
fn echo_has_no_ports() {
    let frame = frame(false, 1, &[8, 0, 1, 1, 0, 53, 0, 1]);
    let packet = parse::<V4, _>(&FakeSkb::new(&frame)).expect("echo");
    assert_eq!(packet.source_port, Port::new(53));
    assert_eq!(
        parse_with_ports::<V4, _>(&FakeSkb::new(&frame)).err(),
        Some(Reason::OtherProtocol)
    );
}
