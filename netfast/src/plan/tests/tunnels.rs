//! VXLAN devices: which lead off the host, and whose outer headers may be repeated.

use netfast_common::tunnel::Tunnel;

use super::{reasons, *};
use crate::host::VxlanInfo;

const TUNNEL: u32 = 30;

fn vxlan() -> VxlanInfo {
    VxlanInfo {
        vni: 42,
        port: 8472,
        ..VxlanInfo::default()
    }
}

/// The plan with tunnels switched on.
fn after(change: impl FnOnce(&mut Host, &mut Config, &mut Facts)) -> Desired {
    reasons::after(|host, config, facts| {
        config.tunnels = true;
        change(host, config, facts);
    })
}

/// A tunnel with a route.
fn routed(host: &mut Host, info: VxlanInfo) {
    let netns = host.served_mut();
    netns
        .links
        .insert(TUNNEL, link(TUNNEL, "flannel.1", LinkKind::Vxlan(info)));
    netns.routes.insert(route(TUNNEL, "10.244.1.0/24"));
}

/// One that is a port of docker0.
fn bridged(host: &mut Host, change: impl FnOnce(&mut Link)) {
    let mut port = Link {
        master: Some(BRIDGE),
        port: Some(BridgePort {
            state: PortState::Forwarding,
            ..BridgePort::default()
        }),
        ..link(TUNNEL, "vxlan0", LinkKind::Vxlan(vxlan()))
    };
    change(&mut port);
    host.served_mut().links.insert(TUNNEL, port);
}

fn device(desired: &Desired) -> Option<&DeviceSpec> {
    desired.devices.get(&key(TUNNEL))
}

fn why(desired: &Desired) -> &str {
    let [report] = &desired.tunnel_reports[..] else {
        panic!("{:?}", desired.tunnel_reports);
    };
    assert_eq!(report.why.is_none(), desired.tunnels.contains_key(&key(TUNNEL)));
    report.why.as_deref().unwrap_or("")
}

#[test]
fn a_tunnel_with_a_route_is_an_uplink_whose_outer_headers_are_repeated() {
    let desired = after(|host, _, _| routed(host, vxlan()));
    assert_eq!(device(&desired).map(|spec| spec.kind), Some(Kind::Uplink));
    assert_eq!(
        desired.tunnels,
        [(key(TUNNEL), Tunnel::new(42, 8472).with_way_in())].into()
    );
    assert_eq!(why(&desired), "");
    assert!(after(|_, _, _| ()).tunnel_reports.is_empty());
}

#[test]
fn a_port_of_a_bridge_with_containers_leads_off_the_host_if_the_bridge_learns_what_is_behind_it() {
    let desired = after(|host, _, _| bridged(host, |_| ()));
    let spec = device(&desired).expect("a device");
    // Whom nobody has heard of a bridge looks for everywhere.
    assert_eq!((spec.kind, spec.flags & Device::ONE_WAY), (Kind::Uplink, 0));
    assert!(spec.flags & Device::ECHO != 0);
    assert_eq!(why(&desired), "");
    assert_eq!(desired.tunnel_reports[0].bridge, Some(BRIDGE));
    let not: [fn(&mut Link); 7] = [
        |link| link.up = false,
        |link| link.master = None,
        |link| link.master = Some(UPLINK),
        |link| link.port.as_mut().expect("a port").learning = false,
        |link| link.port.as_mut().expect("a port").locked = true,
        |link| link.port.as_mut().expect("a port").vlan_tunnel = true,
        |link| link.port.as_mut().expect("a port").state = PortState::Blocking,
    ];
    for change in not {
        assert_eq!(device(&after(|host, _, _| bridged(host, change))), None);
    }
    let told = |change: fn(&mut Link)| why(&after(|host, _, _| bridged(host, change))).to_owned();
    assert_eq!(told(|link| link.up = false), "it is down");
    let learned = told(|link| link.port.as_mut().expect("a port").locked = true);
    assert!(learned.contains("learns no station"), "{learned}");
    // One that no container's packets leave by is none of netfast's.
    let alone = after(|host, _, _| bridged(host, |link| link.master = None));
    assert!(alone.tunnel_reports.is_empty());
    let forgets = after(|host, _, _| {
        bridged(host, |_| ());
        let bridge = host.served_mut().links.get_mut(&BRIDGE).expect("a bridge");
        bridge.kind = LinkKind::Bridge(BridgeInfo {
            ageing_time: 0,
            ..BridgeInfo::default()
        });
    });
    assert_eq!(device(&forgets), None);
    let others_named = after(|host, config, _| {
        bridged(host, |_| ());
        config.uplinks.insert("eth0".into());
    });
    assert_eq!(device(&others_named), None);
    assert!(why(&others_named).contains("other interfaces are named"));
    let routed_beside = after(|host, config, _| {
        routed(host, vxlan());
        config.uplinks.insert("eth0".into());
    });
    assert!(why(&routed_beside).contains("other interfaces are named"));
}

