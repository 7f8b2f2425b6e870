//! The host's own stack: what it sends into a bridge, and what a bridge hands to it.

use netfast_common::{device::Device, flow::Exit, reason::Reason};
use netfast_tests::{
    packet::Packet,
    scene::{self, Dev, HOST, OUTSIDE, bridged, host_to_container, masquerade, published},
};

use super::{
    change::{Given, In, changed, device, in_use, in_use_but, stored, waiting},
    row::{Row, Step, check, enters, leaves, passes_into_bridge, passes_to_host, row},
};

/// A packet of a container to the host, at the bridge device.
fn delivered(what: &str, given: Vec<Given>, out: impl FnOnce(&mut Packet), end: impl FnOnce(Step) -> Step) -> Row {
    let (_, way) = host_to_container();
    let packet = way.packet();
    let out = way.leaving(&packet).with(out);
    row(
        what,
        given,
        vec![enters(&way, &packet).slow(Reason::NoFlow), end(leaves(&way, &out))],
    )
}

type Edit = fn(&mut Packet);

pub(super) fn rows() -> Vec<Row> {
    let (from_host, to_host) = host_to_container();
    let out = from_host.packet();
    let mut rows = Vec::new();
    let udp = (from_host.udp(), to_host.udp());
    for (from_host, to_host) in [(from_host, to_host), udp, scene::echo((from_host, to_host))] {
        let (out, answer) = (from_host.packet(), to_host.packet());
        let length = answer.bytes().len() - 14;
        rows.push(row(
            "host to container, and back",
            Vec::new(),
            vec![
                enters(&from_host, &out).slow(Reason::NoFlow),
                leaves(&from_host, &out).learned(&from_host),
                enters(&to_host, &answer).slow(Reason::NoFlow),
                // The host may also send it on: the candidate waits for that.
                leaves(&to_host, &answer).paired(&to_host, &from_host).candidate(true),
                enters(&from_host, &out).slow(Reason::Revalidate),
                leaves(&from_host, &out).refreshed(&from_host),
                enters(&from_host, &out).fast(&from_host, &out),
                enters(&to_host, &answer).fast(&to_host, &answer),
            ],
        ));
        rows.push(row(
            "container to host, and back",
            Vec::new(),
            vec![
                enters(&to_host, &answer).slow(Reason::NoFlow),
                leaves(&to_host, &answer)
                    .passes(Reason::Learned)
                    .and(stored(In::Unreplied, &to_host, length, |_| ())),
                enters(&from_host, &out).slow(Reason::NoFlow),
                leaves(&from_host, &out).paired(&from_host, &to_host),
            ],
        ));
    }
    rows.push(row(
        "a forwarded packet on its way into a bridge is not looked at",
        vec![in_use(&from_host)],
        vec![passes_into_bridge(Dev::Uplink, &out)],
    ));
    rows.push(row(
        "the host's packets and the wire's are different flows",
        vec![in_use(
            &from_host.with(|way| way.origin = netfast_common::flow::Origin::Wire),
        )],
        vec![enters(&from_host, &out).slow(Reason::NoFlow)],
    ));
    rows.push(row(
        "host to container: received by none, also where it leaves",
        Vec::new(),
        vec![
            enters(&from_host, &out).slow(Reason::NoFlow),
            leaves(&from_host, &out).from(Some(Dev::Bridge)).ends(Reason::OtherRun),
        ],
    ));
    rows.push(row(
        "the host's own packet does not come in again",
        Vec::new(),
        vec![
            enters(&from_host, &out).slow(Reason::NoFlow),
            passes_to_host(&out).passes(Reason::Passing),
        ],
    ));
    let to_itself = from_host.with(|way| way.before.destination.0 = HOST);
    rows.push(row(
        "the host's own packet comes in again, with an address of the host's",
        Vec::new(),
        vec![
            enters(&to_itself, &to_itself.packet()).slow(Reason::NoFlow),
            passes_to_host(&to_itself.packet()).passes(Reason::Passing),
        ],
    ));
    for (what, edit) in [
        ("source", (|packet| packet.source.0 = Dev::B.address()) as Edit),
        // To the routes that is the host as well.
        ("destination", |packet| packet.destination.0 = HOST),
        ("source port", |packet| packet.source.1 += 1),
        ("destination port", |packet| packet.destination.1 += 1),
        ("destination MAC", |packet| packet.to_mac[5] ^= 0x10),
        ("source MAC", |packet| packet.from_mac[5] ^= 0x10),
        ("TTL", |packet| packet.ttl -= 1),
    ] {
        rows.push(delivered(
            &format!("another {what} at the bridge already: not the host's flow to learn"),
            Vec::new(),
            edit,
            |step| step.passes(Reason::Passing),
        ));
    }
    rows.extend(translated());
    rows.extend(refused());
    rows.extend(on_the_way());
    rows
}

