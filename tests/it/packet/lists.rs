//! Packets that come in lists: several enter before the first leaves, and each is told by where the kernel keeps it. A test run
//! has another packet each time, so these rows say where.

use std::time::{Duration, Instant};

use netfast_common::reason::Reason;
use netfast_ebpf::state::candidate::PLACES;
use netfast_tests::scene::{self, Dev, Way, bridged};

use super::{
    harness::{Context, Hook, Lab},
    row::{Row, Step, check, enters, leaves, row},
};

/// Packets of a list that is longer than what a CPU remembers.
const LONG: u32 = PLACES + 4;

/// Datagrams from outside to a container that are alike but for their source port.
fn from_outside(port: u16) -> Way {
    let (way, _) = scene::direct(scene::published());
    way.udp().with(|way| {
        way.before.source.1 = port;
        way.after.source.1 = port;
    })
}

/// Enters, and may leave.
fn enters_at(way: &Way, address: u32) -> Step {
    enters(way, &way.packet()).slow(Reason::NoFlow).kept_at(address)
}

/// Is refused where it enters: no protocol of netfast's. Whether a packet before it may still leave.
fn refused_at(way: &Way, address: u32, waits: bool) -> Step {
    let packet = way.packet().with(|packet| packet.protocol = 132);
    let step = enters(way, &packet).candidate(waits);
    step.slow(Reason::OtherProtocol).kept_at(address)
}

/// Leaves, and is learned. Whether another may still leave.
fn learned_at(way: &Way, address: u32, waits: bool) -> Step {
    let step = leaves(way, &way.leaving(&way.packet())).candidate(waits);
    step.learned(way).kept_at(address)
}

/// Leaves, and is not.
fn ends_at(way: &Way, address: u32, waits: bool, reason: Reason) -> Step {
    let step = leaves(way, &way.leaving(&way.packet())).candidate(waits);
    step.ends(reason).kept_at(address)
}

/// What a list's packets are told by.
fn of_one_list() -> Vec<Row> {
    let [a, b, c] = [51_001, 51_002, 51_003].map(from_outside);
    let rows = [
        (
            "both of a list",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                learned_at(&a, 1, true),
                learned_at(&b, 2, false),
            ],
        ),
        (
            "a packet like one of a list, but kept elsewhere",
            vec![enters_at(&a, 1), ends_at(&a, 2, false, Reason::OtherPacket)],
        ),
        (
            "the newer of two that the kernel kept at the same address",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 1),
                learned_at(&b, 1, false),
                ends_at(&a, 1, false, Reason::NoCandidate),
            ],
        ),
        (
            "one whose address is that of a newer one",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 1),
                enters_at(&c, 2),
                learned_at(&b, 1, true),
                learned_at(&c, 2, false),
            ],
        ),
        (
            "one that was dropped is over when the next leaves",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                enters_at(&c, 3),
                learned_at(&b, 2, true),
                ends_at(&a, 1, false, Reason::OtherPacket),
                ends_at(&c, 3, false, Reason::NoCandidate),
            ],
        ),
        (
            "the oldest is over when another packet leaves",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                ends_at(&c, 3, true, Reason::OtherPacket),
                learned_at(&b, 2, false),
            ],
        ),
        (
            "a list is over when the next begins",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                learned_at(&a, 1, true),
                enters_at(&c, 3),
                ends_at(&b, 2, false, Reason::OtherPacket),
                ends_at(&c, 3, false, Reason::NoCandidate),
            ],
        ),
        (
            "a list is over when another packet leaves and the next begins",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                ends_at(&c, 3, true, Reason::OtherPacket),
                enters_at(&c, 3),
                ends_at(&b, 2, false, Reason::OtherPacket),
            ],
        ),
    ];
    rows.into_iter()
        .map(|(what, steps)| row(what, Vec::new(), steps))
        .collect()
}

