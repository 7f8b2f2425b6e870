//! The first packets of a flow, which are only counted.

use netfast_common::reason::Reason;
use netfast_tests::{
    packet::flag,
    scene::{Way, bridged},
};

use super::{
    change::{Given, control, in_use_but},
    harness::EPOCH,
    learning::masquerade,
    row::{Row, Step, check, enters, leaves, row},
};

const LEARN_AFTER: u32 = 3;

fn learn_after() -> Given {
    control(|control| control.learn_after = LEARN_AFTER)
}

fn young(way: &Way) -> Vec<Step> {
    let step = || enters(way, &way.packet()).slow(Reason::Young);
    (0..LEARN_AFTER).map(|_| step()).collect()
}

fn old(way: &Way) -> Step {
    enters(way, &way.packet()).slow(Reason::NoFlow)
}

/// Rows of the first packets.
pub fn rows() -> Vec<Row> {
    let (there, back) = masquerade();
    let (bridged, _) = bridged();
    let mut rows = Vec::new();
    for (what, way) in [("TCP", there), ("TCP, on a bridge", bridged)] {
        let mut steps = young(&way);
        let left = way.leaving(&way.packet());
        steps.extend([old(&way), leaves(&way, &left).learned(&way)]);
        rows.push(row(
            format!("{what}: three packets, then a candidate"),
            vec![learn_after()],
            steps,
        ));
    }
    let mut steps = vec![enters(&there, &there.packet()).slow(Reason::Young)];
    steps.push(leaves(&there, &there.leaving(&there.packet())).ends(Reason::NoCandidate));
    rows.push(row("nothing is learned of a young flow", vec![learn_after()], steps));
    for (what, flags, reason) in [
        ("SYN", flag::SYN, Reason::TcpSyn),
        ("FIN", flag::FIN | flag::ACK, Reason::TcpFin),
        ("RST", flag::RST, Reason::TcpRst),
    ] {
        let packet = there.packet().with(|packet| packet.flags = flags);
        let mut steps = young(&there);
        steps.push(enters(&there, &packet).slow(reason));
        steps.extend(young(&there));
        steps.push(old(&there));
        rows.push(row(format!("a {what} counts anew"), vec![learn_after()], steps));
    }
    let mut steps = young(&there);
    steps.extend(young(&back));
    steps.extend([old(&there), old(&back)]);
    rows.push(row("directions are counted apart", vec![learn_after()], steps));
    // iperf3's server answers with one datagram and then only listens.
    let (asks, answers) = (there.udp(), back.udp());
    rows.push(row(
        "UDP: one packet of each direction is enough",
        vec![learn_after()],
        vec![
            old(&asks),
            leaves(&asks, &asks.leaving(&asks.packet())).learned(&asks),
            old(&answers),
            leaves(&answers, &answers.leaving(&answers.packet())).paired(&answers, &asks),
        ],
    ));
    rows.push(row(
        "a flow that is known is never young",
        vec![learn_after(), in_use_but(&there, |flow| flow.epoch = EPOCH - 1)],
        vec![enters(&there, &there.packet()).slow(Reason::StaleEpoch)],
    ));
    let spoofed = there.packet().with(|packet| packet.source.0 = [9, 9, 9, 9].into());
    rows.push(row(
        "a spoofed packet is that before it is young",
        vec![learn_after()],
        vec![enters(&there, &spoofed).slow(Reason::Spoofed)],
    ));
    rows
}

#[test]
fn first_packets_are_only_counted() {
    check(&rows());
}
