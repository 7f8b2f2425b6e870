//! Flows in use: what keeps a packet from them, and what becomes of one that takes them.

use netfast_common::{device::Device, flow::Exit, reason::Reason};
use netfast_tests::{
    packet::{Packet, check_checksums, flag},
    scene::{Dev, Way, bridged, hairpin, host_to_container, masquerade, published},
};

use super::{
    change::{Change, Given, In, changed, control, device, in_use, in_use_but},
    harness::EPOCH,
    row::{Row, check, enters, row},
};

const MS: u64 = 1_000_000;

/// A packet that keeps the flow's own doors shut, by what is given.
fn kept_out() -> Vec<Row> {
    let (there, back) = masquerade();
    let packet = there.packet();
    let length = u16::try_from(packet.bytes().len() - 14).expect("short");
    let row_of = |what: &str, given: Vec<Given>, packet: &Packet, reason: Reason| {
        row(what, given, vec![enters(&there, packet).slow(reason)])
    };
    vec![
        row_of("no flow at all", Vec::new(), &packet, Reason::NoFlow),
        row_of(
            "another epoch",
            vec![in_use(&there), control(|control| control.epoch = EPOCH + 1)],
            &packet,
            Reason::StaleEpoch,
        ),
        row_of(
            "another generation where it enters",
            vec![in_use(&there), Given::Generation(Dev::A, 1)],
            &packet,
            Reason::StaleGeneration,
        ),
        row_of(
            "another generation where it leaves",
            vec![in_use(&there), Given::Generation(Dev::Uplink, 1)],
            &packet,
            Reason::StaleGeneration,
        ),
        row_of(
            "due to ask the kernel, in the midst of traffic",
            vec![in_use_but(&there, |flow| flow.learned_ns -= 1000 * MS)],
            &packet,
            Reason::Revalidate,
        ),
        row_of(
            "soon due to ask the kernel, and a pause to do it in",
            vec![in_use_but(&there, |flow| {
                flow.learned_ns -= 500 * MS;
                flow.used_ns -= 30 * MS;
            })],
            &packet,
            Reason::Revalidate,
        ),
        row_of(
            "due by a shorter interval of the daemon's",
            vec![in_use(&there), control(|control| control.revalidate_ns = 20 * MS)],
            &packet,
            Reason::Revalidate,
        ),
        row_of(
            "longer than what the kernel let through",
            vec![in_use_but(&there, move |flow| flow.max_length = length - 1)],
            &packet,
            Reason::TooBig,
        ),
        row_of(
            "another DSCP",
            vec![in_use(&there)],
            &packet.clone().with(|packet| packet.tos = 4),
            Reason::DscpChanged,
        ),
        row(
            "another destination MAC: it may leave by another interface, so both directions end",
            vec![in_use(&there), in_use(&back)],
            vec![
                enters(&there, &packet.clone().with(|packet| packet.to_mac[5] ^= 2))
                    .slow(Reason::MacChanged)
                    .and(Change::Gone(In::Flows, there))
                    .and(Change::Gone(In::Flows, back)),
            ],
        ),
        row(
            "another destination MAC of a stale flow: the other direction may be in use still",
            vec![in_use_but(&there, |flow| flow.epoch -= 1), in_use(&back)],
            vec![
                enters(&there, &packet.clone().with(|packet| packet.to_mac[5] ^= 2))
                    .slow(Reason::MacChanged)
                    .and(Change::Gone(In::Flows, there))
                    .and(Change::Gone(In::Flows, back)),
            ],
        ),
        row_of(
            "a flow of another interface",
            vec![in_use(&there.with(|way| way.enters = Dev::B))],
            &packet,
            Reason::NoFlow,
        ),
        row_of(
            "a flow of another protocol",
            vec![in_use(&there.udp())],
            &packet,
            Reason::NoFlow,
        ),
    ]
}

/// A flow whose place in the table another is given, before and while it is looked at.
fn replaced() -> Vec<Row> {
    let (there, _) = masquerade();
    let (straight, _) = bridged();
    // Counted before the last look: in another's flow, or nobody's.
    let noticed_late = |what: &str, way: &Way| {
        row(
            what,
            vec![in_use_but(way, |flow| flow.tag += 2)],
            vec![
                enters(way, &way.packet())
                    .slow(Reason::Replaced)
                    .and(counted(way, &way.packet())),
            ],
        )
    };
    vec![
        row(
            "its place was given to another flow",
            vec![in_use_but(&there, |flow| {
                flow.tag += 2;
                flow.tag_end += 2;
            })],
            vec![enters(&there, &there.packet()).slow(Reason::Replaced)],
        ),
        noticed_late("its place is being given to another flow", &there),
        noticed_late(
            "its place is being given to another flow, and nothing would be rewritten",
            &straight,
        ),
    ]
}

