//! Rules that must see every packet, and whom they keep slow.

use super::{
    reasons::{after, check, why},
    *,
};

pub(super) fn finding(chain: &str, severity: Severity) -> RuleFinding {
    RuleFinding {
        source: RuleSource::Nft,
        family: "ip".into(),
        table: "filter".into(),
        chain: chain.into(),
        rule: 1,
        what: "limit",
        severity,
        reason: "judges each packet",
        iif: None,
        oif: None,
        ways: [Way::default()].into(),
        own: BTreeSet::new(),
        received: BTreeSet::new(),
        verdict: Verdict::Accept,
        text: "limit accept".into(),
    }
}

pub(super) fn way(host_only: bool, iif: Option<&str>, oif: Option<&str>) -> Way {
    Way {
        host_only,
        iif: iif.map(Into::into),
        oif: oif.map(Into::into),
        unreplied: false,
        icmp: false,
    }
}

#[test]
fn rules_that_judge_each_packet() {
    let with = |finding: RuleFinding| after(|host, _, _| host.served_mut().ruleset.findings.push(finding));
    let slow = Some(Why::RateRules);
    let forward = || finding("FORWARD", Severity::SlowPath);
    check(&with(forward()), slow, slow);
    check(&with(finding("FORWARD", Severity::Note)), None, None);
    check(&with(finding("FORWARD", Severity::SelfExcluding)), None, None);
    for (iif, oif, web, db) in [
        (Some("docker0"), None, slow, None),
        (Some("docker0"), Some("br-app"), slow, slow),
        (Some("docker0"), Some("eth0"), slow, None),
        (None, Some("br-app"), None, slow),
        (Some("eth0"), Some("br-app"), None, slow),
        (Some("eth0"), None, slow, slow),
        (Some("eth0"), Some("eth1"), None, None),
        (Some("lo"), None, None, None),
        (Some("tun7"), None, None, None),
        (Some("br-*"), None, slow, slow),
    ] {
        let rule = RuleFinding {
            ways: [way(false, iif, oif)].into(),
            ..forward()
        };
        let desired = with(rule);
        assert_eq!(
            (why(&desired, "web"), why(&desired, "db")),
            (web, db),
            "{iif:?} {oif:?}"
        );
    }
    let ip6 = RuleFinding {
        family: "ip6".into(),
        ..forward()
    };
    check(&with(ip6), None, None);
    let desired = after(|host, config, _| {
        host.served_mut().ruleset.findings.push(forward());
        config.allow_rate_rules = true;
    });
    check(&desired, None, None);
}

/// IPv4 of the network goes on fast, and so does IPv6 of others.
#[test]
fn a_rule_of_ipv6_alone_keeps_ipv6_slow() {
    let with = |way| {
        after(move |host, _, _| {
            host.served_mut().ruleset.findings.push(RuleFinding {
                family: "ip6".into(),
                ways: [way].into(),
                ..finding("FORWARD", Severity::SlowPath)
            });
        })
    };
    let slow_bridges = |desired: &Desired| -> Vec<String> {
        let slow = desired
            .networks
            .iter()
            .filter(|network| network.path.is_fast() && !network.ipv6.is_fast());
        slow.filter_map(|network| network.bridge.clone()).collect()
    };
    let desired = with(way(false, Some("docker0"), None));
    check(&desired, None, None);
    assert_eq!(slow_bridges(&desired), ["docker0"]);
    for spec in desired.devices.values() {
        let is_concerned = spec.name == "docker0" || spec.identity.master == Some(BRIDGE);
        assert_eq!(spec.flags & Device::IPV6 == 0, is_concerned, "{spec:?}");
        assert_ne!(spec.flags & Device::ACCELERATED, 0, "{spec:?}");
    }
    // Between the host and its containers alone: theirs to each other goes on fast.
    let desired = with(way(true, Some("docker0"), None));
    assert_eq!(slow_bridges(&desired), [""; 0]);
    for spec in desired.devices.values() {
        assert_eq!(spec.flags & Device::IPV6 == 0, spec.name == "docker0", "{spec:?}");
    }
}

