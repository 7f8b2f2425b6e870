//! Whole conversations: learned in both directions, then used in both, on every path that netfast serves.

use netfast_common::{device::NetnsNumber, reason::Reason};
use netfast_tests::{
    packet::Packet,
    scene::{self, Dev, Pair, Way, between_bridges, bridged, hairpin, masquerade, published},
};

use super::{
    change::{Change, In, stored},
    row::{Row, Step, check, check_as, enters, leaves, passes_into_bridge, passes_to_host, row},
};

/// A packet the slow way through the kernel: where it enters, the bridge hooks that it meets, and what becomes of it.
fn slow_way(way: &Way, packet: &Packet, reason: Reason, end: impl Fn(Step) -> Step) -> Vec<Step> {
    let mut steps = vec![enters(way, packet).slow(reason)];
    if way.via == Some(Dev::Bridge) {
        let step = passes_to_host(packet);
        steps.push(if way.meets_host_first() && reason == Reason::NoFlow {
            // To the routes it is for the host until NAT has changed it; what comes of it then replaces this.
            let length = packet.bytes().len() - 14;
            let to_host = stored(In::Unreplied, &way.ending_at(Dev::Bridge), length, |_| ());
            step.passes(Reason::Learned).and(to_host)
        } else {
            step.passes(Reason::Passing)
        });
    }
    let out = way.leaving(packet);
    if way.routed && way.leaves == Dev::A {
        steps.push(passes_into_bridge(way.enters, &out));
    }
    steps.push(end(leaves(way, &out)));
    steps
}

fn conversation(what: &str, (there, back): &Pair) -> Row {
    let (question, answer) = (there.packet(), back.packet());
    let mut steps = slow_way(there, &question, Reason::NoFlow, |step| step.learned(there));
    steps.extend(slow_way(back, &answer, Reason::NoFlow, |step| {
        let step = step.paired(back, there);
        if back.meets_host_first() {
            step.and(Change::Gone(In::Unreplied, *back))
        } else {
            step
        }
    }));
    // The first question was one of a new connection, the second is not.
    steps.extend(slow_way(there, &question, Reason::Revalidate, |step| {
        step.refreshed(there)
    }));
    for id in 0..2 {
        let question = question.clone().with(|packet| packet.id = id);
        let answer = answer.clone().with(|packet| packet.id = id);
        steps.push(enters(there, &question).fast(there, &there.leaving(&question)));
        steps.push(enters(back, &answer).fast(back, &back.leaving(&answer)));
    }
    row(what, Vec::new(), steps)
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, pair) in [
        ("on one bridge", bridged()),
        ("masqueraded", masquerade()),
        ("to a published port", published()),
        ("to a published port by the host's address", hairpin(40000, 8080)),
        ("routed between bridges", between_bridges()),
    ] {
        rows.push(conversation(&format!("TCP {name}"), &pair));
        rows.push(conversation(&format!("ICMP echo {name}"), &scene::echo(pair)));
        let pair = (pair.0.udp(), pair.1.udp());
        rows.push(conversation(&format!("UDP {name}"), &pair));
    }
    rows
}

#[test]
fn conversations_are_learned_and_used() {
    check(&rows());
}

/// The number is part of what devices and flows are found by: with programs that did not heed it nothing would be.
#[test]
fn conversations_are_learned_and_used_in_another_namespace() {
    check_as(NetnsNumber(7), &rows());
}
