//! Every reason has a row, or a place where it is tested instead.

use std::collections::BTreeSet;

use netfast_common::reason::Reason;

use super::{
    conditions, direct, echo, gated, host, learning, main_paths, one_way, pairing, six, using, vetting, young,
};

const TUNNELS: &str = "rows have no outer headers; tests/it/packet/tunnel.rs";

/// Reasons that a test run cannot bring about, why, and where they are tested.
const ELSEWHERE: &[(Reason, &str)] = &[
    (
        Reason::Vlan,
        "a test run's skb carries no hardware tag and its context may not set one (net/bpf/test_run.c); \
         netfast-ebpf/src/packet/parse.rs",
    ),
    (
        Reason::OvsActions,
        "a test run has no datapath of Open vSwitch; netfast-ebpf/src/openvswitch.rs, tests/it/netns/openvswitch",
    ),
    (Reason::Encapsulated, TUNNELS),
    (Reason::Decapsulated, TUNNELS),
    (Reason::OuterLearned, TUNNELS),
    (Reason::OuterOdd, TUNNELS),
    (
        Reason::RewriteFailed,
        "only when the kernel has no memory to copy a header; netfast-ebpf/src/fastpath/rewrite.rs",
    ),
    (
        Reason::TableFull,
        "an LRU table gives another flow's place away, unless all its places are being written to in this very moment; \
         netfast-ebpf/src/learn/pairs.rs",
    ),
];

#[test]
fn every_reason_has_a_row() {
    let rows = [
        gated::rows(),
        using::rows(),
        learning::rows(),
        conditions::rows(),
        pairing::rows(),
        host::rows(),
        main_paths::rows(),
        one_way::rows(),
        young::rows(),
        vetting::rows(),
        six::rows(),
        direct::rows(),
        echo::rows(),
    ];
    let covered: BTreeSet<Reason> = rows.iter().flatten().flat_map(super::row::Row::reasons).collect();
    let elsewhere: BTreeSet<Reason> = ELSEWHERE.iter().map(|(reason, _)| *reason).collect();
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !covered.contains(reason) && !elsewhere.contains(reason))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let both: Vec<_> = covered.intersection(&elsewhere).collect();
    assert!(both.is_empty(), "listed as impossible, but there is a row: {both:?}");
}
