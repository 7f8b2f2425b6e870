//! Flows are used only after the daemon has looked at their conntrack entry.

use netfast_common::{
    control::Control,
    flow::Flow,
    net::Ip4,
    reason::Reason,
    vet::{Answer, Request},
};
use netfast_tests::scene::{self, Pair, Way, bridged};

use super::{
    change::{Change, Given, In, changed, control, in_use_but, stored, waiting},
    harness::{Context, Hook, Lab},
    row::{Row, Step, check, enters, row, through},
    state::NOW,
    way::InLab as _,
};

/// When a flow's question was asked, in rows where that is long ago.
const ASKED: u64 = 5_000;
const SECOND: u64 = 1_000_000_000;

fn masquerade() -> Pair {
    scene::direct(scene::masquerade())
}

/// As the daemon sets it.
fn vets() -> Given {
    control(|control| control.switches |= Control::VET)
}

/// A flow in use that is not vetted.
fn unvetted(way: &Way, asked_ns: u64) -> Given {
    in_use_but(way, move |flow| {
        flow.learned_ns = 0;
        flow.used_ns = asked_ns;
    })
}

fn vetted(way: &Way, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Given {
    in_use_but(way, move |flow| {
        flow.flags |= Flow::<Ip4>::VETTED;
        edit(flow);
    })
}

fn fast(way: &Way) -> Step {
    enters(way, &way.packet()).fast(way, &way.leaving(&way.packet()))
}

/// It is asked for, at this very moment.
fn asked(way: &Way) -> Change {
    changed(In::Flows, way, |flow| flow.used_ns = NOW)
}

fn unanswered(there: &Way, back: &Way) -> Vec<Row> {
    vec![
        row(
            "it is asked for, and not used",
            vec![vets(), unvetted(there, 0)],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there))
            }),
        ),
        row(
            "asked for a moment ago",
            vec![vets(), in_use_but(there, |flow| flow.learned_ns = 0)],
            through(there, Reason::Unvetted, |step| step.ends(Reason::Vetting)),
        ),
        row(
            "asked for, for both directions",
            vec![vets(), unvetted(there, 0), unvetted(back, 0)],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there)).and(asked(back))
            }),
        ),
        row(
            "asked for, and the other direction is vetted already",
            vec![vets(), unvetted(there, 0), vetted(back, |_| ())],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there))
            }),
        ),
        row(
            "the answer to an older question",
            vec![
                vets(),
                unvetted(there, ASKED),
                Given::Answered(*there, ASKED - 1, Answer::CLEAR),
            ],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there))
            }),
        ),
        row(
            "an answer that nobody asked for",
            vec![vets(), unvetted(there, 0), Given::Answered(*there, 0, Answer::CLEAR)],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there))
            }),
        ),
        row(
            "the answer for another flow",
            vec![
                vets(),
                unvetted(there, ASKED),
                Given::Answered(*back, ASKED, Answer::CLEAR),
            ],
            through(there, Reason::Unvetted, |step| {
                step.ends(Reason::Vetting).and(asked(there))
            }),
        ),
    ]
}

