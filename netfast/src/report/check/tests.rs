use std::{collections::BTreeMap, path, time::UNIX_EPOCH};

use netfast_common::{
    abi::Hook,
    device::{DeviceKey, Kind},
};

use super::*;
use crate::{
    host::{
        Host, Link, LinkKind, Mac, Namespace, Qdisc, RuleFinding, RuleSource, Ruleset, RuntimeState, Severity, Sysctls,
        TcFilter, Verdict, Way,
    },
    plan::{
        Desired, DeviceSpec, Identity, NotUplink,
        report::{EndpointReport, NetworkReport, Path, PoolReport, Why},
    },
    probe::{Attached, ProbeError, Release},
    report::{
        golden::{assert_golden, assert_golden_json},
        tunnels::tests::planned,
    },
};

fn finding(severity: Severity, what: &'static str, reason: &'static str) -> RuleFinding {
    RuleFinding {
        source: RuleSource::Nft,
        family: "ip".into(),
        table: "filter".into(),
        chain: "DOCKER-USER".into(),
        rule: 12,
        what,
        severity,
        reason,
        iif: Some("eth0".into()),
        oif: None,
        ways: [Way::default()].into(),
        own: std::collections::BTreeSet::new(),
        received: std::collections::BTreeSet::new(),
        verdict: Verdict::Drop,
        text: "meta limit counter drop".into(),
    }
}

fn observed() -> Host {
    let veth = LinkKind::Veth {
        peer_ifindex: Some(2),
        peer_netns: Some(0),
    };
    let mut shaped = Link::sample(12, "veth1a2b3c4", veth);
    shaped.xdp.native = Some(77);
    let netns = Namespace {
        links: BTreeMap::from([(12, shaped), (2, Link::sample(2, "eth0", LinkKind::Physical))]),
        qdiscs: BTreeMap::from([(
            12,
            vec![Qdisc {
                kind: "tbf".into(),
                handle: 1 << 16,
                parent: u32::MAX,
            }],
        )]),
        tc_filters: BTreeMap::from([(
            2,
            vec![TcFilter {
                parent: 0xffff_fff2,
                kind: "flower".into(),
                priority: 1,
                name: None,
            }],
        )]),
        sysctls: Sysctls {
            ip_forward: Some(true),
            bridge_nf_call_iptables: Some(true),
            conntrack_tcp_be_liberal: Some(false),
            conntrack_udp_timeout: Some(2),
            ..Sysctls::default()
        },
        ruleset: Ruleset {
            nft_generation: Some(7),
            nfqueue_bound: [3].into(),
            findings: vec![
                finding(Severity::SlowPath, "limit", "it judges by rate"),
                finding(
                    Severity::SelfExcluding,
                    "nfqueue",
                    "queued flows stay with the kernel by themselves",
                ),
            ],
            ..Ruleset::default()
        },
        ..Namespace::default()
    };
    Host {
        runtime: RuntimeState::Connected {
            engine: "Docker Engine - Community".into(),
            version: "28.3.1".into(),
            api: "1.51".into(),
        },
        ..Host::from(netns)
    }
}

fn programs() -> BTreeMap<u32, Vec<Attached>> {
    let on = |hook, id, name: &str| Attached {
        hook,
        id,
        name: name.into(),
    };
    BTreeMap::from([(
        2,
        vec![
            on(Hook::Ingress, 41, "cil_from_netdev"),
            on(Hook::Ingress, 42, "netfast_up_in"),
        ],
    )])
}

fn check_of(host: &Host) -> Check {
    let mut check = Check::default();
    check.lines.extend(super::host(&host.served().sysctls, false));
    check.lines.push(runtime(&host.runtime));
    check
        .lines
        .extend(interfaces(host.served(), [2, 12], &programs(), |id| {
            Some(format!("xdp_{id}"))
        }));
    check.lines.extend(rules(&host.served().ruleset));
    check
}

#[test]
fn a_host_with_all_sorts_of_things() {
    let mut check = check_of(&observed());
    check.add_tried(&Tried {
        what: "tcx",
        without: None,
        outcome: Ok("to attach".into()),
    });
    assert_golden(
        "check.txt",
        &check.render(Style {
            width: Some(100),
            color: false,
        }),
    );
    assert_golden_json("check.json", &check);
}

#[test]
fn the_first_failure_decides_the_exit_code() {
    let mut check = Check::default();
    let pins = || ProbeError::NotBpffs {
        dir: "/pins/netfast".into(),
        mount_point: path::Path::new("/pins").into(),
    };
    let old = ProbeError::Kernel {
        release: Release { major: 6, minor: 1 },
        what: "tcx",
        purpose: "attach beside other software's programs",
        found_in: "Linux 6.6 and later",
    };
    let without = Some("programs are attached as classic tc filters (clsact)");
    check.add_tried(&Tried {
        what: "tcx",
        without,
        outcome: Err(old),
    });
    assert_eq!(check.fails_with, None, "an optional thing does not fail");
    check.add_tried(&Tried {
        what: "BPF filesystem",
        without: None,
        outcome: Err(pins()),
    });
    let missing = ProbeError::Capability {
        name: "CAP_BPF",
        purpose: "load BPF programs",
    };
    check.add_tried(&Tried {
        what: "CAP_BPF",
        without: None,
        outcome: Err(missing),
    });
    assert_eq!(check.fails_with, Some(Exit::Unsupported));
    let gone = RuntimeState::Disconnected {
        since: UNIX_EPOCH,
        error: "no such file: /var/run/docker.sock".into(),
    };
    check.lines.push(runtime(&gone));
    assert_golden(
        "check-fails.txt",
        &check.render(Style {
            width: Some(100),
            color: false,
        }),
    );
}

