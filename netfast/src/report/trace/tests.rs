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

/// An ICMP error.
fn unreachable() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([172, 17, 0, 2], [172, 17, 0, 3], 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut bytes, &icmp()[14..])
        .expect("a packet");
    bytes
}

fn icmp6() -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv6(ip(1), ip(2), 64)
        .icmpv6_echo_reply(443, 3)
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
        traced(&icmp(), Reason::EchoOff.number(), 0),
        traced(&icmp6(), 0, 2),
        traced(&unreachable(), Reason::OtherProtocol.number(), 0),
        traced(&arp, Reason::NotIp.number(), 0),
        traced(&[1; 14], Reason::Malformed.number(), 0),
        traced(&[], 39, 0),
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
fn what_is_told_at_the_end_is_what_was_shown() {
    let mut tally = Tally {
        wanted: 9,
        shown: 9,
        ..Tally::default()
    };
    // The programs may have shown more than was printed before --count was reached.
    assert_eq!(summary(6, &tally, 1), "6 packets shown");
    assert_eq!(summary(1, &tally, 1), "1 packet shown");
    tally.wanted = 10_000;
    tally.limited = 1;
    tally.lost = 2;
    assert_eq!(
        summary(7, &tally, 100),
        "7 packets shown (one in 100 of 10,000, by chance); 1 left out by --limit; 2 LOST, the reader was too slow"
    );
}

mod filters {
    use netfast_common::{
        net::{Ip4, Port},
        trace::Filter,
    };

    use super::{
        super::filter::{FilterError, Named, Selection},
        *,
    };

    fn container(name: &str) -> Option<Named> {
        let named = |addresses: &[[u8; 4]], device| Named {
            addresses: addresses.iter().map(|ip| (*ip).into()).collect(),
            devices: [device].into(),
        };
        match name {
            "web" => Some(named(&[[172, 17, 0, 2]], 12)),
            "both" => Some(named(&[[172, 17, 0, 2], [172, 18, 0, 2]], 12)),
            "veth9" => Some(named(&[], 9)),
            _ => None,
        }
    }

    fn parsed(text: &str) -> Result<Selection, FilterError> {
        Selection::parse(&[text.to_owned()], container)
    }

    #[test]
    fn nothing_wants_everything() {
        assert_eq!(parsed(""), Ok(Selection::default()));
        assert!(Selection::default().wants(&traced(&[], 39, 0)));
    }

    #[test]
    fn the_programs_are_told_what_they_can_compare() {
        let all = parsed("tcp and host 10.0.0.1 port 443 slow reason no-flow").expect("a filter");
        let kernel = all.kernel;
        assert_eq!((kernel.protocol, kernel.paths, kernel.reason), (6, Filter::SLOW, 18));
        assert_eq!(
            (kernel.address, kernel.port),
            (Ip4::from_bytes([10, 0, 0, 1]), Port::new(443))
        );
        let parts = parsed("src host 10.0.0.1 and not port 22 and port 80 and port 81").expect("a filter");
        assert_eq!(
            (parts.kernel.address, parts.kernel.port),
            (Ip4::from_bytes([10, 0, 0, 1]), Port::new(80))
        );
        let either = parsed("port 80 or port 81").expect("a filter");
        assert_eq!(either.kernel, Filter::default());
        assert_eq!(parsed("host veth9").expect("a filter").kernel.devices[0], 9);
    }