fn counted(way: &Way, packet: &Packet) -> Change {
    let bytes = packet.bytes().len() as u64 - 14;
    changed(In::Flows, way, move |flow| {
        flow.packets += 1;
        flow.bytes += bytes;
        flow.used_ns = super::state::NOW;
    })
}

/// One packet on a flow in use: it comes out as the kernel would have made it.
fn fast(what: impl Into<String>, way: &Way, packet: &Packet) -> Row {
    fast_given(what, vec![in_use(way)], way, packet)
}

fn fast_given(what: impl Into<String>, given: Vec<Given>, way: &Way, packet: &Packet) -> Row {
    let out = way.leaving(packet);
    if packet.checksum.is_none() {
        check_checksums(&out.bytes()).expect("the test's own arithmetic");
    }
    row(what, given, vec![enters(way, packet).fast(way, &out)])
}

/// Packets of every kind that a flow in use carries.
fn carried() -> Vec<Row> {
    let (there, back) = masquerade();
    let packet = there.packet();
    let length = u16::try_from(packet.bytes().len() - 14).expect("short");
    let mut rows = vec![
        fast_given(
            "half of the interval old, in the midst of traffic",
            vec![in_use_but(&there, |flow| flow.learned_ns -= 600 * MS)],
            &there,
            &packet,
        ),
        fast_given(
            "a pause, but young",
            vec![in_use_but(&there, |flow| flow.used_ns -= 50 * MS)],
            &there,
            &packet,
        ),
        fast_given(
            "as long as what the kernel let through",
            vec![in_use_but(&there, move |flow| flow.max_length = length)],
            &there,
            &packet,
        ),
        fast("TTL 2", &there, &packet.clone().with(|packet| packet.ttl = 2)),
        fast(
            "no payload",
            &there,
            &packet.clone().with(|packet| packet.payload.clear()),
        ),
        fast(
            "URG, ECE and CWR",
            &there,
            &packet.clone().with(|packet| packet.flags = flag::ACK | 0xe0),
        ),
        fast(
            "TCP options",
            &there,
            &packet.clone().with(|packet| packet.tcp_options = vec![1; 40]),
        ),
        fast(
            "may be fragmented",
            &there,
            &packet.clone().with(|packet| packet.fragment = 0),
        ),
        fast(
            "1500 bytes",
            &there,
            &packet.clone().with(|packet| packet.payload = vec![0xa5; 1460]),
        ),
        fast(
            "padded by the network card: what the kernel cuts off is cut off",
            &back,
            &back.packet().with(|packet| {
                packet.payload = vec![1];
                packet.trailer = vec![0; 5];
            }),
        ),
        fast(
            "with more behind it than padding",
            &back,
            &back.packet().with(|packet| packet.trailer = vec![0xa5; 300]),
        ),
        fast(
            "a packet of many parts to sum up",
            &there,
            &packet.clone().with(|packet| packet.payload = vec![0x5a; 1459]),
        ),
        fast(
            "UDP without checksum",
            &there.udp(),
            &there.udp().packet().with(|packet| packet.checksum = Some(0)),
        ),
        fast(
            "UDP without payload",
            &there.udp(),
            &there.udp().packet().with(|packet| packet.payload.clear()),
        ),
    ];
    for ecn in 1..4 {
        rows.push(fast(
            format!("ECN {ecn}"),
            &there,
            &packet.clone().with(|packet| packet.tos = ecn),
        ));
    }
    rows.push(fast_given(
        "the DSCP that it was learned with",
        vec![in_use_but(&there, |flow| flow.dscp = 0xb8)],
        &there,
        &packet.clone().with(|packet| packet.tos = 0xb9),
    ));
    rows.push(udp_checksum_of_zero());
    rows.extend(all_sorts());
    rows
}

/// A checksum that comes out as zero is sent as all ones (RFC 768).
fn udp_checksum_of_zero() -> Row {
    let way = masquerade().0.udp();
    let packet = (0..=u16::MAX)
        .map(|number| {
            way.packet()
                .with(|packet| packet.payload = number.to_be_bytes().to_vec())
        })
        .find(|packet| way.leaving(packet).bytes()[40..42] == [0xff, 0xff])
        .expect("one payload of all makes it so");
    fast("a UDP checksum that becomes zero", &way, &packet)
}

