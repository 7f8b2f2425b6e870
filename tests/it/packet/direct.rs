//! Packets between two ports of a bridge where nobody judges: each condition under which they are forwarded directly, and what
//! becomes of those that do not meet it.

use netfast_common::{control::Control, device::NetnsNumber, direct::step, reason::Reason};
use netfast_tests::{
    packet::{Packet, flag},
    scene::{BRIDGE_MAC, Dev, Way, bridged},
};

use super::{
    change::{Given, control, device, in_use, pace, port, port_of},
    harness::Hook,
    row::{Row, Step, check, check_as, enters, frame_at, leaves, row},
};

const MS: u64 = 1_000_000;

/// A and B are ports between which packets are forwarded directly, and the daemon lives.
fn given() -> Vec<Given> {
    vec![
        control(|control| control.direct_until_ns = u64::MAX),
        port(Dev::A, |_| ()),
        port(Dev::B, |_| ()),
    ]
}

/// The same, and what is given besides.
fn given_and(more: Given) -> Vec<Given> {
    let mut all = given();
    all.push(more);
    all
}

fn there() -> Way {
    bridged().0
}

/// One packet from A, with this end.
fn one(what: &str, given: Vec<Given>, packet: &Packet, end: impl FnOnce(Step) -> Step) -> Row {
    row(what, given, vec![end(enters(&there(), packet))])
}

/// A frame from A to B that is not IPv4.
fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        Dev::B.mac().as_slice(),
        &Dev::A.mac(),
        &ethertype.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// An IPv6 packet of some protocol.
fn ipv6(protocol: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, protocol, 1];
    packet.resize(40 + 20, 0xab);
    frame(0x86dd, &packet)
}

fn frame_enters(frame: Vec<u8>) -> Step {
    frame_at(Hook::EndpointIn, Dev::A, None, frame)
}

type Edit = fn(&mut Packet);

/// All that is forwarded directly, whatever it is.
fn carried() -> Vec<Row> {
    let packet = there().packet();
    let kinds: [(&str, Edit); 12] = [
        ("a segment", |_| ()),
        ("SYN", |packet| packet.flags = flag::SYN),
        ("FIN", |packet| packet.flags = flag::FIN | flag::ACK),
        ("RST", |packet| packet.flags = flag::RST),
        ("ICMP", |packet| packet.protocol = 1),
        ("SCTP", |packet| packet.protocol = 132),
        ("a fragment", |packet| packet.fragment = 0x2001),
        ("the last hop", |packet| packet.ttl = 1),
        ("options", |packet| packet.ip_options = vec![1; 4]),
        ("a wrong checksum", |packet| packet.checksum = Some(1)),
        ("nonsense", |packet| packet.length = Some(3)),
        ("padding", |packet| packet.trailer = vec![0; 7]),
    ];
    let mut rows: Vec<Row> = kinds
        .into_iter()
        .map(|(what, edit)| {
            one(what, given(), &packet.clone().with(edit), |step| {
                step.direct(Dev::A, Dev::B)
            })
        })
        .collect();
    let datagram = there().udp().packet();
    rows.push(one("a datagram that nobody answers", given(), &datagram, |step| {
        step.direct(Dev::A, Dev::B)
    }));
    for protocol in [6, 17, 58, 132] {
        let step = frame_enters(ipv6(protocol)).direct(Dev::A, Dev::B);
        rows.push(row(format!("IPv6, protocol {protocol}"), given(), vec![step]));
    }
    rows.push(row(
        "its flow is neither used nor needed",
        given_and(in_use(&there())),
        vec![enters(&there(), &packet).direct(Dev::A, Dev::B)],
    ));
    rows.push(row(
        "the other direction",
        given(),
        vec![enters(&bridged().1, &bridged().1.packet()).direct(Dev::B, Dev::A)],
    ));
    rows
}

/// What keeps packets from being forwarded directly: they are learned, or slow for a cause of their own.
fn refused() -> Vec<Row> {
    let packet = there().packet();
    let no_flow = |step: Step| step.slow(Reason::NoFlow);
    vec![
        one(
            "the lease is over",
            given_and(control(|control| control.direct_until_ns = 1)),
            &packet,
            no_flow,
        ),
        one(
            "the lease was taken back",
            given_and(control(|control| control.direct_until_ns = 0)),
            &packet,
            no_flow,
        ),
        one(
            "use is switched off",
            given_and(control(|control| control.switches = Control::LEARN)),
            &packet,
            |step| step.slow(Reason::Disabled).candidate(true),
        ),
        one(
            "everything is switched off",
            given_and(control(|control| control.switches = 0)),
            &packet,
            |step| step.slow(Reason::Disabled),
        ),
        one(
            "another's MAC address as source",
            given(),
            &packet.clone().with(|packet| packet.from_mac = Dev::C.mac()),
            |step| step.slow(Reason::Spoofed),
        ),
        one(
            "its neighbour's MAC address as source",
            given(),
            &packet.clone().with(|packet| packet.from_mac = Dev::B.mac()),
            |step| step.slow(Reason::Spoofed),
        ),
        one(
            "to nobody on the bridge",
            given(),
            &packet.clone().with(|packet| packet.to_mac = Dev::C.mac()),
            no_flow,
        ),
        one(
            "to the host",
            given(),
            &packet.clone().with(|packet| packet.to_mac = BRIDGE_MAC),
            no_flow,
        ),
        one(
            "to all",
            given(),
            &packet.clone().with(|packet| packet.to_mac = [0xff; 6]),
            |step| step.slow(Reason::NotUnicast),
        ),
        one(
            "to a port of another bridge",
            vec![
                control(|control| control.direct_until_ns = u64::MAX),
                port(Dev::A, |_| ()),
                port_of(Dev::B, Dev::Stranger),
            ],
            &packet,
            no_flow,
        ),
        one(
            "to itself",
            given(),
            &packet.clone().with(|packet| packet.to_mac = Dev::A.mac()),
            no_flow,
        ),
    ]
}