/// What rules for IP have translated within the bridge, which they do again behind the bridge device.
fn translated() -> Vec<Row> {
    let (from_host, to_host) = host_to_container();
    let by_ip = || device(Dev::Bridge, |device| device.flags |= Device::IP_TRANSLATES);
    let answer = to_host.packet();
    // As answers of a published port: by the address and the port that were asked.
    let back = to_host.leaving(&answer).with(|packet| packet.source = (HOST, 8080));
    let mut rows = vec![row(
        "an answer that was translated back within the bridge is handed over as it came",
        vec![by_ip(), waiting(&from_host)],
        vec![
            enters(&to_host, &answer).slow(Reason::NoFlow),
            leaves(&to_host, &back).paired(&to_host, &from_host).candidate(true),
            enters(&to_host, &answer).fast(&to_host, &answer),
        ],
    )];
    rows.push(delivered(
        "both ends were translated within the bridge",
        vec![by_ip(), waiting(&from_host)],
        |packet| (packet.source, packet.destination) = ((HOST, 8080), (HOST, 33001)),
        |step| step.paired(&to_host, &from_host).candidate(true),
    ));
    for (what, edit) in [
        ("destination MAC", (|packet| packet.to_mac[5] ^= 0x10) as Edit),
        ("source MAC", |packet| packet.from_mac[5] ^= 0x10),
        ("TTL", |packet| packet.ttl -= 1),
        ("destination off the host", |packet| packet.destination.0 = OUTSIDE),
    ] {
        rows.push(delivered(
            &format!("another {what} is no translation for the host"),
            vec![by_ip()],
            edit,
            |step| step.passes(Reason::Passing),
        ));
    }
    rows
}

/// What is not learned at a bridge device.
fn refused() -> Vec<Row> {
    let (_, to_host) = host_to_container();
    let answer = to_host.packet();
    vec![
        delivered(
            "another packet",
            Vec::new(),
            |packet| packet.id += 1,
            |step| step.ends(Reason::OtherPacket),
        ),
        delivered(
            "a changed payload",
            Vec::new(),
            |packet| packet.payload[0] += 1,
            |step| step.ends(Reason::OtherPacket),
        ),
        delivered(
            "nothing to understand",
            Vec::new(),
            |packet| packet.ethertype = 0x0806,
            |step| step.passes(Reason::EgressGated),
        ),
        delivered(
            "held for 30 ms",
            Vec::new(),
            |_| (),
            |step| step.after(Given::CandidateAged(30_000_000)).ends(Reason::OtherRun),
        ),
        delivered(
            "let go by another task",
            Vec::new(),
            |_| (),
            |step| step.after(Given::OtherStack).ends(Reason::OtherRun),
        ),
        delivered(
            "an unknown bridge device",
            vec![Given::NoDevice(Dev::Bridge)],
            |_| (),
            |step| step.passes(Reason::EgressUnknown),
        ),
        delivered(
            "a bridge device that is not to be accelerated",
            vec![device(Dev::Bridge, |device| device.flags &= !Device::ACCELERATED)],
            |_| (),
            |step| step.passes(Reason::EgressUnknown),
        ),
        row(
            "nothing entered",
            Vec::new(),
            vec![passes_to_host(&answer).ends(Reason::NoCandidate)],
        ),
    ]
}

/// Packets that pass a bridge device on their way.
fn on_the_way() -> Vec<Row> {
    let (from_host, to_host) = host_to_container();
    let answer = to_host.packet();
    vec![
        row("to be sent on, by the routes", Vec::new(), {
            let (way, _) = masquerade();
            let packet = way.packet();
            vec![
                enters(&way, &packet).slow(Reason::NoFlow),
                passes_to_host(&packet).passes(Reason::Passing),
                leaves(&way, &way.leaving(&packet)).learned(&way),
            ]
        }),
        row("sent on, but not by way of the bridge that it passed", Vec::new(), {
            let (way, _) = masquerade();
            let packet = way.packet();
            vec![
                enters(&way, &packet).slow(Reason::NoFlow),
                passes_to_host(&packet).passes(Reason::Passing),
                leaves(&way, &way.leaving(&packet))
                    .from(Some(Dev::A))
                    .ends(Reason::OtherRun),
            ]
        }),
        row(
            "a flow to the host asks again",
            vec![in_use_but(&to_host, |flow| flow.learned_ns -= 2_000_000_000)],
            vec![
                enters(&to_host, &answer).slow(Reason::Revalidate),
                leaves(&to_host, &answer)
                    .refreshed(&to_host)
                    .candidate(true)
                    .and(changed(In::Flows, &to_host, |flow| flow.max_length = 576)),
            ],
        ),
        row(
            "a flow is known that does more than hand it to the host",
            vec![in_use_but(&to_host, |flow| {
                flow.exit = Exit::Peer as u8;
                flow.learned_ns -= 2_000_000_000;
            })],
            vec![
                enters(&to_host, &answer).slow(Reason::Revalidate),
                leaves(&to_host, &answer).passes(Reason::Passing),
            ],
        ),
        row(
            "a TCP packet without payload is for the host as well",
            vec![waiting(&from_host)],
            {
                let ack = answer.clone().with(|packet| packet.payload.clear());
                vec![
                    enters(&to_host, &ack).slow(Reason::NoFlow),
                    leaves(&to_host, &ack).paired(&to_host, &from_host).candidate(true),
                ]
            },
        ),
        row("bridged packets do not meet the bridge device", Vec::new(), {
            let (way, _) = bridged();
            let packet = way.packet();
            vec![
                enters(&way, &packet).slow(Reason::NoFlow),
                leaves(&way, &packet).learned(&way),
                passes_to_host(&packet).ends(Reason::NoCandidate),
            ]
        }),
        row("from outside by way of a bridge to a container", Vec::new(), {
            let (way, _) = published();
            let packet = way.packet();
            vec![
                enters(&way, &packet).slow(Reason::NoFlow),
                passes_into_bridge(Dev::Uplink, &way.leaving(&packet)).candidate(true),
                leaves(&way, &way.leaving(&packet)).learned(&way),
            ]
        }),
    ]
}

#[test]
fn the_hosts_own_stack() {
    check(&rows());
}
