//! Packets that take the slow path for their own sake, each sent into a flow that is in use: so it would be fast, were
//! it not for the one thing that is odd about it. None of them may leave a candidate.

use std::net::Ipv4Addr;

use netfast_common::{device::Device, reason::Reason};
use netfast_tests::packet::{DF, MF, Packet, flag};

use super::{
    change::{Change, Given, In, control, device, in_use},
    row::{Row, Step, check, enters, frame_enters, row},
    way::Way,
    world::{Dev, bridged, masquerade},
};

type Change1 = fn(&mut Packet);

/// What is odd about a packet, and the reason.
const ODD: &[(&str, Reason, Change1)] = &[
    ("ARP", Reason::NotIp, |p| p.ethertype = 0x0806),
    ("IPv6", Reason::NotIp, |p| p.ethertype = 0x86dd),
    ("a VLAN tag in the frame", Reason::NotIp, |p| p.ethertype = 0x8100),
    ("LLC", Reason::NotIp, |p| p.ethertype = 40),
    ("another IP version", Reason::Malformed, |p| {
        p.version_length = Some(0x65);
    }),
    ("an IP header of 16 bytes", Reason::Malformed, |p| {
        p.version_length = Some(0x44);
    }),
    ("an IP length under the header's", Reason::Malformed, |p| {
        p.length = Some(19);
    }),
    ("an IP length beyond the frame", Reason::Malformed, |p| {
        p.length = Some(2000);
    }),
    ("an IP length of zero", Reason::Malformed, |p| p.length = Some(0)),
    ("the reserved flag", Reason::Malformed, |p| p.fragment = 0x8000 | DF),
    ("a TCP header of 16 bytes", Reason::Malformed, |p| {
        p.data_offset = Some(4);
    }),
    ("a TCP header beyond the packet", Reason::Malformed, |p| {
        p.data_offset = Some(15);
        p.payload.truncate(39);
    }),
    ("an IP length in the TCP header", Reason::Malformed, |p| {
        p.length = Some(30);
    }),
    ("padding, which a container does not send", Reason::Malformed, |p| {
        p.trailer = vec![0; 3];
    }),
    ("a wrong IP checksum", Reason::BadIpChecksum, |p| {
        p.ip_checksum = Some(0x1234);
    }),
    ("an IP checksum of zero", Reason::BadIpChecksum, |p| {
        p.ip_checksum = Some(0);
    }),
    ("IP options", Reason::IpOptions, |p| p.ip_options = vec![1, 1, 1, 0]),
    ("forty bytes of IP options", Reason::IpOptions, |p| {
        p.ip_options = vec![1; 40];
    }),
    ("the first fragment", Reason::Fragment, |p| p.fragment = MF),
    ("a fragment in the middle", Reason::Fragment, |p| p.fragment = MF | 8),
    ("the last fragment", Reason::Fragment, |p| p.fragment = 8),
    ("a fragment at the last offset", Reason::Fragment, |p| {
        p.fragment = 0x1000;
    }),
    ("a TTL of 1", Reason::TtlExpiring, |p| p.ttl = 1),
    ("a TTL of 0", Reason::TtlExpiring, |p| p.ttl = 0),
    ("a multicast MAC", Reason::NotUnicast, |p| {
        p.to_mac = [0x01, 0, 0x5e, 0, 0, 1];
    }),
    ("the broadcast MAC", Reason::NotUnicast, |p| p.to_mac = [0xff; 6]),
    ("a group MAC as its source", Reason::NotUnicast, |p| p.from_mac[0] |= 1),
    ("a multicast address", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::new(224, 0, 0, 251);
    }),
    ("the broadcast address", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::BROADCAST;
    }),
    ("an address of 0/8", Reason::NotUnicast, |p| {
        p.destination.0 = Ipv4Addr::new(0, 0, 0, 1);
    }),
    ("no source address", Reason::NotUnicast, |p| {
        p.source.0 = Ipv4Addr::UNSPECIFIED;
    }),
    ("a multicast source", Reason::NotUnicast, |p| {
        p.source.0 = Ipv4Addr::new(239, 1, 2, 3);
    }),
    ("ICMP", Reason::OtherProtocol, |p| p.protocol = 1),
    ("SCTP", Reason::OtherProtocol, |p| p.protocol = 132),
    ("no TCP flags", Reason::TcpFlags, |p| p.flags = 0),
    ("PSH without ACK", Reason::TcpFlags, |p| p.flags = flag::PSH),
    ("a wrong TCP checksum", Reason::BadChecksum, |p| {
        p.checksum = Some(0x1234);
    }),
    ("a TCP checksum of zero", Reason::BadChecksum, |p| p.checksum = Some(0)),
    (
        "a wrong TCP checksum of a packet without payload",
        Reason::BadChecksum,
        |p| {
            p.payload.clear();
            p.checksum = Some(0x1234);
        },
    ),
    ("a wrong TCP checksum of a long packet", Reason::BadChecksum, |p| {
        p.payload = vec![7; 1460];
        p.checksum = Some(0x1234);
    }),
];

