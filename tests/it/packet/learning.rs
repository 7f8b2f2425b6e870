//! The learn rule, line by line: a packet enters, and comes out changed in one thing. Only what NAT and routing change
//! may be learned, and only in the same run, at an interface that is known.

use std::net::Ipv4Addr;

use netfast_common::{
    device::Device,
    flow::{Exit, Flow},
    net::Ip4,
    reason::Reason,
};
use netfast_tests::{
    packet::{MF, Packet, UDP},
    scene::{self, Dev, Look, Pair, Way, bridged, host_to_container},
};

use super::{
    change::{Given, In, device, in_use, stored},
    row::{Row, Step, check, enters, leaves, row},
};

const MS: u64 = 1_000_000;

pub(super) fn masquerade() -> Pair {
    scene::direct(scene::masquerade())
}

fn published() -> Pair {
    scene::direct(scene::published())
}

type Edit = fn(&mut Packet);

/// Changes between in and out that show that it is another packet, or that something else works on the flow.
const CHANGES: &[(&str, Reason, Edit)] = &[
    ("another IP identification", Reason::OtherPacket, |p| p.id ^= 0x0100),
    ("DF taken off", Reason::OtherPacket, |p| p.fragment = 0),
    ("a byte less", Reason::OtherPacket, |p| {
        p.payload.pop();
    }),
    ("a byte more", Reason::OtherPacket, |p| p.payload.push(0)),
    ("another TOS", Reason::Mangled, |p| p.tos = 0x20),
    ("ECN marked", Reason::Mangled, |p| p.tos = 3),
    ("the first byte of the payload", Reason::Mangled, |p| p.payload[0] ^= 1),
    ("the last byte of the payload's sample", Reason::Mangled, |p| {
        p.payload[15] ^= 1;
    }),
    ("TTL 2 less", Reason::TtlChanged, |p| p.ttl = 62),
    ("TTL 1 more", Reason::TtlChanged, |p| p.ttl = 65),
    ("TTL set to 255", Reason::TtlChanged, |p| p.ttl = 255),
    ("a multicast MAC", Reason::EgressNotUnicast, |p| p.to_mac[0] |= 1),
    ("the broadcast MAC", Reason::EgressNotUnicast, |p| p.to_mac = [0xff; 6]),
    ("a group MAC as its source", Reason::EgressNotUnicast, |p| {
        p.from_mac[0] |= 1;
    }),
    ("a multicast address", Reason::EgressGated, |p| {
        p.destination.0 = Ipv4Addr::new(224, 0, 0, 1);
    }),
    ("no IP packet any more", Reason::EgressGated, |p| p.ethertype = 0x88cc),
    ("a tag", Reason::EgressGated, |p| p.ethertype = 0x8100),
    ("IP options", Reason::EgressGated, |p| p.ip_options = vec![1; 4]),
    ("a fragment", Reason::EgressGated, |p| p.fragment = MF),
    ("a wrong IP checksum", Reason::EgressGated, |p| p.ip_checksum = Some(1)),
];

/// The same, for TCP alone.
const TCP_CHANGES: &[(&str, Reason, Edit)] = &[
    ("another sequence number", Reason::OtherPacket, |p| p.sequence += 1),
    ("another acknowledgement", Reason::OtherPacket, |p| {
        p.acknowledgement ^= 1 << 31;
    }),
    ("another window", Reason::Mangled, |p| p.window += 1),
    ("other flags", Reason::Mangled, |p| p.flags = 0x10),
    ("a TCP option instead of payload", Reason::Mangled, |p| {
        p.tcp_options = vec![1; 4];
        p.payload.truncate(p.payload.len() - 4);
    }),
    ("UDP instead", Reason::OtherPacket, |p| {
        p.protocol = UDP;
        p.payload.extend([0; 12]);
    }),
];

/// A packet enters and leaves changed: what becomes of it, and nothing is learned.
fn refused(what: impl Into<String>, way: &Way, reason: Reason, edit: impl FnOnce(&mut Packet)) -> Row {
    let packet = way.packet();
    let out = way.leaving(&packet).with(edit);
    row(
        what,
        Vec::new(),
        vec![
            enters(way, &packet).slow(Reason::NoFlow),
            leaves(way, &out).ends(reason),
        ],
    )
}

fn refused_at(what: &str, given: Vec<Given>, way: &Way, reason: Reason) -> Row {
    let packet = way.packet();
    row(
        what,
        given,
        vec![
            enters(way, &packet).slow(Reason::NoFlow),
            leaves(way, &way.leaving(&packet)).ends(reason),
        ],
    )
}

/// A packet enters and leaves, and its flow is learned with what `edit` makes of it.
pub(super) fn learned(
    what: impl Into<String>,
    given: Vec<Given>,
    way: &Way,
    packet: &Packet,
    edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static,
) -> Row {
    let steps = vec![enters(way, packet).slow(Reason::NoFlow), learns(way, packet, edit)];
    row(what, given, steps)
}