/// Rules about what was not answered keep only one-way UDP slow, and only where they are met.
#[test]
fn rules_that_judge_what_was_not_answered() {
    let one_way = |findings: Vec<RuleFinding>, change: &dyn Fn(&mut Host, &mut Config)| {
        let desired = after(|host, config, _| {
            host.served_mut().ruleset.findings.extend(findings);
            change(host, config);
        });
        check(&desired, None, None);
        [VETH_WEB, BRIDGE, 11, 4, UPLINK].map(|ifindex| desired.devices[&key(ifindex)].flags & Device::ONE_WAY != 0)
    };
    let new = |iif: Option<&str>, severity| RuleFinding {
        ways: [Way {
            unreplied: true,
            ..way(false, iif, None)
        }]
        .into(),
        ..finding("FORWARD", severity)
    };
    let unchanged = |_: &mut Host, _: &mut Config| {};
    assert_eq!(one_way(Vec::new(), &unchanged), [true; 5]);
    let of_web = [false, false, true, true, true];
    for severity in [Severity::SlowPath, Severity::SlowUnreplied] {
        assert_eq!(one_way(vec![new(Some("docker0"), severity)], &unchanged), of_web);
        let everybody = [false, false, false, false, true];
        assert_eq!(one_way(vec![new(None, severity)], &unchanged), everybody);
    }
    assert_eq!(
        one_way(vec![new(None, Severity::Note)], &unchanged),
        [true; 5],
        "it only logs"
    );
    let of_ipv6 = RuleFinding {
        family: "ip6".into(),
        ..new(Some("docker0"), Severity::SlowUnreplied)
    };
    assert_eq!(one_way(vec![of_ipv6], &unchanged), of_web, "of either family");
    let host_only = RuleFinding {
        ways: [Way {
            unreplied: true,
            ..way(true, Some("docker0"), None)
        }]
        .into(),
        ..finding("INPUT", Severity::SlowUnreplied)
    };
    assert_eq!(one_way(vec![host_only], &unchanged), of_web);
    let allowed = |_: &mut Host, config: &mut Config| config.allow_rate_rules = true;
    assert_eq!(one_way(vec![new(None, Severity::SlowUnreplied)], &allowed), [true; 5]);
    let unread = |host: &mut Host, _: &mut Config| host.served_mut().ruleset.unreadable = Some("no".into());
    assert_eq!(one_way(Vec::new(), &unread), [false, false, false, false, true]);
}

/// Rules about ICMP keep only echo slow, and only where they are met.
#[test]
fn rules_that_judge_icmp() {
    let echo = |findings: Vec<RuleFinding>, change: &dyn Fn(&mut Host, &mut Config)| {
        let desired = after(|host, config, _| {
            host.served_mut().ruleset.findings.extend(findings);
            change(host, config);
        });
        check(&desired, None, None);
        let flags = |ifindex| desired.devices[&key(ifindex)].flags;
        let all = [VETH_WEB, BRIDGE, 11, 4, UPLINK];
        assert!(all.iter().all(|ifindex| flags(*ifindex) & Device::ACCELERATED != 0));
        all.map(|ifindex| flags(ifindex) & Device::ECHO != 0)
    };
    let icmp = |family: &str, host_only, iif, severity| RuleFinding {
        family: family.into(),
        ways: [Way {
            icmp: true,
            ..way(host_only, iif, None)
        }]
        .into(),
        ..finding("FORWARD", severity)
    };
    let unchanged = |_: &mut Host, _: &mut Config| {};
    let (of_web, of_nobody) = ([false, false, true, true, true], [false, false, false, false, true]);
    assert_eq!(echo(Vec::new(), &unchanged), [true; 5]);
    for family in ["ip", "ip6"] {
        for host_only in [false, true] {
            for severity in [Severity::SlowPath, Severity::SlowEcho] {
                let of = |iif| echo(vec![icmp(family, host_only, iif, severity)], &unchanged);
                assert_eq!(
                    (of(Some("docker0")), of(None)),
                    (of_web, of_nobody),
                    "{family} {host_only}"
                );
            }
        }
    }
    assert_eq!(
        echo(vec![icmp("ip", false, None, Severity::Note)], &unchanged),
        [true; 5],
        "it only logs"
    );
    let allowed = |_: &mut Host, config: &mut Config| config.allow_rate_rules = true;
    assert_eq!(
        echo(vec![icmp("ip", false, None, Severity::SlowEcho)], &allowed),
        [true; 5]
    );
    let unread = |host: &mut Host, _: &mut Config| host.served_mut().ruleset.unreadable = Some("no".into());
    assert_eq!(echo(Vec::new(), &unread), of_nobody);
}

#[test]
fn a_rule_that_is_met_by_two_ways_concerns_both() {
    let desired = after(|host, _, _| {
        host.served_mut().ruleset.findings.push(RuleFinding {
            ways: [
                way(false, Some("docker0"), Some("eth0")),
                way(false, None, Some("br-app")),
            ]
            .into(),
            ..finding("MINE", Severity::SlowPath)
        });
    });
    let slow = Some(Why::RateRules);
    assert_eq!((why(&desired, "web"), why(&desired, "db")), (slow, slow));
}

/// A bridge whose flows with the host stay slow still has to tell which packets passed it on their way out: without
/// that, nothing that containers send off the host would be learned.
#[test]
fn rules_for_the_host_s_own_packets_keep_only_those_slow() {
    let with = |iif, oif| {
        let desired = after(|host, _, _| {
            host.served_mut().ruleset.findings.push(RuleFinding {
                ways: [way(true, iif, oif)].into(),
                ..finding("INPUT", Severity::SlowPath)
            });
        });
        assert_eq!((why(&desired, "web"), why(&desired, "db")), (None, None));
        [BRIDGE, 4].map(|bridge| {
            let fast = desired.devices[&key(bridge)].flags & Device::ACCELERATED != 0;
            let mut networks = desired.networks.iter();
            let network = networks.find(|network| network.bridge_ifindex == Some(bridge));
            assert_eq!(
                network.expect("a network").host.is_fast(),
                fast,
                "what is said is what is done"
            );
            fast
        })
    };
    assert_eq!(with(None, None), [false, false]);
    assert_eq!(with(Some("docker0"), None), [false, true]);
    assert_eq!(with(None, Some("br-app")), [true, false]);
    assert_eq!(with(Some("eth0"), None), [true, true]);
}