/// What ends a connection, or begins another with the same addresses.
const ENDS: &[(&str, Reason, u8)] = &[
    ("SYN", Reason::TcpSyn, flag::SYN),
    ("SYN and ACK", Reason::TcpSyn, flag::SYN | flag::ACK),
    ("SYN and RST", Reason::TcpSyn, flag::SYN | flag::RST),
    ("SYN and FIN", Reason::TcpSyn, flag::SYN | flag::FIN),
    ("FIN", Reason::TcpFin, flag::FIN | flag::ACK),
    ("FIN without ACK", Reason::TcpFin, flag::FIN),
    ("RST", Reason::TcpRst, flag::RST),
    ("RST and ACK", Reason::TcpRst, flag::RST | flag::ACK),
    ("RST and FIN", Reason::TcpRst, flag::RST | flag::FIN | flag::ACK),
];

fn both_in_use((there, back): (Way, Way)) -> Vec<Given> {
    vec![in_use(&there), in_use(&back)]
}

fn odd(what: &str, step: Step) -> Row {
    row(what, both_in_use(bridged()), vec![step])
}

pub(super) fn rows() -> Vec<Row> {
    let (there, back) = bridged();
    let packet = there.packet();
    let mut rows = Vec::new();
    for (what, reason, change) in ODD {
        let odd_one = packet.clone().with(change);
        let mut step = enters(&there, &odd_one).slow(*reason);
        // To other MAC addresses it leaves by another interface than the flow.
        if *reason == Reason::NotUnicast && (odd_one.source, odd_one.destination) == (packet.source, packet.destination)
        {
            step = step
                .and(Change::Gone(In::Flows, there))
                .and(Change::Gone(In::Flows, back));
        }
        rows.push(odd(what, step));
    }
    let frame = packet.bytes();
    // A test run refuses IPv4 frames without a whole IP header; those are in netfast-ebpf/src/packet/parse.rs.
    for length in 34..frame.len() {
        let step = frame_enters(&there, frame[..length].to_vec()).slow(Reason::Malformed);
        rows.push(odd(&format!("TCP cut to {length} bytes"), step));
    }
    for (what, length) in [("under its header", 7), ("zero", 0), ("beyond the packet", 52)] {
        let way = there.udp();
        let packet = way.packet().with(|packet| packet.udp_length = Some(length));
        let step = enters(&way, &packet).slow(Reason::Malformed);
        rows.push(row(format!("a UDP length {what}"), vec![in_use(&way)], vec![step]));
    }
    let way = there.udp();
    let wrong = way.packet().with(|packet| packet.checksum = Some(0x1234));
    rows.push(row(
        "a wrong UDP checksum",
        vec![in_use(&way)],
        vec![enters(&way, &wrong).slow(Reason::BadChecksum)],
    ));
    for (what, reason, flags) in ENDS {
        for (there, back) in [(there, back), (back, there), masquerade()] {
            let last = there.packet().with(|packet| packet.flags = *flags);
            let step = enters(&there, &last)
                .slow(*reason)
                .and(Change::Gone(In::Flows, there))
                .and(Change::Gone(In::Flows, back));
            let what = format!("{what} from {:?} ends both directions", there.enters);
            rows.push(row(what, both_in_use((there, back)), vec![step]));
        }
    }
    let fin = packet.clone().with(|packet| packet.flags = flag::FIN | flag::ACK);
    rows.push(row(
        "FIN of a connection that nothing is known of",
        vec![in_use(&masquerade().0)],
        vec![enters(&there, &fin).slow(Reason::TcpFin)],
    ));
    rows.push(odd(
        "a mark of other software",
        enters(&there, &packet).mark(1).slow(Reason::Marked),
    ));
    rows.extend(switched());
    rows.extend(spoofed());
    rows
}

