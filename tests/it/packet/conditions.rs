//! What is written down when a flow is learned, besides what was rewritten; and TCP packets not worth it.

use netfast_common::reason::Reason;
use netfast_tests::scene::{Dev, bridged};

use super::{
    change::{Given, In, control, in_use, stored, waiting},
    harness::EPOCH,
    learning::{learned, learns, masquerade},
    row::{Row, check, enters, leaves, row},
};

/// What is written down of the conditions, besides what was rewritten.
fn conditions() -> Vec<Row> {
    let (there, _) = bridged();
    let (to_uplink, _) = masquerade();
    let of_length = |length: usize| there.packet().with(|packet| packet.payload = vec![1; length - 40]);
    let mut rows = Vec::new();
    for (length, limit) in [
        (40, 576),
        (576, 576),
        (577, 577),
        (1261, 1261),
        (1480, 1480),
        (1499, 1499),
        (1500, 1500),
        (1600, 1500),
    ] {
        // No payload opens no TCP flow.
        let way = if length == 40 { there.udp() } else { there };
        let packet = if length == 40 {
            way.packet().with(|packet| packet.payload = vec![1; 12])
        } else {
            of_length(length)
        };
        rows.push(learned(
            format!("{length} bytes"),
            Vec::new(),
            &way,
            &packet,
            move |flow| {
                flow.max_length = limit;
            },
        ));
    }
    let big = of_length(3040);
    let gso = |size: u32, limit: u16| {
        let learn = learns(&there, &big, move |flow| {
            flow.max_length = limit;
            flow.bulk = 1;
        });
        row(
            format!("GSO with segments of {size}"),
            Vec::new(),
            vec![enters(&there, &big).gso(size).slow(Reason::NoFlow), learn.gso(size)],
        )
    };
    rows.extend([gso(1000, 1040), gso(100, 576), gso(1240, 1280), gso(1460, 1500)]);
    let packet = to_uplink.packet();
    rows.push(row(
        "mark and priority as it leaves",
        Vec::new(),
        vec![
            enters(&to_uplink, &packet).slow(Reason::NoFlow),
            learns(&to_uplink, &packet, |flow| {
                flow.mark = 9;
                flow.priority = 4;
            })
            .mark(9)
            .priority(4),
        ],
    ));
    let expedited = packet.clone().with(|packet| packet.tos = 0xb9);
    rows.push(learned(
        "DSCP without ECN",
        Vec::new(),
        &to_uplink,
        &expedited,
        |flow| flow.dscp = 0xb8,
    ));
    rows.push(row(
        "the epoch as it entered",
        Vec::new(),
        vec![
            enters(&to_uplink, &packet).slow(Reason::NoFlow),
            learns(&to_uplink, &packet, |_| ()).after(control(|control| control.epoch = EPOCH + 1)),
        ],
    ));
    rows.push(row(
        "the generation as it entered",
        Vec::new(),
        vec![
            enters(&to_uplink, &packet).slow(Reason::NoFlow),
            learns(&to_uplink, &packet, |_| ()).after(Given::Generation(Dev::A, 999)),
        ],
    ));
    rows.push(learned(
        "the generation as it leaves",
        vec![Given::Generation(Dev::Uplink, 999)],
        &to_uplink,
        &packet,
        |flow| flow.out_generation = 999,
    ));
    rows
}

/// TCP without payload completes a pair and opens none.
fn bare() -> Vec<Row> {
    let (there, back) = masquerade();
    let ack = there.packet().with(|packet| packet.payload.clear());
    let enter = || enters(&there, &ack).slow(Reason::NoFlow);
    let leave = || leaves(&there, &there.leaving(&ack));
    let datagram = there.udp().packet().with(|packet| packet.payload.clear());
    vec![
        row(
            "a bare ACK opens nothing",
            Vec::new(),
            vec![enter(), leave().ends(Reason::NotWorthIt)],
        ),
        row(
            "a bare ACK completes what waits",
            vec![waiting(&back)],
            vec![enter(), leave().paired(&there, &back)],
        ),
        row(
            "a bare ACK completes what is in use",
            vec![in_use(&back)],
            vec![
                enter(),
                leave().ends(Reason::Paired).and(stored(In::Flows, &there, 40, |_| ())),
            ],
        ),
        learned(
            "a datagram without payload",
            Vec::new(),
            &there.udp(),
            &datagram,
            |_| (),
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [conditions(), bare()].into_iter().flatten().collect()
}

#[test]
fn what_is_written_down() {
    check(&rows());
}