pub(super) fn learns(way: &Way, packet: &Packet, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Step {
    let out = way.leaving(packet);
    let length = out.bytes().len() - out.trailer.len() - 14;
    leaves(way, &out)
        .ends(Reason::Learned)
        .and(stored(In::Unreplied, way, length, edit))
}

/// Whether it is the same packet, and how it may have changed.
fn same_packet() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, (there, back)) in [
        ("bridged", bridged()),
        ("masqueraded", masquerade()),
        ("published", published()),
    ] {
        for way in [there, back] {
            for (protocol, way) in [("TCP", way), ("UDP", way.udp())] {
                for (what, reason, edit) in CHANGES {
                    rows.push(refused(format!("{name} {protocol}: {what}"), &way, *reason, edit));
                }
            }
            for (what, reason, edit) in TCP_CHANGES {
                rows.push(refused(format!("{name}: {what}"), &way, *reason, edit));
            }
        }
    }
    let (way, _) = masquerade();
    // Of a short payload, as much is compared as can be loaded in one go.
    for (length, compared) in [(1, 1), (3, 1), (4, 4), (15, 4), (16, 16), (17, 16)] {
        for way in [way, way.udp()] {
            let packet = way.packet().with(|packet| packet.payload = vec![0x33; length]);
            let out = way.leaving(&packet).with(|packet| packet.payload[compared - 1] ^= 1);
            rows.push(row(
                format!("byte {compared} of a payload of {length}"),
                Vec::new(),
                vec![
                    enters(&way, &packet).slow(Reason::NoFlow),
                    leaves(&way, &out).ends(Reason::Mangled),
                ],
            ));
            rows.push(learned(
                format!("a payload of {length}"),
                Vec::new(),
                &way,
                &packet,
                |_| (),
            ));
        }
    }
    rows.push(another_protocol());
    let (there, back) = bridged();
    for (way, name) in [(there, "TTL as it was"), (back, "TTL as it was, back")] {
        rows.push(learned(name, Vec::new(), &way, &way.packet(), |_| ()));
    }
    let lower = there.with(|way| way.routed = true);
    rows.push(learned("TTL 1 less", Vec::new(), &lower, &lower.packet(), |_| ()));
    let last_hop = lower.packet().with(|packet| packet.ttl = 2);
    rows.push(row(
        "TTL 1 as it leaves",
        Vec::new(),
        vec![
            enters(&lower, &last_hop).slow(Reason::NoFlow),
            leaves(&lower, &lower.leaving(&last_hop)).ends(Reason::EgressGated),
        ],
    ));
    for (what, edit) in [
        (
            "its destination port alone",
            (|look| look.destination.1 = 8080) as fn(&mut Look),
        ),
        ("its source port alone", |look| look.source.1 = 1024),
        ("its source address alone", |look| {
            look.source.0 = Ipv4Addr::new(9, 8, 7, 6);
        }),
        ("its destination address alone", |look| {
            look.destination.0 = Ipv4Addr::new(9, 8, 7, 6);
        }),
        ("its source MAC alone", |look| look.from_mac[3] ^= 0x55),
    ] {
        let way = there.with(|way| edit(&mut way.after));
        rows.push(learned(what, Vec::new(), &way, &way.packet(), |_| ()));
    }
    rows
}

/// A TCP packet whose numbers are those that a UDP header of the same length shows.
fn another_protocol() -> Row {
    let (way, _) = masquerade();
    let packet = way.packet().with(|packet| {
        packet.sequence = 63 << 16;
        packet.acknowledgement = 0;
    });
    let out = way.leaving(&packet).with(|packet| {
        packet.protocol = UDP;
        packet.payload.extend([0; 12]);
    });
    assert_eq!(packet.bytes().len(), out.bytes().len());
    row(
        "UDP of the same numbers instead",
        Vec::new(),
        vec![
            enters(&way, &packet).slow(Reason::NoFlow),
            leaves(&way, &out).ends(Reason::OtherPacket),
        ],
    )
}