/// What the daemon's switches do.
fn switched() -> Vec<Row> {
    let (there, back) = bridged();
    let packet = there.packet();
    let syn = packet.clone().with(|packet| packet.flags = flag::SYN);
    let off = || control(|control| control.switches = 0);
    let off_with_flows = || vec![off(), in_use(&there), in_use(&back)];
    vec![
        row(
            "all switched off",
            off_with_flows(),
            vec![enters(&there, &packet).slow(Reason::Disabled)],
        ),
        row(
            "all switched off: not even a SYN does anything",
            off_with_flows(),
            vec![enters(&there, &syn).slow(Reason::Disabled)],
        ),
        // Found by `cargo xtask fuzz programs`: it was kept, and what left next could have been taken for it.
        row(
            "all switched off: what entered before is no candidate any more",
            Vec::new(),
            vec![
                enters(&there, &packet).slow(Reason::NoFlow),
                enters(&back, &back.packet())
                    .slow(Reason::Disabled)
                    .candidate(false)
                    .after(off()),
                super::row::leaves(&there, &packet).ends(Reason::NoCandidate),
            ],
        ),
        row(
            "use switched off: flows are still learned, not used",
            vec![
                control(|control| control.switches = netfast_common::control::Control::LEARN),
                in_use(&there),
                in_use(&back),
            ],
            vec![
                enters(&there, &packet).slow(Reason::Disabled).candidate(true),
                super::row::leaves(&there, &packet).refreshed(&there),
            ],
        ),
        row(
            "learning switched off: a new flow is not remembered, a known one is used",
            vec![
                control(|control| control.switches = netfast_common::control::Control::USE),
                in_use(&there),
            ],
            vec![
                enters(&back, &back.packet()).slow(Reason::LearnOff),
                enters(&there, &packet).fast(&there, &packet),
            ],
        ),
        row(
            "an interface that the daemon has not told of",
            Vec::new(),
            vec![enters(&there.with(|way| way.enters = Dev::Stranger), &packet).slow(Reason::UnknownDevice)],
        ),
        row(
            "an interface that is not to be accelerated",
            vec![device(Dev::A, |device| device.flags &= !Device::ACCELERATED)],
            vec![enters(&there, &packet).slow(Reason::UnknownDevice)],
        ),
        row(
            "an interface that is no longer to be accelerated: the daemon gives it another generation",
            vec![
                in_use(&there),
                device(Dev::A, |device| device.flags &= !Device::ACCELERATED),
                Given::Generation(Dev::A, 999),
            ],
            vec![enters(&there, &packet).slow(Reason::UnknownDevice)],
        ),
    ]
}

/// Containers that send with what is not theirs.
fn spoofed() -> Vec<Row> {
    let (there, _) = bridged();
    let packet = there.packet();
    let other_mac = packet.clone().with(|packet| packet.from_mac = Dev::B.mac());
    let other_address = packet.clone().with(|packet| packet.source.0 = Dev::B.address());
    let any_source = || device(Dev::A, |device| device.flags |= Device::ANY_SOURCE);
    let (_, from_outside) = masquerade();
    vec![
        row(
            "another's MAC as source, on a flow of its own",
            vec![in_use(&there)],
            vec![
                enters(&there, &other_mac)
                    .slow(Reason::Spoofed)
                    .and(Change::Gone(In::Flows, there)),
            ],
        ),
        row(
            "another's address as source",
            vec![in_use(&there)],
            vec![enters(&there, &other_address).slow(Reason::Spoofed)],
        ),
        row(
            "another's address as source, where it may forward",
            vec![any_source()],
            vec![enters(&there, &other_address).slow(Reason::NoFlow).honest()],
        ),
        row(
            "another's MAC as source, where it may forward",
            vec![any_source()],
            vec![enters(&there, &other_mac).slow(Reason::Spoofed)],
        ),
        row(
            "any MAC and address from outside",
            Vec::new(),
            vec![
                enters(
                    &from_outside,
                    &from_outside.packet().with(|packet| packet.from_mac[5] ^= 1),
                )
                .slow(Reason::NoFlow),
            ],
        ),
    ]
}

#[test]
fn odd_packets_take_the_slow_path() {
    check(&rows());
}
