use netfast_common::{
    net::{Ip4, Port},
    vip::BackendStats,
};

use alias::Verdict::{Few, NotAlias, Rotated};

use super::*;
use crate::report::golden::{assert_golden, assert_golden_json};

/// Three aliases: one that is rotated, one that is off, and one with virtual addresses of both families.
pub(crate) fn example() -> Aliases {
    let member = |number: u8, health: &str| MemberReport {
        container_id: "c0ffee".repeat(10),
        container: format!("web-{number}"),
        addresses: vec![[172, 18, 0, number].into()],
        state: "running".into(),
        health: health.into(),
        eligible: health != "unhealthy",
        weight: if number == 8 { 2 } else { 1 },
        counted_by: vec![(7, [number.into(), 0])],
    };
    let reports = [
        AliasReport {
            alias: "web".into(),
            network: "shop".into(),
            mode: AliasMode::Rr,
            members: vec![member(2, "healthy"), member(3, "none"), member(4, "unhealthy")],
            ..AliasReport::default()
        },
        AliasReport {
            alias: "db".into(),
            network: "shop-backend".into(),
            mode: AliasMode::Off,
            why: Some("switched off by the label netfast.alias of the network".into()),
            members: vec![MemberReport {
                counted_by: Vec::new(),
                ..member(5, "none")
            }],
            ..AliasReport::default()
        },
        AliasReport {
            alias: "api".into(),
            network: "shop".into(),
            mode: AliasMode::Vip,
            vip: Some([198, 19, 7, 2].into()),
            vip6: "fd6e:6574:6661:7374::702".parse().ok(),
            members: vec![member(7, "healthy"), member(8, "none"), member(9, "unhealthy")],
            ..AliasReport::default()
        },
    ];
    let given = [(2, 1234), (3, 1233), (4, 10)].map(|(number, count)| {
        let address = [number, 0];
        (MemberKey { alias: 7, address }, count)
    });
    let shared = [(7, 100), (8, 199), (9, 4)].map(|(number, connections)| {
        let counted = BackendStats {
            connections: connections + number,
            retried: number,
            packets: connections * 6,
            bytes: connections * 600,
        };
        let address = [number, 0];
        (MemberKey { alias: 7, address }, counted)
    });
    let mut counted = Counted {
        answers: Answers {
            first_named: given.into(),
            verdicts: BTreeMap::from([(Rotated, 2477), (NotAlias, 0), (Few, 12)]),
        },
        shared: Shared {
            stats: shared.into(),
            verdicts: BTreeMap::from([(vip::Verdict::Chosen, 303), (vip::Verdict::Refused, 0)]),
        },
        fast: BTreeMap::new(),
    };
    for (key, flow) in flows() {
        let ip = |ip: Ip4| IpAddr::from(ip.bytes());
        counted.add_flow(&key.with_addresses(ip), &flow.with_addresses(ip));
    }
    Aliases::gather(&reports, &counted)
}

/// A conversation with a virtual address on the fast path, both ways, and one without.
fn flows() -> [(FlowKey<Ip4>, Flow<Ip4>); 3] {
    let flow = |from: [u8; 4], to: [u8; 4], as_from: [u8; 4], as_to: [u8; 4]| {
        let key = FlowKey {
            source: Ip4::from_bytes(from),
            destination: Ip4::from_bytes(to),
            source_port: Port::new(40000),
            destination_port: Port::new(80),
            ..FlowKey::default()
        };
        let flow = Flow {
            source: Ip4::from_bytes(as_from),
            destination: Ip4::from_bytes(as_to),
            packets: 1000,
            bytes: 1_000_000,
            ..Flow::default()
        };
        (key, flow)
    };
    let (client, vip, member) = ([172, 18, 0, 2], [198, 19, 7, 2], [172, 18, 0, 8]);
    [
        flow(client, vip, client, member),
        flow(member, client, vip, client),
        flow(client, member, client, member),
    ]
}

#[test]
fn text_and_json_are_as_recorded() {
    let aliases = example();
    assert_golden("aliases.txt", &aliases.render_list(Style::default()));
    assert_golden(
        "aliases-details.txt",
        &aliases.clone().select("WEB").render_details(Style::default()),
    );
    assert_golden(
        "aliases-vip.txt",
        &aliases.clone().select("api").render_details(Style::default()),
    );
    assert_golden_json("aliases.json", &aliases);
}

#[test]
fn flows_of_a_virtual_address_count_for_its_member() {
    let api = &example().aliases[2];
    let packets: Vec<_> = api.members.iter().map(|member| member.packets).collect();
    assert_eq!(packets, [600, 1194 + 2000, 24]);
    let evenness = api.evenness.expect("connections");
    assert!((evenness - 99.5 / 100.0).abs() < 1e-9, "by weight: {evenness}");
    assert_eq!((api.connections, api.members[0].first), (303, 0));
}

#[test]
fn evenness_is_of_those_that_are_given() {
    let aliases = example();
    let evenness = aliases.aliases[0].evenness.expect("answers");
    assert!((evenness - 1233.0 / 1234.0).abs() < 1e-9);
    assert_eq!((aliases.aliases[0].answers, aliases.aliases[1].evenness), (2477, None));
    assert_eq!(aliases.answers.len(), 2, "what never occurred is left out");
}

#[test]
fn the_list_says_what_was_given() {
    let list = example().render_list(Style::default());
    assert!(
        list.contains("2,477 answers") && list.contains("303 connections"),
        "{list}"
    );
}
