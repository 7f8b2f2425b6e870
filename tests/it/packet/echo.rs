//! ICMP echo: requests and replies are the two directions of a conversation, and all other ICMP is the kernel's.

use netfast_common::{device::Device, net::MacPair, reason::Reason};
use netfast_tests::{
    packet::{Packet, odd},
    scene::{self, Dev, Pair, bridged, host_to_container},
};

use super::{
    change::{Change, Given, In, device, in_use, in_use_but, stored, waiting},
    row::{Row, check, enters, leaves, row, through},
};

fn masquerade() -> Pair {
    scene::echo(scene::direct(scene::masquerade()))
}

fn on_bridge() -> Pair {
    scene::echo(bridged())
}

type Edit = fn(&mut Packet);

/// What is no echo, or an odd one, sent into a flow that is in use.
fn odd() -> Vec<Row> {
    let (there, back) = on_bridge();
    let mut rows = Vec::new();
    for (what, reason, edit) in odd::ICMP {
        let step = enters(&there, &there.packet().with(edit)).slow(*reason);
        rows.push(row(
            format!("ICMP: {what}"),
            vec![in_use(&there), in_use(&back)],
            vec![step],
        ));
    }
    let reply = back.packet().with(|packet| packet.icmp_type = Some([0, 3]));
    rows.push(row(
        "ICMP: a reply with a code",
        vec![in_use(&there), in_use(&back)],
        vec![enters(&back, &reply).slow(Reason::OtherProtocol)],
    ));
    rows.push(row(
        "ICMP: segments, which there are none of",
        vec![in_use(&there), in_use(&back)],
        vec![enters(&there, &there.packet()).gso(1000).slow(Reason::OtherProtocol)],
    ));
    rows
}

/// Which messages are of one conversation.
fn pairs() -> Vec<Row> {
    let (there, back) = on_bridge();
    // A request of the other side with the same identifier.
    let other = back.with(|way| {
        for look in [&mut way.before, &mut way.after] {
            (look.source.1, look.destination.1) = (look.destination.1, 0);
        }
    });
    let mut crossed = through(&there, Reason::NoFlow, |step| step.learned(&there));
    crossed.extend(through(&other, Reason::NoFlow, |step| step.learned(&other)));
    crossed.extend(through(&there, Reason::Unreplied, |step| step.learned(&there)));
    let mut unanswered = through(&there, Reason::NoFlow, |step| step.learned(&there));
    unanswered.extend(through(&there, Reason::Unreplied, |step| step.learned(&there)));
    unanswered.extend(through(&there, Reason::Unreplied, |step| step.learned(&there)));
    let another = back.with(|way| {
        for look in [&mut way.before, &mut way.after] {
            look.destination.1 += 1;
        }
    });
    let mut other_identifier = through(&there, Reason::NoFlow, |step| step.learned(&there));
    other_identifier.extend(through(&another, Reason::NoFlow, |step| step.learned(&another)));
    let one_way = |dev| device(dev, |device| device.flags |= Device::ONE_WAY);
    let udp = bridged().0.udp();
    vec![
        row("requests of both sides are no conversation", Vec::new(), crossed),
        row("requests that nobody answers stay slow", Vec::new(), unanswered),
        row(
            "they do where one-way UDP may be used, too",
            vec![one_way(Dev::A), one_way(Dev::B)],
            {
                let mut steps = through(&there, Reason::NoFlow, |step| step.learned(&there));
                steps.extend(through(&there, Reason::Unreplied, |step| step.learned(&there)));
                steps
            },
        ),
        row(
            "a reply to a request with another identifier",
            Vec::new(),
            other_identifier,
        ),
        row(
            "the flow of a UDP conversation with the same numbers is another's",
            vec![in_use(&udp.with(|way| {
                way.before = there.before;
                way.after = there.after;
            }))],
            vec![enters(&there, &there.packet()).slow(Reason::NoFlow)],
        ),
        row(
            "a request to a group's MAC address ends what waits",
            vec![waiting(&there)],
            vec![
                enters(&there, &there.packet().with(|packet| packet.to_mac[0] |= 1))
                    .slow(Reason::NotUnicast)
                    .and(Change::Gone(In::Unreplied, there)),
            ],
        ),
        row(
            "a request from another MAC address ends the conversation",
            vec![
                in_use_but(&there, |flow| flow.in_macs = MacPair::default()),
                in_use(&back),
            ],
            vec![
                enters(&there, &there.packet())
                    .slow(Reason::MacChanged)
                    .and(Change::Gone(In::Flows, there))
                    .and(Change::Gone(In::Flows, back)),
            ],
        ),
    ]
}

