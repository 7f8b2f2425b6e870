use super::*;

/// 2026-11-30.
const NOW: u64 = 1_796_000_000_000;

fn look(kernel: &str, engine: Option<&str>, missing: &[Program], br_netfilter: bool) -> Look {
    let versions = [
        (Part::Kernel, Some(kernel)),
        (Part::Engine, engine),
        (Part::Netfast, Some("0.2.0")),
    ];
    let grounds = Grounds {
        missing: missing.iter().copied().collect(),
        ..Grounds::with_br_netfilter(br_netfilter)
    };
    Look {
        versions: versions
            .into_iter()
            .filter_map(|(part, version)| Some((part, version?.to_owned())))
            .collect(),
        boot: kernel.into(),
        abilities: grounds.abilities(),
    }
}

fn names(abilities: &Abilities) -> Vec<&str> {
    abilities.keys().map(String::as_str).collect()
}

#[test]
fn every_program_that_netfast_can_do_without_is_for_an_ability() {
    for program in Program::ALL {
        assert_eq!(
            of_program(*program).is_some(),
            program.without().is_some(),
            "{}",
            program.name()
        );
    }
    let all = look("6.18", None, &[], false).abilities;
    assert!(all.values().all(|ability| ability.possible), "{all:?}");
    assert_eq!(
        names(&all),
        [
            "aliases",
            "container-counters",
            "direct",
            "fast-path",
            "localhost",
            "macvlan-host",
            "nfqueue",
            "openvswitch",
            "resolver",
            "tcx",
            "tunnels-in",
            "tunnels-out",
            "virtual-addresses",
            "xdp"
        ]
    );
}

#[test]
fn each_ground_is_an_ability_s() {
    let of = |change: &dyn Fn(&mut Grounds)| {
        let mut grounds = Grounds {
            tcx: true,
            counts_redirected: true,
            ..Grounds::default()
        };
        change(&mut grounds);
        let abilities = grounds.abilities().into_iter();
        let impossible = abilities.filter(|(_, ability)| !ability.possible);
        impossible.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert!(of(&|_| {}).is_empty());
    assert_eq!(of(&|grounds| grounds.tcx = false), ["tcx"]);
    assert_eq!(of(&|grounds| grounds.counts_redirected = false), ["container-counters"]);
    // One program of several is enough.
    assert_eq!(
        of(&|grounds| grounds.missing = [Program::VipEgress].into()),
        ["virtual-addresses"]
    );
    assert_eq!(
        of(&|grounds| grounds.sysctls.bridge_nf_call_ip6tables = Some(true)),
        ["direct"]
    );
    assert_eq!(
        of(&|grounds| grounds.sysctls.conntrack_acct = Some(true)),
        ["fast-path"]
    );
    let may_lag = of(&|grounds| {
        grounds.sysctls.conntrack_acct = Some(true);
        grounds.allow_accounting = true;
    });
    assert!(may_lag.is_empty(), "{may_lag:?}");
}

#[test]
fn an_update_tells_what_it_gave_and_took() {
    let mut record = Record::default();
    let (update, is_new) = record.add(look("6.12.41", Some("Docker 27.1.0"), &[Program::Resolver], true), NOW);
    assert_eq!((update, is_new), (None, true), "nothing is known of before");
    let same = record.add(look("6.12.41", Some("Docker 27.1.0"), &[Program::Resolver], true), NOW);
    assert_eq!(same, (None, false));

    let later = look("6.18.3", Some("Docker 29.0.0"), &[Program::UplinkXdp], false);
    let update = record.add(later, NOW).0.expect("an update").clone();
    assert_eq!(names(&update.gained), ["direct", "resolver"]);
    assert_eq!(names(&update.lost), ["xdp"]);
    assert!(update.rebooted);
    assert_eq!(
        update.text(),
        "Since the update kernel 6.12.41 -> 6.18.3, engine Docker 27.1.0 -> Docker 29.0.0 (2026-11-30): now possible: direct \
         (before: br_netfilter is on: packets within every bridge pass iptables, so none are forwarded directly); resolver \
         (before: Docker's NAT rules for its resolver stay in the containers' network namespaces). And no longer possible: xdp \
         (datagrams that come in by uplinks take the fast path in tc, not in XDP)."
    );
    assert!(update.is_recent(NOW + SHOWN_MS - 1) && !update.is_recent(NOW + SHOWN_MS));
    let nothing = record.add(look("6.18.4", Some("Docker 29.0.0"), &[Program::UplinkXdp], false), NOW);
    assert_eq!(
        nothing.0.map(Update::text).as_deref(),
        Some("Since the update kernel 6.18.3 -> 6.18.4 (2026-11-30): as much is possible as before.")
    );
}

#[test]
fn what_changes_without_an_update_is_told_and_a_restart_alone_is_not() {
    let mut record = Record::default();
    let on = look("6.18", None, &[], true);
    record.add(on.clone(), NOW);
    let restarted = Look {
        boot: "another".into(),
        ..on.clone()
    };
    assert_eq!(record.add(restarted, NOW), (None, true));
    // br_netfilter, which the engine before had loaded, is gone with the boot.
    let off = look("6.18", None, &[], false);
    let text = record.add(off.clone(), NOW).0.expect("a difference").text();
    assert!(
        text.starts_with("Since a restart of the machine (2026-11-30): now possible: direct"),
        "{text}"
    );
    let text = record.add(on, NOW).0.expect("a difference").text();
    assert!(
        text.starts_with("Since 2026-11-30, without an update: no longer possible: direct"),
        "{text}"
    );
}

#[test]
fn an_engine_that_does_not_answer_is_no_other_engine() {
    let mut record = Record::default();
    record.add(look("6.18", Some("Docker 28.5.1"), &[], false), NOW);
    assert_eq!(record.add(look("6.18", None, &[], false), NOW), (None, false));
    let update = record.add(look("6.18", Some("Docker 29.0.0"), &[], false), NOW).0;
    let updated = Updated {
        part: Part::Engine,
        from: "Docker 28.5.1".into(),
        to: "Docker 29.0.0".into(),
    };
    assert_eq!(update.expect("an update").updated, [updated]);
}

#[test]
fn an_ability_that_the_netfast_before_did_not_know_is_neither_gained_nor_lost() {
    let mut record = Record::default();
    let mut before = look("6.18", None, &[], false);
    before.abilities.remove("xdp");
    before.versions.insert(Part::Netfast, "0.1.0".into());
    record.add(before, NOW);
    let update = record.add(look("6.18", None, &[Program::UplinkXdp], false), NOW).0;
    let update = update.expect("another netfast");
    assert!(update.gained.is_empty() && update.lost.is_empty(), "{update:?}");
}

#[test]
fn old_updates_are_forgotten() {
    let mut record = Record::default();
    for number in 0..20 {
        record.add(look(&format!("6.{number}"), None, &[], false), NOW);
    }
    assert_eq!(record.updates.len(), REMEMBERED);
    assert_eq!(
        record.updates.last().map(|update| update.updated[0].to.as_str()),
        Some("6.19")
    );
}