fn answered(there: &Way) -> Vec<Row> {
    let flagged = |flags: u8| changed(In::Flows, there, move |flow| flow.flags |= flags);
    let mut cleared = through(there, Reason::Unvetted, |step| {
        step.ends(Reason::Refreshed).and(changed(In::Flows, there, |flow| {
            flow.learned_ns = NOW;
            flow.flags |= Flow::<Ip4>::VETTED;
            // After a question the answer counts alone.
            flow.max_length = 576;
        }))
    });
    cleared.push(fast(there));
    let mut helped = through(there, Reason::Unvetted, |step| {
        step.ends(Reason::Helped)
            .and(flagged(Flow::<Ip4>::HELPED))
            .and(asked(there))
    });
    helped.extend(through(there, Reason::CtHelper, |step| step.ends(Reason::Helped)));
    vec![
        row(
            "it is used once it is vetted",
            vec![
                vets(),
                unvetted(there, ASKED),
                Given::Answered(*there, ASKED, Answer::CLEAR),
            ],
            cleared,
        ),
        row(
            "a helper works on it: never used",
            vec![
                vets(),
                unvetted(there, ASKED),
                Given::Answered(*there, ASKED, Answer::HELPED),
            ],
            helped,
        ),
        row(
            "vetted and in use",
            vec![vets(), vetted(there, |_| ())],
            vec![fast(there)],
        ),
        row(
            "vetted and due",
            vec![vets(), vetted(there, |flow| flow.learned_ns -= 2 * SECOND)],
            through(there, Reason::Revalidate, |step| {
                step.refreshed(there)
                    .and(changed(In::Flows, there, |flow| flow.max_length = 576))
            }),
        ),
        row(
            "quiet for so long that conntrack may have forgotten it",
            vec![vets(), vetted(there, |flow| flow.learned_ns -= 26 * SECOND)],
            through(there, Reason::Revalidate, |step| {
                step.ends(Reason::Vetting).and(changed(In::Flows, there, |flow| {
                    flow.flags &= !Flow::<Ip4>::VETTED;
                    flow.learned_ns = 0;
                    flow.used_ns = NOW;
                }))
            }),
        ),
        row(
            "without a daemon that vets, flows are used",
            vec![in_use_but(there, |_| ())],
            vec![fast(there)],
        ),
    ]
}

fn paired() -> Vec<Row> {
    let (there, back) = masquerade();
    let unvetted = |way: &Way| {
        stored(In::Flows, way, 83, |flow| {
            flow.learned_ns = 0;
            flow.used_ns = 0;
        })
    };
    vec![
        row(
            "a pair waits to be vetted",
            vec![vets(), waiting(&back)],
            through(&there, Reason::NoFlow, |step| {
                step.ends(Reason::Paired)
                    .and(unvetted(&there))
                    .and(Change::Moved(back))
                    .and(changed(In::Flows, &back, |flow| flow.used_ns = 0))
            }),
        ),
        row(
            "a flow whose reverse is in use waits by itself",
            vec![vets(), vetted(&back, |_| ())],
            through(&there, Reason::NoFlow, |step| {
                step.ends(Reason::Paired).and(unvetted(&there))
            }),
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = paired();
    let udp = (masquerade().0.udp(), masquerade().1.udp());
    for (there, back) in [masquerade(), bridged(), udp, scene::echo(masquerade())] {
        rows.extend(unanswered(&there, &back));
        rows.extend(answered(&there));
    }
    rows
}

#[test]
fn flows_wait_to_be_vetted() {
    check(&rows());
}

/// What the daemon is told.
#[test]
fn a_question_names_both_directions() {
    Lab::run(|lab| {
        lab.reset();
        let (there, back) = masquerade();
        for given in [vets(), unvetted(&there, 0), unvetted(&back, 0)] {
            given.make(lab);
        }
        let packet = there.packet();
        let at = |lab: &Lab, way: &Way, enters: bool| Context {
            ifindex: lab.ifindex(if enters { way.enters } else { way.leaves }),
            ingress_ifindex: way.via.filter(|_| !enters).map_or(0, |dev| lab.ifindex(dev)),
            ..Context::default()
        };
        let (context, exit) = (at(lab, &there, true), at(lab, &there, false));
        for _ in 0..2 {
            lab.test_run(Hook::EndpointIn, context, &packet.bytes());
            lab.test_run(Hook::UplinkOut, exit, &there.leaving(&packet).bytes());
        }
        let item = lab.vet.next().expect("a question");
        let request = Request::<Ip4>::read(&item).expect("as the programs write it");
        drop(item);
        assert_eq!((request.key, request.reverse), (there.key(lab), back.key(lab)));
        let flow = lab.flows.get(&there.key(lab), 0).expect("the flow");
        assert_eq!(request.asked_ns, flow.used_ns);
        assert!(lab.vet.next().is_none(), "asked once");
    });
}