/// Numbers of all sorts on every path: whatever the bits, checksums must be as if counted anew.
fn all_sorts() -> Vec<Row> {
    let mut number = 1_u32;
    let mut next = move |below: u32| {
        // Numerical Recipes' generator: the same numbers in every run.
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 8) % below
    };
    let mut rows = Vec::new();
    for (name, (there, back)) in [
        ("bridged", bridged()),
        ("masqueraded", masquerade()),
        ("published", published()),
        ("hairpin", hairpin(40000, 8080)),
    ] {
        for way in [there, back, there.udp(), back.udp()] {
            for _ in 0..6 {
                let packet = way.packet().with(|packet| {
                    packet.id = next(1 << 16).try_into().expect("16 bits");
                    packet.ttl = (2 + next(254)).try_into().expect("8 bits");
                    packet.sequence = next(1 << 24) << 8;
                    packet.acknowledgement = next(1 << 24) + (1 << 30);
                    packet.window = next(1 << 16).try_into().expect("16 bits");
                    packet.payload = (0..next(64)).map(|_| next(256).try_into().expect("8 bits")).collect();
                });
                rows.push(fast(format!("{name}: {packet:?}"), &way, &packet));
            }
        }
    }
    rows
}

/// Marks, priorities and queues: what is set for the device's egress, and not for the peer.
fn passed_on() -> Vec<Row> {
    let (to_uplink, to_container) = masquerade();
    let marked = |way: &Way| {
        in_use_but(way, |flow| {
            flow.mark = 5;
            flow.priority = 3;
        })
    };
    let (to_host, from_host) = (host_to_container().1, host_to_container().0);
    let step = |way: &Way| {
        let packet = way.packet();
        enters(way, &packet).fast(way, &way.leaving(&packet))
    };
    let bulk = |value: u8| move |flow: &mut netfast_common::flow::Flow<netfast_common::net::Ip4>| flow.bulk = value;
    let gso = to_container.packet().with(|packet| packet.payload = vec![7; 2000]);
    let gso_step = |way: &Way| enters(way, &gso).gso(1000).fast(way, &way.leaving(&gso));
    vec![
        row(
            "mark and priority go along to an uplink",
            vec![marked(&to_uplink)],
            vec![step(&to_uplink).leaves_with(5, 3)],
        ),
        row(
            "a priority that is not the flow's is replaced",
            vec![in_use(&to_uplink)],
            vec![step(&to_uplink).priority(6).leaves_with(0, 0)],
        ),
        row(
            "mark and priority go along from the host's stack",
            vec![marked(&from_host)],
            vec![step(&from_host).leaves_with(5, 3)],
        ),
        row(
            "a peer has no queue to read them",
            vec![marked(&to_container)],
            vec![step(&to_container).leaves_with(0, 0)],
        ),
        row(
            "the host's stack gets the packet as it came",
            vec![marked(&to_host)],
            vec![step(&to_host).priority(6).leaves_with(0, 6)],
        ),
        row(
            "GSO packets go through the device's queue",
            vec![marked(&to_container)],
            vec![
                gso_step(&to_container)
                    .leaves_with(5, 3)
                    .and(changed(In::Flows, &to_container, bulk(1))),
            ],
        ),
        row(
            "and so do those behind them",
            vec![in_use_but(&to_container, |flow| {
                flow.mark = 5;
                flow.bulk = 1;
            })],
            vec![step(&to_container).leaves_with(5, 0)],
        ),
        row(
            "after a pause they go to the peer again",
            vec![in_use_but(&to_container, |flow| {
                flow.mark = 5;
                flow.bulk = 1;
                flow.used_ns -= 30 * MS;
            })],
            vec![
                step(&to_container)
                    .leaves_with(0, 0)
                    .and(changed(In::Flows, &to_container, bulk(0))),
            ],
        ),
        row(
            "GSO: segments that fit",
            vec![in_use_but(&to_container, |flow| flow.max_length = 1040)],
            vec![gso_step(&to_container).and(changed(In::Flows, &to_container, bulk(1)))],
        ),
        row(
            "GSO: segments that do not fit",
            vec![in_use_but(&to_container, |flow| flow.max_length = 1039)],
            vec![enters(&to_container, &gso).gso(1000).slow(Reason::TooBig)],
        ),
        row(
            "the device's flags count when a flow is learned, its generation when it is used",
            vec![
                in_use_but(&to_container, |flow| flow.exit = Exit::Device as u8),
                device(Dev::A, |device| device.flags |= Device::EGRESS_QDISC),
            ],
            vec![step(&to_container)],
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [kept_out(), replaced(), carried(), passed_on()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn flows_in_use() {
    check(&rows());
}
