//! The two directions of a conversation: used only together, paired only with the true reverse, ended together, and
//! learned again without being forgotten.

use netfast_common::{
    flow::{Exit, Flow},
    net::{Ip4, MacPair, Port},
    reason::Reason,
};
use netfast_tests::scene::{self, Dev, Pair, Way, bridged, host_to_container};

use super::{
    change::{Change, Given, In, changed, control, in_use, in_use_but, stored, waiting},
    harness::EPOCH,
    row::{Row, Step, check, enters, leaves, row, through},
};

const MS: u64 = 1_000_000;

fn masquerade() -> Pair {
    scene::direct(scene::masquerade())
}

fn published() -> Pair {
    scene::direct(scene::published())
}

type Edit = fn(&mut Flow<Ip4>);

/// A flow without its reverse is not used.
fn unreplied() -> Vec<Row> {
    let (there, back) = published();
    let udp = there.udp();
    vec![
        row(
            "UDP without answer, again and again",
            Vec::new(),
            [
                through(&udp, Reason::NoFlow, |step| step.learned(&udp)),
                through(&udp, Reason::Unreplied, |step| step.learned(&udp)),
                through(&udp, Reason::Unreplied, |step| step.learned(&udp)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        row(
            "TCP without answer",
            vec![waiting(&there)],
            through(&there, Reason::NoFlow, |step| step.learned(&there)),
        ),
        row(
            "the answer waits too, by another mapping",
            vec![waiting(&back.with(|way| way.after.destination.1 = 1))],
            through(&there, Reason::NoFlow, |step| step.learned(&there)),
        ),
        row(
            "learned both ways before they were paired",
            vec![waiting(&there), waiting(&back)],
            through(&there, Reason::NoFlow, |step| step.paired(&there, &back)).with_gone(&there),
        ),
    ]
}

trait WithGone {
    fn with_gone(self, way: &Way) -> Self;
}

impl WithGone for Vec<Step> {
    /// The last step also takes the flow from those that wait.
    fn with_gone(mut self, way: &Way) -> Self {
        let step = self.pop().expect("a step").and(Change::Gone(In::Unreplied, *way));
        self.push(step);
        self
    }
}

/// What makes a flow not the reverse of another, though its key is that of the reverse.
const NOT_REVERSE: &[(&str, Edit)] = &[
    ("leaves by another interface", |flow| flow.out_ifindex += 1),
    ("leaves to the host", |flow| flow.exit = Exit::Host as u8),
    ("leaves with another source", |flow| {
        flow.source = Ip4::from_bytes([1, 2, 3, 4]);
    }),
    ("leaves with another destination", |flow| {
        flow.destination = Ip4::from_bytes([1, 2, 3, 4]);
    }),
    ("leaves with another source port", |flow| {
        flow.source_port = Port::new(1);
    }),
    ("leaves with another destination port", |flow| {
        flow.destination_port = Port::new(1);
    }),
];

fn only_true_reverse() -> Vec<Row> {
    let mut rows = Vec::new();
    for (there, back) in [bridged(), masquerade()] {
        for (what, edit) in NOT_REVERSE {
            for table in [In::Unreplied, In::Flows] {
                rows.push(row(
                    format!("in {table:?}, a neighbour's flow that {what}"),
                    vec![Given::Flow(table, back, Box::new(edit))],
                    through(&there, Reason::NoFlow, |step| step.learned(&there)),
                ));
            }
        }
        rows.push(row(
            "the reverse is in use already",
            vec![in_use(&back)],
            through(&there, Reason::NoFlow, |step| {
                step.ends(Reason::Paired).and(stored(In::Flows, &there, 83, |_| ()))
            }),
        ));
        rows.push(row(
            "the reverse of another protocol waits",
            vec![waiting(&back.udp())],
            through(&there, Reason::NoFlow, |step| step.learned(&there)),
        ));
    }
    let (from_host, to_host) = host_to_container();
    let not_to_host = to_host.with(|way| {
        way.leaves = Dev::Bridge;
        way.exit = Exit::Device;
    });
    rows.push(row(
        "the host's flow and one that leaves by the bridge device",
        vec![waiting(&not_to_host)],
        through(&from_host, Reason::NoFlow, |step| step.learned(&from_host)),
    ));
    rows
}

/// What makes a known flow another mapping: it is stored anew, not stamped.
const OTHER_MAPPING: &[(&str, Edit)] = &[
    ("interface", |flow| flow.out_ifindex += 1),
    ("source", |flow| flow.source = Ip4::from_bytes([1, 2, 3, 4])),
    ("destination", |flow| flow.destination = Ip4::from_bytes([1, 2, 3, 4])),
    ("source port", |flow| flow.source_port = Port::new(1)),
    ("destination port", |flow| flow.destination_port = Port::new(1)),
    ("MAC addresses as it enters", |flow| {
        flow.in_macs = MacPair::new([2; 6], [4; 6]);
    }),
    ("MAC addresses as it leaves", |flow| {
        flow.out_macs = MacPair::new([2; 6], [4; 6]);
    }),
    ("exit", |flow| flow.exit = 3 - flow.exit),
    ("flags", |flow| flow.flags ^= Flow::<Ip4>::ROUTED),
    ("slot where it enters", |flow| flow.in_slot += 1),
    ("slot where it leaves", |flow| flow.out_slot += 1),
    ("tag", |flow| flow.tag += 2),
];

/// Flows are not used, so that a packet enters whatever is wrong with its flow.
fn no_use() -> Given {
    control(|control| control.switches = netfast_common::control::Control::LEARN)
}

/// A packet that enters while flows are not used.
fn again(way: &Way, end: impl FnOnce(Step) -> Step) -> Vec<Step> {
    let packet = way.packet();
    vec![
        enters(way, &packet).slow(Reason::Disabled).candidate(true),
        end(leaves(way, &way.leaving(&packet))),
    ]
}

fn learned_again() -> Vec<Row> {
    let (there, back) = masquerade();
    let mut rows = Vec::new();
    for (what, edit) in OTHER_MAPPING {
        rows.push(row(
            format!("a known flow with another {what} is replaced"),
            vec![no_use(), in_use_but(&there, edit), in_use(&back)],
            again(&there, |step| {
                step.ends(Reason::Paired).and(stored(In::Flows, &there, 83, |_| ()))
            }),
        ));
        rows.push(row(
            format!("a known flow with another {what}, its reverse unknown, waits again"),
            vec![no_use(), in_use_but(&there, edit)],
            again(&there, |step| step.learned(&there).and(Change::Gone(In::Flows, there))),
        ));
    }
    let old_back = back.with(|way| way.before.destination.1 = 1);
    rows.push(row(
        "what came back by the old mapping comes no more",
        vec![
            no_use(),
            in_use_but(&there, |flow| flow.source_port = Port::new(1)),
            in_use(&old_back),
            in_use(&back),
        ],
        again(&there, |step| {
            step.ends(Reason::Paired)
                .and(stored(In::Flows, &there, 83, |_| ()))
                .and(Change::Gone(In::Flows, old_back))
        }),
    ));
    rows
}

/// A flow in use whose packet asked the kernel again.
fn asked() -> Vec<Row> {
    let (there, back) = masquerade();
    let mut rows = Vec::new();
    let aged = |by: u64, max_length: u16| {
        in_use_but(&there, move |flow| {
            flow.learned_ns -= by;
            flow.max_length = max_length;
            flow.packets = 1234;
            flow.bytes = 123_456;
        })
    };
    let limit = |max_length: u16| changed(In::Flows, &there, move |flow| flow.max_length = max_length);
    for (what, by, before, reason, after) in [
        ("asked: a lower limit counts", 2000 * MS, 1500, Reason::Revalidate, 576),
        ("asked: a higher limit counts", 2000 * MS, 50, Reason::TooBig, 576),
        ("asked a moment ago: a higher limit counts", 0, 50, Reason::TooBig, 576),
    ] {
        rows.push(row(
            what,
            vec![aged(by, before)],
            through(&there, reason, |step| step.refreshed(&there).and(limit(after))),
        ));
    }
    rows.push(row(
        "asked a moment ago: a lower limit does not count",
        vec![no_use(), aged(0, 1500)],
        again(&there, |step| step.refreshed(&there)),
    ));
    rows.push(row(
        "the answers to a question: epoch, generations, DSCP, mark and priority; counts and times of use stay",
        vec![in_use_but(&there, |flow| {
            flow.epoch = EPOCH - 1;
            flow.in_generation = 1;
            flow.out_generation = 2;
            flow.dscp = 4;
            flow.mark = 1;
            flow.priority = 2;
            flow.packets = 10;
        })],
        {
            let packet = there.packet();
            vec![
                enters(&there, &packet).slow(Reason::StaleEpoch),
                leaves(&there, &there.leaving(&packet))
                    .mark(8)
                    .priority(9)
                    .refreshed(&there)
                    .and(changed(In::Flows, &there, |flow| {
                        flow.epoch = EPOCH;
                        flow.in_generation = Dev::A.generation();
                        flow.out_generation = Dev::Uplink.generation();
                        flow.dscp = 0;
                        flow.mark = 8;
                        flow.priority = 9;
                    })),
                enters(&there, &packet)
                    .fast(&there, &there.leaving(&packet))
                    .leaves_with(8, 9),
            ]
        },
    ));
    rows.push(row(
        "asked, and dropped by the kernel: the next one asks again",
        vec![in_use_but(&there, |flow| flow.learned_ns -= 2000 * MS), in_use(&back)],
        vec![
            enters(&there, &there.packet()).slow(Reason::Revalidate).prompts(&back),
            enters(&there, &there.packet()).slow(Reason::Revalidate),
        ],
    ));
    rows.push(row(
        "a stale reverse is paired, and asks for itself",
        vec![Given::Flow(
            In::Unreplied,
            back,
            Box::new(|flow| flow.epoch = EPOCH - 1),
        )],
        {
            let mut steps = through(&there, Reason::NoFlow, |step| step.paired(&there, &back));
            steps.push(enters(&back, &back.packet()).slow(Reason::StaleEpoch).prompts(&there));
            steps
        },
    ));
    rows
}

/// What the kernel decides about one direction may be the end of the other.
fn prompted() -> Vec<Row> {
    let (there, back) = masquerade();
    // A question and its answer begin the limit anew.
    let limit = |way: &Way| changed(In::Flows, way, |flow| flow.max_length = 576);
    vec![
        row(
            "one direction asks, and the other one next, since its entry may have died of the question; then neither",
            vec![in_use_but(&there, |flow| flow.learned_ns -= 2000 * MS), in_use(&back)],
            {
                let (question, answer) = (there.packet(), back.packet());
                vec![
                    enters(&there, &question).slow(Reason::Revalidate).prompts(&back),
                    leaves(&there, &there.leaving(&question))
                        .refreshed(&there)
                        .and(limit(&there)),
                    enters(&back, &answer).slow(Reason::Revalidate),
                    leaves(&back, &back.leaving(&answer)).refreshed(&back).and(limit(&back)),
                    enters(&there, &question).fast(&there, &there.leaving(&question)),
                    enters(&back, &answer).fast(&back, &back.leaving(&answer)),
                ]
            },
        ),
        row(
            "a stale direction has the other one ask, however lately that did",
            vec![in_use_but(&there, |flow| flow.epoch -= 1), in_use(&back)],
            {
                let (question, answer) = (there.packet(), back.packet());
                vec![
                    enters(&there, &question).slow(Reason::StaleEpoch).prompts(&back),
                    // The kernel has not let it out.
                    enters(&back, &answer).slow(Reason::Revalidate),
                    leaves(&back, &back.leaving(&answer)).refreshed(&back).and(limit(&back)),
                    enters(&there, &question).slow(Reason::StaleEpoch).prompts(&back),
                    enters(&back, &answer).slow(Reason::Revalidate),
                ]
            },
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [unreplied(), only_true_reverse(), learned_again(), asked(), prompted()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn two_directions() {
    check(&rows());
}
