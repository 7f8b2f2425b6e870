use etherparse::PacketBuilder;
use netfast_common::trace::CAPTURE;

use super::*;
use crate::report::golden::{assert_golden, assert_golden_json};

fn names(ifindex: u32) -> Option<DeviceName> {
    let (device, container) = match ifindex {
        2 => ("eth0", None),
        12 => ("veth12", Some("web".into())),
        _ => return None,
    };
    Some(DeviceName {
        device: device.into(),
        container,
    })
}

fn traced(packet: &[u8], reason: u32, out_ifindex: u32) -> Traced {
    let mut bytes = [0; CAPTURE as usize];
    let captured = packet.len().min(bytes.len());
    bytes[..captured].copy_from_slice(&packet[..captured]);
    Traced {
        time_ns: 3_723_000_456_789,
        ifindex: 12,
        out_ifindex,
        reason,
        length: u32::try_from(packet.len()).expect("short"),
        captured: u32::try_from(captured).expect("short"),
        gso_size: 0,
        bytes,
    }
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([172, 17, 0, 2], [203, 0, 113, 9], 64)
        .tcp(43_210, 443, 1, 64_000)
        .psh()
        .ack(7)
        .write(&mut bytes, &vec![0; payload])
        .expect("a packet");
    bytes
}

fn udp6() -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv6(ip(1), ip(2), 64)
        .udp(4000, 53)
        .write(&mut bytes, b"question")
        .expect("a packet");
    bytes
}

fn icmp() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([172, 17, 0, 2], [172, 17, 0, 3], 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut bytes, b"ping")
        .expect("a packet");
    bytes
}

fn report(traced: &Traced) -> PacketReport {
    PacketReport::new(traced, 1_700_000_000_000_000_000, names)
}

#[test]
fn one_line_for_each_packet() {
    let mut gso = traced(&tcp(30_000), 0, 2);
    gso.gso_size = 1448;
    let arp = [[0xff; 12].as_slice(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let packets = [
        traced(&tcp(10), 0, 2),
        gso,
        traced(&tcp(0), Reason::NoFlow.number(), 0),
        traced(&udp6(), Reason::NotIp.number(), 0),
        traced(&icmp(), Reason::OtherProtocol.number(), 0),
        traced(&arp, Reason::NotIp.number(), 0),
        traced(&[1; 14], Reason::Malformed.number(), 0),
        traced(&[], 63, 0),
    ];
    let mut text = String::new();
    for packet in &packets {
        text.push_str(&report(packet).to_string());
        text.push('\n');
    }
    assert_golden("trace.txt", &text);
    assert_golden_json("trace.json", &report(&packets[0]));
}

#[test]
fn any_bytes_make_a_line() {
    let whole = tcp(100);
    for cut in 0..whole.len() {
        let packet = traced(&whole[..cut], 18, 0);
        assert!(report(&packet).to_string().contains("slow: web no-flow"));
        assert_eq!(bytes(&packet).len(), cut.min(CAPTURE as usize));
    }
    // What says of itself that it is longer than there is room.
    let mut packet = traced(&whole, 0, 2);
    packet.captured = u32::MAX;
    assert_eq!(bytes(&packet).len(), CAPTURE as usize);
}

#[test]
fn filters_are_words() {
    let parsed = |text: &str| filter(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(parsed(""), Ok(Filter::default()));
    let all = parsed("tcp host 10.0.0.1 port 443 slow reason no-flow").expect("a filter");
    assert_eq!((all.protocol, all.paths, all.reason), (6, Filter::SLOW, 18));
    assert_eq!(
        (all.address, all.port),
        (Ip4::from_bytes([10, 0, 0, 1]), Port::new(443))
    );
    for (text, said) in [
        ("fats", "\"fats\" is no word of a filter"),
        ("port", "\"port\" must be followed by a port"),
        ("port 0", "\"0\" is not a port from 1 to 65535"),
        ("host ::1", "\"::1\" is not an IPv4 address"),
        ("tcp udp", "\"udp\" says again what was said before"),
        ("reason learned", "\"learned\" is not a reason for the slow path"),
    ] {
        assert_eq!(parsed(text).expect_err("wrong").to_string(), said);
    }
}

#[test]
fn losses_are_told() {
    let mut tally = Tally {
        wanted: 10_000,
        shown: 10_000,
        ..Tally::default()
    };
    assert_eq!(
        summary(&tally, 1),
        "10,000 packets passed the filter, 10,000 were shown"
    );
    tally.shown = 7;
    tally.limited = 1;
    tally.lost = 2;
    assert_eq!(
        summary(&tally, 100),
        "10,000 packets passed the filter, 7 were shown (one in 100, by chance); 1 were left out by --limit; 2 were \
         LOST, the reader was too slow"
    );
}