    /// A TCP packet from 172.17.0.2:43210 to 203.0.113.9:443 that enters by interface 12, and one of UDP over
    /// IPv6 from port 4000 to 53.
    #[test]
    fn expressions_choose_as_tcpdump_s_do() {
        let (fast, slow) = (traced(&tcp(10), 0, 2), traced(&udp6(), Reason::NoFlow.number(), 0));
        for (text, wants_fast, wants_slow) in [
            ("src host 172.17.0.2", true, false),
            ("dst host 172.17.0.2", false, false),
            ("src 172.17.0.2 and dst 203.0.113.9", true, false),
            ("host 172.17.0.2 and host 203.0.113.9", true, false),
            ("host 172.17.0.2 and 203.0.113.9", true, false),
            ("host 172.17.0.2 and host 172.17.0.3", false, false),
            ("host 2001:db8::1", false, true),
            ("net 172.16.0.0/12", true, false),
            ("src net 203.0.113.0/24", false, false),
            ("dst port 443", true, false),
            ("src port 443", false, false),
            ("port 80 or 443", true, false),
            ("port 443 and 43210", true, false),
            ("not port 443", false, true),
            ("not tcp port 53", true, true),
            ("not tcp and port 53", false, true),
            ("udp port 53", false, true),
            ("!(tcp or udp)", false, false),
            ("not (fast and tcp)", false, true),
            ("tcp or slow and port 80", false, false),
            ("src host web", true, false),
            ("dst web", false, false),
            ("web", true, false),
            ("not web", false, true),
            ("host both and port 443", true, false),
            ("src veth9", false, false),
        ] {
            let filter = parsed(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (told(&filter, &fast), told(&filter, &slow)),
                (wants_fast, wants_slow),
                "{text}"
            );
        }
    }

    #[test]
    fn echo_is_chosen_by_its_family_and_has_no_ports() {
        let (four, six) = (traced(&icmp(), 0, 2), traced(&icmp6(), 0, 2));
        for (text, wants_four, wants_six) in [
            ("icmp", true, false),
            ("icmp6", false, true),
            ("icmp or icmp6", true, true),
            ("not icmp", false, true),
            ("port 443", false, false),
            ("icmp6 and port 443", false, false),
        ] {
            let filter = parsed(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (told(&filter, &four), told(&filter, &six)),
                (wants_four, wants_six),
                "{text}"
            );
        }
    }

    /// By both judges: the programs compare as `netfast-ebpf/src/trace.rs` does.
    fn told(filter: &Selection, packet: &Traced) -> bool {
        let kernel = filter.kernel;
        let is_ipv4 = packet.bytes[12..14] == [8, 0];
        let (kind, ports) = if is_ipv4 { (23, [34, 36]) } else { (20, [54, 56]) };
        let bytes = &packet.bytes;
        let address = kernel.address == Ip4::default()
            || is_ipv4 && [26, 30].iter().any(|at| bytes[*at..at + 4] == kernel.address.bytes());
        let port = kernel.port == Port::default()
            || [6, 17].contains(&bytes[kind])
                && ports
                    .iter()
                    .any(|at| bytes[*at..at + 2] == kernel.port.number().to_be_bytes());
        let protocol = kernel.protocol == 0 || bytes[kind] == kernel.protocol;
        let path = if packet.reason == 0 { Filter::FAST } else { Filter::SLOW };
        let device = kernel.devices[0];
        address
            && port
            && protocol
            && (kernel.paths == 0 || kernel.paths & path != 0)
            && (kernel.reason == 0 || kernel.reason == packet.reason)
            && (device == 0 || device == packet.ifindex || device == packet.out_ifindex)
            && filter.wants(packet)
    }

    #[test]
    fn mistakes_are_told() {
        for (text, said) in [
            ("fats", "\"fats\" is no word of a filter"),
            ("port", "\"port\" must be followed by a port from 1 to 65535"),
            ("src", "\"src\" must be followed by host, net, port or an address"),
            ("port 0", "\"0\" is not a port from 1 to 65535"),
            ("host nobody", "\"nobody\" is not an address or a container"),
            ("net 10.0.0.0/33", "\"10.0.0.0/33\" is not a network (10.0.0.0/8)"),
            ("tcp udp", "no packet is several protocols at once"),
            ("fast slow", "no packet is fast and slow at once"),
            ("reason learned", "\"learned\" is not a reason for the slow path"),
            ("tcp and", "the filter ends where something must follow"),
            ("(tcp", "a bracket is not closed"),
            ("tcp )", "\")\" is no word of a filter"),
        ] {
            assert_eq!(parsed(text).expect_err("wrong").to_string(), said);
        }
    }
}