#[test]
fn uplinks_are_named_and_an_interface_with_a_default_route_that_is_none_is_explained() {
    let render = |desired: &Desired| {
        let lines = uplinks(desired);
        Check {
            lines,
            ..Check::default()
        }
        .render(Style::default())
    };
    let none = render(&Desired {
        not_uplinks: vec![NotUplink {
            name: "up0".into(),
            why: "it is a veth whose other end is in this network namespace".into(),
            can_be_named: true,
            has_default: true,
            ..NotUplink::default()
        }],
        ..Desired::default()
    });
    assert!(none.contains("note  uplinks  none"), "{none}");
    assert!(
        none.contains("up0") && none.contains("is no uplink: it is a veth") && none.contains("`--uplink up0`"),
        "{none}"
    );
    let spec = |name: &str, kind| DeviceSpec {
        name: name.into(),
        kind,
        flags: 0,
        mac: Mac([0; 6]),
        address4: None,
        address6: None,
        identity: Identity::default(),
    };
    let two = render(&Desired {
        devices: BTreeMap::from([
            (DeviceKey::served(2), spec("eth0", Kind::Uplink)),
            (DeviceKey::served(3), spec("docker0", Kind::Bridge)),
            (DeviceKey::served(5), spec("eth1", Kind::Uplink)),
        ]),
        ..Desired::default()
    });
    assert!(two.contains("ok  uplinks  eth0, eth1\n"), "{two}");
}

#[test]
fn each_tunnel_is_told_with_why_its_outer_headers_are_not_repeated() {
    let mut desired = Desired {
        tunnel_reports: planned(),
        ..Desired::default()
    };
    desired.tunnel_reports.remove(1);
    let lines = uplinks(&desired);
    let [_, repeated, written] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!((repeated.level, repeated.subject.as_str()), (Level::Ok, "flannel.1"));
    assert_eq!(repeated.detail, "VXLAN 700, UDP port 8472; outer headers are repeated");
    assert_eq!((written.level, written.subject.as_str()), (Level::Note, "vxlan1"));
    assert_eq!(
        written.detail,
        "VXLAN 900, UDP port 8472; the kernel writes each outer header: its outer packets are IPv6"
    );
}

#[test]
fn an_empty_host_is_fine() {
    let host = Host::default();
    let lines = interfaces(host.served(), [], &BTreeMap::new(), |_| None);
    assert_eq!(lines.len(), 1);
    assert!(
        lines
            .iter()
            .chain(&rules(&host.served().ruleset))
            .all(|line| line.level == Level::Ok)
    );
}

#[test]
fn the_plan_is_told_by_network_and_endpoint() {
    let endpoint = |container: &str, path| EndpointReport {
        container: container.into(),
        path,
        ..Default::default()
    };
    let network = |name: &str, path, endpoints| NetworkReport {
        name: name.into(),
        path,
        endpoints,
        ..Default::default()
    };
    let host = || Path::slow(Why::HostNetwork);
    let desired = Desired {
        networks: vec![
            network(
                "all",
                Path::Fast,
                vec![endpoint("a", Path::Fast), endpoint("b", Path::Fast)],
            ),
            network(
                "some",
                Path::Fast,
                vec![
                    endpoint("c", Path::Fast),
                    endpoint("d", Path::slow(Why::NoMac)),
                    endpoint("e", Path::slow(Why::DisabledByLabel)),
                ],
            ),
            network(
                "shaped",
                Path::slow(Why::BridgeShaped),
                vec![endpoint("f", Path::slow(Why::BridgeShaped))],
            ),
            network("host", host(), vec![endpoint("g", host())]),
            network("none", Path::slow(Why::NoNetwork), vec![]),
            network("unused", Path::Fast, vec![]),
            NetworkReport {
                host: Path::slow(Why::RateRules),
                ..network("walled", Path::Fast, vec![endpoint("h", Path::Fast)])
            },
            NetworkReport {
                parent: Some("eth0".into()),
                pools: [("192.168.1.0/24", None), ("fd00::/64", Some("fd00::1:0/112"))]
                    .map(|(subnet, range): (&str, Option<&str>)| PoolReport {
                        subnet: Some(subnet.into()),
                        ip_range: range.map(Into::into),
                        gateway: None,
                    })
                    .into(),
                ..network("lan", Path::slow(Why::Macvlan), vec![])
            },
        ],
        learning_off: Some("a program listens on NFQUEUE 0".into()),
        ..Desired::default()
    };
    let check = Check {
        lines: networks(&desired),
        fails_with: None,
    };
    assert_golden(
        "check-networks.txt",
        &check.render(Style {
            width: Some(100),
            color: false,
        }),
    );
}