/// Rules about ICMP may judge each packet, where it enters and where it leaves.
fn judged() -> Vec<Row> {
    let (there, _) = on_bridge();
    let off = |dev| device(dev, |device| device.flags &= !Device::ECHO);
    let (from_host, to_host) = scene::echo(host_to_container());
    let udp = bridged().0.udp();
    vec![
        row(
            "echo is left to the kernel where it enters, UDP is not",
            vec![off(Dev::A)],
            vec![
                enters(&udp, &udp.packet()).slow(Reason::NoFlow),
                // Nor is what follows taken for the one before it.
                enters(&there, &there.packet()).slow(Reason::EchoOff).candidate(false),
                leaves(&udp, &udp.packet()).ends(Reason::NoCandidate),
            ],
        ),
        row(
            "echo is left to the kernel where it leaves",
            vec![off(Dev::B)],
            through(&there, Reason::NoFlow, |step| step.ends(Reason::EgressUnknown)),
        ),
        row(
            "UDP is not left to the kernel where echo is",
            vec![off(Dev::B)],
            through(&udp, Reason::NoFlow, |step| step.learned(&udp)),
        ),
        row(
            "echo to the host is left to the kernel",
            vec![off(Dev::Bridge)],
            vec![
                enters(&to_host, &to_host.packet()).slow(Reason::NoFlow),
                leaves(&to_host, &to_host.packet())
                    .ends(Reason::EgressUnknown)
                    .candidate(true),
            ],
        ),
        row(
            "echo of the host is left to the kernel",
            vec![off(Dev::Bridge)],
            vec![enters(&from_host, &from_host.packet()).slow(Reason::EchoOff)],
        ),
    ]
}

/// What must be the same where a message leaves.
const CHANGES: &[(&str, Reason, Edit)] = &[
    ("another sequence number", Reason::OtherPacket, |p| p.sequence += 1),
    ("another upper half of the sequence number", Reason::OtherPacket, |p| {
        p.sequence ^= 0x8000;
    }),
    ("a reply instead of a request", Reason::OtherPacket, |p| {
        p.icmp_type = Some([0, 0]);
    }),
    ("another IP identification", Reason::OtherPacket, |p| p.id ^= 1),
    ("a byte more", Reason::OtherPacket, |p| p.payload.push(0)),
    ("other payload", Reason::Mangled, |p| p.payload[15] ^= 1),
    ("another TOS", Reason::Mangled, |p| p.tos = 0x20),
    ("a code", Reason::EgressGated, |p| p.icmp_type = Some([8, 1])),
    ("an identifier of zero", Reason::EgressGated, |p| {
        (p.source.1, p.icmp_type) = (0, Some([8, 0]));
    }),
    ("TTL 2 less", Reason::TtlChanged, |p| p.ttl = 62),
];