/// What is refused, and what does not come in lists.
fn among_others() -> Vec<Row> {
    let [a, b, c] = [51_001, 51_002, 51_003].map(from_outside);
    let (local, _) = bridged();
    let rows = [
        (
            "what does not come in a list ends one",
            vec![
                enters_at(&a, 1),
                enters_at(&local, 2),
                ends_at(&a, 1, false, Reason::OtherPacket),
                ends_at(&local, 2, false, Reason::NoCandidate),
            ],
        ),
        (
            "a list does not begin with what came before",
            vec![
                enters_at(&local, 1),
                enters_at(&a, 2),
                ends_at(&local, 1, false, Reason::OtherPacket),
            ],
        ),
        (
            "from a container only the last",
            vec![
                enters_at(&local, 1),
                enters_at(&local, 2),
                ends_at(&local, 1, false, Reason::OtherPacket),
                ends_at(&local, 2, false, Reason::NoCandidate),
            ],
        ),
        (
            "a copy ends its original's candidate",
            vec![
                enters_at(&local, 1),
                ends_at(&local, 2, false, Reason::OtherPacket),
                ends_at(&local, 1, false, Reason::NoCandidate),
            ],
        ),
        (
            "one that is refused among others",
            vec![
                enters_at(&a, 1),
                refused_at(&b, 2, true),
                enters_at(&c, 3),
                learned_at(&a, 1, true),
                learned_at(&c, 3, false),
            ],
        ),
        (
            "one that is refused where a container sends",
            vec![
                enters_at(&a, 1),
                refused_at(&local, 2, false),
                ends_at(&a, 1, false, Reason::NoCandidate),
            ],
        ),
        (
            "one that is refused when a list has begun to leave",
            vec![
                enters_at(&a, 1),
                enters_at(&b, 2),
                learned_at(&a, 1, true),
                refused_at(&c, 3, false),
                ends_at(&b, 2, false, Reason::NoCandidate),
            ],
        ),
        // The last row: by now every place has been used.
        (
            "one that is refused takes the place of what was kept at its address",
            vec![
                enters_at(&a, 1),
                refused_at(&b, 1, false),
                ends_at(&a, 1, false, Reason::NoCandidate),
            ],
        ),
    ];
    rows.into_iter()
        .map(|(what, steps)| row(what, Vec::new(), steps))
        .collect()
}

#[test]
fn packets_that_come_in_lists_are_told_apart() {
    let rows: Vec<Row> = [of_one_list(), among_others()].into_iter().flatten().collect();
    check(&rows);
}

/// Sends a list through; how many were learned and how many were not known any more, or nothing, if that took too long.
fn long_list(lab: &mut Lab) -> Option<(u64, u64)> {
    lab.reset();
    let ways: Vec<Way> = (0..LONG)
        .map(|number| from_outside(52_000 + u16::try_from(number).expect("few")))
        .collect();
    let uplink = Context {
        ifindex: lab.ifindex(Dev::Uplink),
        ..Context::default()
    };
    let container = Context {
        ifindex: lab.ifindex(Dev::A),
        ingress_ifindex: uplink.ifindex,
        ..Context::default()
    };
    let counts =
        |lab: &Lab| [Reason::Learned, Reason::OtherPacket].map(|of| lab.counts()[of.number() as usize].packets);
    let before = counts(lab);
    let start = Instant::now();
    for (address, way) in (1..).zip(&ways) {
        lab.test_run(Hook::UplinkIn, Context { address, ..uplink }, &way.packet().bytes());
    }
    for (address, way) in (1..).zip(&ways) {
        let out = way.leaving(&way.packet()).bytes();
        lab.test_run(Hook::EndpointOut, Context { address, ..container }, &out);
    }
    let is_in_time = start.elapsed() < Duration::from_millis(12);
    let after = counts(lab);
    is_in_time.then_some((after[0] - before[0], after[1] - before[1]))
}

/// Of a list that is longer than usual the last are learned.
#[test]
fn a_long_list_is_learned_from_its_end() {
    Lab::run(|lab| {
        let seen = (0..200).find_map(|_| long_list(lab));
        assert_eq!(seen, Some((PLACES.into(), (LONG - PLACES).into())));
        let ports: Vec<u16> = lab
            .flows_in(false)
            .iter()
            .map(|(key, _)| key.source_port.number())
            .collect();
        assert!(
            ports.iter().all(|port| u32::from(*port) >= 52_000 + LONG - PLACES),
            "{ports:?}"
        );
    });
}