/// As devices are that nobody says more of, flannel's among them.
#[test]
fn a_tunnel_with_udp_checksums_is_told_so() {
    let desired = after(|host, _, _| {
        let info = VxlanInfo {
            checksum: true,
            ..vxlan()
        };
        routed(host, info);
    });
    assert_eq!(why(&desired), "");
    let tunnel = Tunnel::new(42, 8472).with_way_in().with_checksums();
    assert_eq!(desired.tunnels, [(key(TUNNEL), tunnel)].into());
    assert!(desired.tunnel_reports[0].checksums);
}

/// Off, as by default: a tunnel with a route is an uplink like any other, one that is a port of a bridge is none, and both are named.
#[test]
fn switched_off_nothing_is_said_to_programs_of_tunnels() {
    assert!(!Config::default().tunnels);
    let off = reasons::after(|host, _, _| routed(host, vxlan()));
    assert_eq!(device(&off).map(|spec| spec.kind), Some(Kind::Uplink));
    assert!(off.tunnels.is_empty());
    assert!(why(&off).contains("tunnels = false"), "{}", why(&off));
    let off = reasons::after(|host, _, _| bridged(host, |_| ()));
    assert_eq!(device(&off), None);
    assert!(off.tunnels.is_empty());
    assert!(why(&off).contains("tunnels = false"), "{}", why(&off));
}

/// A frame to a station that nobody has heard of goes to all of them.
#[test]
fn a_tunnel_that_floods_to_several_ends_is_the_kernels() {
    let to = |ends: &[u8], mac: u8| {
        after(|host, _, _| {
            routed(host, vxlan());
            host.served_mut().fdb.extend(ends.iter().map(|last| FdbEntry {
                bridge: None,
                ifindex: TUNNEL,
                mac: Mac([0, 0, 0, 0, 0, mac]),
                vlan: None,
                remote: Some([198, 18, 0, *last].into()),
                state: FdbState::Static,
            }));
        })
    };
    assert_eq!(why(&to(&[1], 0)), "");
    assert!(why(&to(&[1, 2], 0)).contains("to 2 ends"), "{}", why(&to(&[1, 2], 0)));
    assert_eq!(why(&to(&[1, 2], 7)), "", "each of these is one station's");
}

#[test]
fn what_of_a_tunnel_makes_each_outer_header_another() {
    let of = |change: fn(&mut VxlanInfo)| {
        after(|host, _, _| {
            let mut info = vxlan();
            change(&mut info);
            routed(host, info);
        })
    };
    for (change, told) in [
        ((|info| info.external = true) as fn(&mut VxlanInfo), "external"),
        (|info| info.extended = true, "group policies"),
        (|info| info.ipv6 = true, "IPv6"),
        (|info| info.ttl_inherit = true, "ttl inherit"),
        (|info| info.df_inherit = true, "df inherit"),
        (|info| info.answers = true, "proxy"),
        (|info| info.vni = 1 << 24, "identifier"),
        (|info| info.port = 0, "identifier or port"),
    ] {
        let desired = of(change);
        assert!(why(&desired).contains(told), "{told}: {}", why(&desired));
        assert!(device(&desired).is_some(), "packets into it are fast all the same");
    }
}

#[test]
fn who_must_see_each_packet_into_a_tunnel() {
    let of = |change: fn(&mut Host, &mut Config, &mut Facts)| {
        after(|host, config, facts| {
            routed(host, vxlan());
            change(host, config, facts);
        })
    };
    for (change, told) in [
        (
            (|_, _, facts| facts.tunnels_off = Some("no tcx".into())) as fn(&mut Host, &mut Config, &mut Facts),
            "no tcx",
        ),
        (
            |host, _, _| {
                let qdisc = Qdisc {
                    kind: "tbf".into(),
                    handle: 1 << 16,
                    parent: 0xffff_ffff,
                };
                host.served_mut().qdiscs.insert(TUNNEL, vec![qdisc]);
            },
            "tbf",
        ),
        (
            |_, _, facts| {
                let foreign = Foreign {
                    egress: vec!["theirs".into()],
                    ..Foreign::default()
                };
                facts.foreign.insert(key(TUNNEL), foreign);
            },
            "theirs",
        ),
        (
            |host, _, _| host.served_mut().sysctls.conntrack_acct = Some(true),
            "conntrack counts",
        ),
        (
            |host, _, _| host.served_mut().ruleset.unreadable = Some("no".into()),
            "could not be read",
        ),
    ] {
        let desired = of(change);
        assert!(why(&desired).contains(told), "{told}: {}", why(&desired));
    }
}

