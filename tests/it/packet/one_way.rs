//! UDP that nobody answers: used where it waits, while no rule judges what was not answered.

use netfast_common::{control::Control, device::Device, flow::Flow, net::Ip4, reason::Reason, vet::Answer};
use netfast_tests::{
    packet::Packet,
    scene::{self, Dev, Pair, Way},
};

use super::{
    change::{Change, Given, In, changed, control, device, stored, waiting},
    harness::EPOCH,
    row::{Row, Step, check, enters, row, through},
    state::NOW,
};

const MS: u64 = 1_000_000;
/// When a flow's question was asked, in rows where that is long ago.
const ASKED: u64 = 5_000;

fn published() -> Pair {
    let (there, back) = scene::direct(scene::published());
    (there.udp(), back.udp())
}

/// The interfaces between which it is allowed.
fn allowed(devs: &[Dev]) -> Vec<Given> {
    let allow = |dev: &Dev| device(*dev, |device| device.flags |= Device::ONE_WAY);
    devs.iter().map(allow).collect()
}

/// As the daemon sets it.
fn vets() -> Given {
    control(|control| control.switches |= Control::VET)
}

/// One that is used, then changed.
fn known(way: &Way, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Given {
    let edit = move |flow: &mut Flow<Ip4>| {
        flow.flags |= Flow::<Ip4>::ONE_WAY;
        edit(flow);
    };
    Given::Flow(In::Unreplied, *way, Box::new(edit))
}

fn fast(way: &Way) -> Step {
    enters(way, &way.packet()).fast_in(In::Unreplied, way, &way.leaving(&way.packet()))
}

/// Learned from the packet, for use before an answer.
fn learned(step: Step, way: &Way, packet: &Packet, edit: fn(&mut Flow<Ip4>)) -> Step {
    let length = packet.bytes().len() - 14;
    let edit = move |flow: &mut Flow<Ip4>| {
        flow.flags |= Flow::<Ip4>::ONE_WAY;
        edit(flow);
    };
    step.ends(Reason::Learned).and(stored(In::Unreplied, way, length, edit))
}

/// After a pause the answer counts alone: as long as every link carries (RFC 791), since the packet is short.
fn refreshed(step: Step, way: &Way) -> Step {
    step.ends(Reason::Refreshed).and(changed(In::Unreplied, way, |flow| {
        flow.learned_ns = NOW;
        flow.max_length = 576;
    }))
}

fn joined<const N: usize>(parts: [Vec<Step>; N]) -> Vec<Step> {
    parts.into_iter().flatten().collect()
}

/// Where it may be used, and where not.
fn where_allowed() -> Vec<Row> {
    let (there, _) = published();
    let packet = there.packet();
    let both = [there.enters, there.leaves];
    let mut steps = through(&there, Reason::NoFlow, |step| learned(step, &there, &packet, |_| ()));
    steps.extend([fast(&there), fast(&there)]);
    let mut rows = vec![row("fast with the second packet", allowed(&both), steps)];
    for (what, devs) in [("enters", [there.enters]), ("leaves", [there.leaves])] {
        let mut steps = through(&there, Reason::NoFlow, |step| step.learned(&there));
        steps.extend(through(&there, Reason::Unreplied, |step| step.learned(&there)));
        rows.push(row(format!("only where it {what}"), allowed(&devs), steps));
    }
    rows.push(row(
        "where rules judged it until now",
        allowed(&both).into_iter().chain([waiting(&there)]).collect(),
        joined([
            through(&there, Reason::Unreplied, |step| learned(step, &there, &packet, |_| ())),
            vec![fast(&there)],
        ]),
    ));
    let (tcp, _) = scene::direct(scene::published());
    rows.push(row(
        "not TCP",
        allowed(&both),
        joined([
            through(&tcp, Reason::NoFlow, |step| step.learned(&tcp)),
            through(&tcp, Reason::NoFlow, |step| step.learned(&tcp)),
        ]),
    ));
    rows.push(row(
        "not TCP, whatever the flow says",
        vec![known(&tcp, |_| ())],
        vec![enters(&tcp, &tcp.packet()).slow(Reason::NoFlow)],
    ));
    rows
}

/// What ends its use, as that of any other flow.
fn until() -> Vec<Row> {
    let (there, back) = published();
    let both = || allowed(&[there.enters, there.leaves]);
    let given = |flow: Given| both().into_iter().chain([flow]).collect::<Vec<_>>();
    let other_macs = there.with(|way| way.before.from_mac[5] ^= 1);
    vec![
        row(
            "until it is due to ask the kernel",
            given(known(&there, |flow| flow.learned_ns -= 1000 * MS)),
            joined([
                through(&there, Reason::Revalidate, |step| refreshed(step, &there)),
                vec![fast(&there)],
            ]),
        ),
        row(
            "until something changes",
            given(known(&there, |flow| {
                flow.epoch = EPOCH - 1;
                flow.learned_ns -= 1000 * MS;
            })),
            joined([
                through(&there, Reason::StaleEpoch, |step| {
                    refreshed(step, &there).and(changed(In::Unreplied, &there, |flow| flow.epoch = EPOCH))
                }),
                vec![fast(&there)],
            ]),
        ),
        row(
            "until its sender has another MAC address",
            given(known(&there, |_| ())),
            vec![
                enters(&other_macs, &other_macs.packet())
                    .slow(Reason::MacChanged)
                    .and(Change::Gone(In::Unreplied, there)),
            ],
        ),
        row(
            "until there is an answer, after which it asks",
            given(known(&there, |_| ())),
            joined([
                through(&back, Reason::NoFlow, |step| step.paired(&back, &there)),
                vec![enters(&there, &there.packet()).slow(Reason::Revalidate)],
            ]),
        ),
        row(
            "until the kernel translates it otherwise",
            given(known(&there, |flow| {
                flow.learned_ns -= 1000 * MS;
                flow.destination = Ip4::from_bytes([172, 17, 0, 99]);
            })),
            through(&there, Reason::Revalidate, |step| {
                learned(step, &there, &there.packet(), |_| ())
            }),
        ),
        row(
            "until rules judge what was not answered",
            vec![known(&there, |flow| flow.learned_ns -= 1000 * MS)],
            joined([
                through(&there, Reason::Revalidate, |step| step.learned(&there)),
                vec![enters(&there, &there.packet()).slow(Reason::Unreplied)],
            ]),
        ),
    ]
}

/// The daemon looks at the conntrack entry first.
fn vetted() -> Vec<Row> {
    let (there, _) = published();
    let packet = there.packet();
    let given = |flow: Option<Given>, answer: Option<u32>| {
        let answer = answer.map(|verdict| Given::Answered(there, ASKED, verdict));
        let both = allowed(&[there.enters, there.leaves]);
        both.into_iter()
            .chain([vets()])
            .chain(flow)
            .chain(answer)
            .collect::<Vec<_>>()
    };
    let unvetted = |used_ns: u64| {
        known(&there, move |flow| {
            flow.learned_ns = 0;
            flow.used_ns = used_ns;
        })
    };
    let asks = |step: Step| {
        step.ends(Reason::Vetting)
            .and(changed(In::Unreplied, &there, |flow| flow.used_ns = NOW))
    };
    let mut first = through(&there, Reason::NoFlow, |step| {
        learned(step, &there, &packet, |flow| flow.learned_ns = 0)
    });
    // Most of what nobody answers is a packet or two.
    first.extend(through(&there, Reason::Unvetted, |step| step.ends(Reason::Vetting)));
    let mut cleared = through(&there, Reason::Unvetted, |step| {
        step.ends(Reason::Refreshed).and(changed(In::Unreplied, &there, |flow| {
            flow.learned_ns = NOW;
            flow.max_length = 576;
            flow.flags |= Flow::<Ip4>::VETTED;
        }))
    });
    cleared.push(fast(&there));
    vec![
        row("not asked for at once", given(None, None), first),
        row(
            "asked for later",
            given(Some(unvetted(ASKED)), None),
            through(&there, Reason::Unvetted, asks),
        ),
        row(
            "found to be plain",
            given(Some(unvetted(ASKED)), Some(Answer::CLEAR)),
            cleared,
        ),
        row(
            "found to have a helper",
            given(Some(unvetted(ASKED)), Some(Answer::HELPED)),
            through(&there, Reason::Unvetted, |step| {
                step.ends(Reason::Helped).and(changed(In::Unreplied, &there, |flow| {
                    flow.flags |= Flow::<Ip4>::HELPED;
                    flow.used_ns = NOW;
                }))
            }),
        ),
    ]
}

/// Rows of one-way UDP.
pub fn rows() -> Vec<Row> {
    [where_allowed(), until(), vetted()].into_iter().flatten().collect()
}

#[test]
fn udp_that_nobody_answers() {
    check(&rows());
}