/// What the entry of a port says against it.
fn by_port() -> Vec<Row> {
    let packet = there().packet();
    let no_flow = |step: Step| step.slow(Reason::NoFlow);
    let length = u32::try_from(packet.bytes().len() - 14).expect("short");
    vec![
        one(
            "another generation of the sender's port",
            given_and(Given::Generation(Dev::A, 1)),
            &packet,
            no_flow,
        ),
        one(
            "another generation of the receiver's port",
            given_and(Given::Generation(Dev::B, 1)),
            &packet,
            no_flow,
        ),
        one(
            "its place is being given to another port",
            vec![
                control(|control| control.direct_until_ns = u64::MAX),
                port(Dev::A, |_| ()),
                port(Dev::B, |port| port.tag ^= 2),
            ],
            &packet,
            no_flow,
        ),
        one(
            "its place was given to another port",
            vec![
                control(|control| control.direct_until_ns = u64::MAX),
                port(Dev::A, |_| ()),
                port(Dev::B, |port| port.tag_end ^= 2),
            ],
            &packet,
            no_flow,
        ),
        one("a mark of other software", given(), &packet, |step| {
            step.mark(1).slow(Reason::Marked)
        }),
        one(
            "longer than the receiver's port takes",
            given_and(port(Dev::B, move |port| port.max_length = length - 1)),
            &packet,
            |step| step.slow(Reason::PortTooSmall),
        ),
        one(
            "as long as the receiver's port takes",
            given_and(port(Dev::B, move |port| port.max_length = length)),
            &packet,
            |step| step.direct(Dev::A, Dev::B),
        ),
        one(
            "GSO, of any length",
            given_and(port(Dev::B, move |port| port.max_length = length - 1)),
            &packet,
            |step| step.gso(10).direct(Dev::A, Dev::B),
        ),
    ]
}

/// Frames that are not IP, and packets that do not come from a container.
fn others() -> Vec<Row> {
    let arp = [0, 1, 8, 0, 6, 4, 0, 2]
        .into_iter()
        .chain(Dev::A.mac())
        .chain(Dev::A.address().octets())
        .chain(Dev::B.mac())
        .chain(Dev::B.address().octets())
        .collect::<Vec<u8>>();
    let not_ip = |what: &str, frame: Vec<u8>| row(what, given(), vec![frame_enters(frame).slow(Reason::NotIp)]);
    let packet = there().packet().with(|packet| packet.from_mac = Dev::Uplink.mac());
    let uplink = there().with(|way| way.enters = Dev::Uplink);
    let mut from_outside = given_and(port(Dev::Uplink, |_| ()));
    // Of others an uplink takes nothing that is for another's MAC address.
    from_outside.push(device(Dev::Uplink, |device| device.bridge = 1));
    vec![
        not_ip("an answer by ARP", frame(0x0806, &arp)),
        not_ip("a VLAN tag", frame(0x8100, &[0; 50])),
        not_ip("LLC", frame(0x0026, &[0x42; 50])),
        row(
            "from outside",
            from_outside,
            vec![enters(&uplink, &packet).slow(Reason::NoFlow)],
        ),
    ]
}

/// One packet a second goes by the bridge.
fn due() -> Vec<Row> {
    let packet = there().packet();
    let enter = || enters(&there(), &packet);
    let last = |slow: u64, used: u64| {
        pace(Dev::A, Dev::B, move |pace, now| {
            pace.slow = step(now - slow * MS);
            pace.used = step(now - used * MS);
        })
    };
    let direct = || enter().direct(Dev::A, Dev::B);
    let due = || enter().slow(Reason::PortDue);
    let of = |what: &str, given: Given, step: Step| row(what, given_and(given), vec![step]);
    vec![
        of("a second ago, in the midst of traffic", last(1010, 1), due()),
        of("soon, in the midst of traffic", last(900, 1), direct()),
        of("soon, and a pause to do it in", last(600, 30), due()),
        of("a pause, but long before it is due", last(400, 30), direct()),
        row(
            "the one behind it is direct",
            given_and(last(1010, 1)),
            vec![due(), direct()],
        ),
        row(
            "what is sent makes an end of the pause",
            given_and(last(300, 30)),
            vec![
                direct(),
                direct().after(pace(Dev::A, Dev::B, |pace, now| pace.slow = step(now - 600 * MS))),
            ],
        ),
        of(
            "only the other direction's",
            pace(Dev::B, Dev::A, |pace, now| {
                pace.slow = step(now - 2000 * MS);
                pace.used = step(now);
            }),
            direct(),
        ),
        row(
            "what it leaves behind is no candidate",
            vec![port(Dev::A, |_| ()), port(Dev::B, |_| ()), last(1010, 1)],
            vec![
                enter().slow(Reason::NoFlow),
                due().after(control(|control| control.direct_until_ns = u64::MAX)),
                leaves(&there(), &packet).ends(Reason::NoCandidate),
            ],
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [carried(), refused(), by_port(), others(), due()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn where_nobody_judges() {
    check(&rows());
}

/// The number is part of what ports are found by.
#[test]
fn where_nobody_judges_in_another_namespace() {
    check_as(NetnsNumber(7), &rows());
}