#[test]
fn rules_about_what_the_host_itself_sends() {
    let rule = |oif: Option<&str>, iif: Option<&str>, family: &str| RuleFinding {
        source: RuleSource::Nft,
        family: family.into(),
        table: "filter".into(),
        chain: "OUTPUT".into(),
        rule: 1,
        what: "limit",
        severity: Severity::Note,
        reason: "sees every packet",
        iif: None,
        oif: None,
        ways: BTreeSet::new(),
        own: [Way {
            host_only: true,
            iif: iif.map(Into::into),
            oif: oif.map(Into::into),
            ..Way::default()
        }]
        .into(),
        received: BTreeSet::new(),
        verdict: Verdict::Accept,
        text: "limit accept".into(),
    };
    let judged = |finding: RuleFinding, allow: bool| {
        let desired = after(|host, config, _| {
            routed(host, vxlan());
            host.served_mut().ruleset.findings.push(finding);
            config.allow_rate_rules = allow;
        });
        assert!(
            reasons::why(&desired, "web").is_none(),
            "packets inside are none of its"
        );
        why(&desired).contains("must see every outer packet")
    };
    assert!(judged(rule(None, None, "ip"), false) && judged(rule(Some("eth0"), None, "inet"), false));
    assert!(judged(rule(Some("eth*"), None, "ip"), false));
    assert!(!judged(rule(None, None, "ip"), true), "the operator's wish");
    assert!(
        !judged(rule(Some("docker0"), None, "ip"), false),
        "no outer packet leaves by it"
    );
    assert!(!judged(rule(Some("flannel.1"), None, "ip"), false), "nor by the tunnel");
    assert!(
        !judged(rule(None, Some("eth0"), "ip"), false),
        "the host's own come in by none"
    );
    assert!(!judged(rule(None, None, "ip6"), false));
}

/// Who must see the outer header of each packet that comes in leaves what goes out as it is.
#[test]
fn who_must_see_each_outer_packet_that_comes_in() {
    let of = |change: &dyn Fn(&mut Host, &mut Config, &mut Facts)| {
        let desired = after(|host, config, facts| {
            routed(host, vxlan());
            change(host, config, facts);
        });
        assert_eq!(why(&desired), "");
        let has_way_in = desired.tunnels[&key(TUNNEL)].has_way_in();
        let why_in = desired.tunnel_reports[0].why_in.clone();
        assert_eq!(has_way_in, why_in.is_none(), "what is said is what is done");
        why_in.unwrap_or_default()
    };
    assert_eq!(of(&|_, _, _| ()), "");
    assert_eq!(
        of(&|_, _, facts| facts.way_in_off = Some("too complex".into())),
        "too complex"
    );
    let learns = |seconds| {
        let info = VxlanInfo {
            ageing: Some(seconds),
            ..vxlan()
        };
        of(&|host, _, _| routed(host, info))
    };
    assert!(learns(2).contains("forgets at once"));
    assert_eq!(learns(3), "");
    let rule = |iif: Option<&str>, oif: Option<&str>, family: &str, allow: bool| {
        let finding = RuleFinding {
            source: RuleSource::Nft,
            family: family.into(),
            table: "filter".into(),
            chain: "INPUT".into(),
            rule: 1,
            what: "limit",
            severity: Severity::Note,
            reason: "sees every packet",
            iif: None,
            oif: None,
            ways: BTreeSet::new(),
            own: BTreeSet::new(),
            received: [Way {
                host_only: true,
                iif: iif.map(Into::into),
                oif: oif.map(Into::into),
                ..Way::default()
            }]
            .into(),
            verdict: Verdict::Accept,
            text: "limit accept".into(),
        };
        let why_in = of(&|host, config, _| {
            host.served_mut().ruleset.findings.push(finding.clone());
            config.allow_rate_rules = allow;
        });
        why_in.contains("this rule must see every outer packet that comes in")
    };
    assert!(rule(None, None, "ip", false) && rule(Some("eth0"), None, "inet", false));
    assert!(rule(Some("eth*"), None, "ip", false));
    assert!(!rule(None, None, "ip", true), "the operator's wish");
    assert!(
        !rule(Some("docker0"), None, "ip", false),
        "no outer packet comes in by it"
    );
    assert!(!rule(Some("flannel.1"), None, "ip", false), "nor by the tunnel");
    assert!(!rule(None, Some("eth0"), "ip", false), "what comes in leaves by none");
    assert!(!rule(None, None, "ip6", false), "outer packets are IPv4");
}