fn learned() -> Vec<Row> {
    let (there, _) = masquerade();
    let packet = there.packet();
    let mut rows: Vec<Row> = CHANGES
        .iter()
        .map(|(what, reason, edit)| {
            let out = there.leaving(&packet).with(|out| {
                // So that nothing but the edit is to be told from.
                edit(out);
            });
            row(
                format!("echo that leaves with {what}"),
                Vec::new(),
                vec![
                    enters(&there, &packet).slow(Reason::NoFlow),
                    leaves(&there, &out).ends(*reason),
                ],
            )
        })
        .collect();
    let short = |length: usize| there.packet().with(move |packet| packet.payload.truncate(length));
    for length in [0, 1, 3, 4, 15, 16] {
        let packet = short(length);
        rows.push(row(
            format!("echo with {length} bytes"),
            Vec::new(),
            vec![
                enters(&there, &packet).slow(Reason::NoFlow),
                leaves(&there, &there.leaving(&packet)).learned(&there),
            ],
        ));
    }
    rows
}

/// What becomes of messages on the fast path.
fn used() -> Vec<Row> {
    let (there, back) = masquerade();
    let mut rows = Vec::new();
    for (name, (there, back)) in [("masqueraded", (there, back)), ("bridged", on_bridge())] {
        let in_use = || vec![in_use(&there), in_use(&back)];
        for length in [0, 1, 2, 43, 1000, 1400] {
            let edit = |packet: &mut Packet| packet.payload = vec![0xa5; length];
            let (question, answer) = (there.packet().with(edit), back.packet().with(edit));
            rows.push(row(
                format!("echo {name} with {length} bytes"),
                in_use(),
                vec![
                    enters(&there, &question).fast(&there, &there.leaving(&question)),
                    enters(&back, &answer).fast(&back, &back.leaving(&answer)),
                ],
            ));
        }
        for sequence in [0, 1, 0x7fff, 0xffff] {
            let question = there.packet().with(|packet| packet.sequence = sequence);
            rows.push(row(
                format!("echo {name} number {sequence}"),
                in_use(),
                vec![enters(&there, &question).fast(&there, &there.leaving(&question))],
            ));
        }
    }
    let padded = back.packet().with(|packet| {
        packet.payload.truncate(4);
        packet.trailer = vec![0; 14];
    });
    rows.push(row(
        "a padded reply from the wire is cut",
        vec![in_use(&there), in_use(&back)],
        vec![enters(&back, &padded).fast(&back, &back.leaving(&padded))],
    ));
    // The addresses alone, and the identifier alone.
    let same_identifier = |way: scene::Way| {
        way.with(|way| {
            (way.after.source.1, way.after.destination.1) = (way.before.source.1, way.before.destination.1);
        })
    };
    let way = same_identifier(there);
    rows.push(row(
        "echo whose identifier stays",
        vec![in_use(&way)],
        vec![enters(&way, &way.packet()).fast(&way, &way.leaving(&way.packet()))],
    ));
    let way = there.with(|way| {
        (way.after.source.0, way.after.destination.0) = (way.before.source.0, way.before.destination.0);
    });
    rows.push(row(
        "echo whose addresses stay",
        vec![in_use(&way)],
        vec![enters(&way, &way.packet()).fast(&way, &way.leaving(&way.packet()))],
    ));
    // conntrack has given it another identifier since.
    let other = there.with(|way| way.after.source.1 += 1);
    let due: Vec<Given> = vec![
        in_use_but(&there, |flow| flow.learned_ns -= 2_000_000_000),
        in_use(&back),
    ];
    let length = there.packet().bytes().len() - 14;
    rows.push(row(
        "another identifier than before",
        due,
        vec![
            enters(&there, &there.packet()).slow(Reason::Revalidate).prompts(&back),
            leaves(&other, &other.leaving(&there.packet()))
                .ends(Reason::Learned)
                .and(Change::Gone(In::Flows, there))
                .and(Change::Gone(In::Flows, back))
                .and(stored(In::Unreplied, &other, length, |_| ())),
        ],
    ));
    rows
}

pub(super) fn rows() -> Vec<Row> {
    [odd(), pairs(), judged(), learned(), used()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn icmp_echo() {
    check(&rows());
}