/// Whether it is the same run.
fn same_run() -> Vec<Row> {
    let (way, _) = bridged();
    let packet = way.packet();
    let another = packet.clone().with(|packet| packet.id += 1);
    let out = way.leaving(&packet);
    let enter = || enters(&way, &packet).slow(Reason::NoFlow);
    let no_candidate = || leaves(&way, &out).ends(Reason::NoCandidate);
    let other_run = |what: &str, step: Step| row(what, Vec::new(), vec![enter(), step.ends(Reason::OtherRun)]);
    vec![
        row("nothing entered", Vec::new(), vec![no_candidate()]),
        row(
            "a second copy of a flooded packet",
            Vec::new(),
            vec![enter(), leaves(&way, &out).learned(&way), no_candidate()],
        ),
        row(
            "another packet takes the candidate with it",
            Vec::new(),
            vec![
                enter(),
                leaves(&way, &another).ends(Reason::OtherPacket),
                no_candidate(),
            ],
        ),
        row(
            "the next packet that enters takes the candidate's place",
            Vec::new(),
            vec![
                enter(),
                enters(&way, &another).slow(Reason::NoFlow),
                leaves(&way, &out).ends(Reason::OtherPacket),
            ],
        ),
        row(
            "a packet that is refused takes the candidate's place",
            Vec::new(),
            vec![
                enter(),
                enters(&way, &packet.clone().with(|packet| packet.protocol = 132)).slow(Reason::OtherProtocol),
                no_candidate(),
            ],
        ),
        other_run("received by another interface", leaves(&way, &out).from(Some(Dev::C))),
        other_run("sent by a program", leaves(&way, &out).from(None)),
        other_run(
            "held for 30 ms",
            leaves(&way, &out).after(Given::CandidateAged(30 * MS)),
        ),
        other_run("let go by another task", leaves(&way, &out).after(Given::OtherStack)),
        row(
            "what took the fast path is nobody's candidate",
            vec![in_use(&way)],
            vec![enters(&way, &packet).fast(&way, &out), no_candidate()],
        ),
    ]
}

/// Whether the interface where it leaves is one to learn at.
fn right_place() -> Vec<Row> {
    let (there, _) = bridged();
    let (to_uplink, to_container) = masquerade();
    let between_uplinks = to_container.with(|way| way.leaves = Dev::Uplink2);
    let hairpin_port = there.with(|way| {
        way.leaves = Dev::A;
        way.after.to_mac = Dev::A.mac();
    });
    let stranger = to_uplink.with(|way| way.leaves = Dev::Stranger);
    let not_accelerated = |dev: Dev| vec![device(dev, |device| device.flags &= !Device::ACCELERATED)];
    let mut rows = vec![
        refused("a flooded copy", &there, Reason::Flooded, |packet| {
            packet.to_mac = Dev::C.mac();
        }),
        refused(
            "a flooded copy of a routed packet",
            &to_container,
            Reason::Flooded,
            |packet| {
                packet.to_mac = Dev::B.mac();
            },
        ),
        refused_at("an unknown interface", Vec::new(), &stranger, Reason::EgressUnknown),
        refused_at(
            "an endpoint that is not to be accelerated",
            not_accelerated(Dev::B),
            &there,
            Reason::EgressUnknown,
        ),
        refused_at(
            "an uplink that is not to be accelerated",
            not_accelerated(Dev::Uplink),
            &to_uplink,
            Reason::EgressUnknown,
        ),
        refused_at("back where it came from", Vec::new(), &hairpin_port, Reason::SameDevice),
        refused_at(
            "from uplink to uplink",
            Vec::new(),
            &between_uplinks,
            Reason::NoEndpoint,
        ),
    ];
    let device_flag = |flag: u8, set: bool| {
        move |device: &mut Device| {
            if set {
                device.flags |= flag;
            } else {
                device.flags &= !flag;
            }
        }
    };
    for (what, flag, set) in [
        (
            "a veth whose peer is in the same namespace",
            Device::PEER_IN_OTHER_NETNS,
            false,
        ),
        ("a veth with a queueing discipline", Device::EGRESS_QDISC, true),
    ] {
        let way = there.with(|way| way.exit = Exit::Device);
        rows.push(learned(
            what,
            vec![device(Dev::B, device_flag(flag, set))],
            &way,
            &way.packet(),
            |_| (),
        ));
    }
    let (from_host, _) = host_to_container();
    // A bridge may have an uplink among its ports.
    let to_port = from_host.with(|way| way.leaves = Dev::Uplink);
    rows.push(learned(
        "from the host to an uplink",
        Vec::new(),
        &to_port,
        &to_port.packet(),
        |_| (),
    ));
    rows.push(learned(
        "from the host to a container",
        Vec::new(),
        &from_host,
        &from_host.packet(),
        |_| (),
    ));
    rows
}

/// From uplink to uplink, where both may (key `transit`).
fn transit() -> Vec<Row> {
    let (_, to_container) = masquerade();
    let way = to_container.with(|way| {
        way.leaves = Dev::Uplink2;
        way.exit = Exit::Device;
    });
    let may = |dev: Dev| device(dev, |device| device.flags |= Device::ANY_SOURCE);
    vec![
        refused_at(
            "from an uplink that may to one that may not",
            vec![may(Dev::Uplink)],
            &way,
            Reason::NoEndpoint,
        ),
        refused_at(
            "from an uplink that may not to one that may",
            vec![may(Dev::Uplink2)],
            &way,
            Reason::NoEndpoint,
        ),
        learned(
            "from an uplink to another, as both may",
            vec![may(Dev::Uplink), may(Dev::Uplink2)],
            &way,
            &way.packet(),
            |_| (),
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [same_packet(), same_run(), right_place(), transit()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn what_is_learned_and_what_is_not() {
    check(&rows());
}
