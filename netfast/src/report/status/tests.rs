use netfast_common::abi::Program;

use super::*;
use crate::{
    abilities::{Grounds, Look},
    report::{
        Style,
        golden::{assert_golden, assert_golden_json},
    },
};

fn traffic(fast: u64, slow: u64, out: u64) -> Traffic {
    Traffic {
        in_fast_packets: fast,
        in_fast_bytes: fast * 1448,
        in_slow_packets: slow,
        in_slow_bytes: slow * 80,
        out_fast_packets: out,
        out_fast_bytes: out * 1448,
        in_spoofed_packets: 0,
        in_malformed_packets: 0,
    }
}

fn endpoint(container: &str, path: PathState, traffic: Option<Traffic>) -> Endpoint {
    Endpoint {
        container: container.into(),
        veth: Some(format!("veth-{container}")),
        path,
        traffic,
        interface: Some(Interface {
            sent_packets: 9_000_000,
            sent_bytes: 9_000_000 * 1462,
            received_packets: 4_500_000,
            received_bytes: 4_500_000 * 80,
        }),
    }
}

/// One whose engine was updated, and that was restarted.
fn host() -> HostAbilities {
    let look = |engine: &str, br_netfilter| Look {
        versions: [
            (Part::Kernel, "6.12.43"),
            (Part::Engine, engine),
            (Part::Netfast, "0.1.0"),
        ]
        .map(|(part, version)| (part, version.into()))
        .into(),
        boot: String::new(),
        abilities: Grounds {
            missing: [Program::Resolver].into(),
            ..Grounds::with_br_netfilter(br_netfilter)
        }
        .abilities(),
    };
    let mut record = Record::default();
    record.add(look("Docker Engine - Community 27.1.2", true), 0);
    record.add(look("Docker Engine - Community 28.3.1", false), UPDATED);
    HostAbilities::gather(&record, UPDATED + 1000)
}

/// 2026-11-30, milliseconds since 1970.
const UPDATED: u64 = 1_796_000_000_000;

#[test]
fn updates_are_told_for_thirty_days_and_kept_for_who_asks() {
    let mut status = example();
    let told = |status: &Status| {
        status
            .render(Style::default(), false)
            .contains("Since the update engine Docker")
    };
    assert!(told(&status));
    let record = Record {
        last: None,
        updates: status.host.updates.clone(),
    };
    status.host = HostAbilities::gather(&record, UPDATED + 31 * 24 * 3600 * 1000);
    assert!(!told(&status));
    assert_eq!(status.host.updates.len(), 1, "JSON has it");
}

/// A host with a bit of everything.
pub(crate) fn example() -> Status {
    let mut status = Status {
        daemon: Daemon {
            running: true,
            pid: Some(4711),
            version: "0.1.0".into(),
            uptime_ms: Some(7_812_000),
            attached: true,
            in_sync: true,
            attached_by: "tcx".into(),
            using: true,
            learning: true,
            lacks: Vec::new(),
            learning_off: None,
            epoch: 12,
            revalidate_ms: 1000,
            pin_dir: "/sys/fs/bpf/netfast/v1".into(),
        },
        runtime: Runtime {
            state: "connected".into(),
            engine: Some("Docker Engine - Community 28.3.1".into()),
            error: None,
        },
        host: host(),
        totals: Totals {
            flows: 214,
            flow_capacity: 262_144,
            table_bytes: 66_060_288,
            ..Totals::default()
        },
        networks: networks(),
        devices: devices(),
        ..Status::default()
    };
    let mut counts = vec![Count::default(); reason::SLOTS as usize];
    counts[0] = Count {
        packets: 12_345_666,
        bytes: 17_876_524_368,
    };
    for (index, packets) in [
        (18, 1_500),
        (22, 640),
        (11, 30),
        (12, 30),
        (2, 4),
        (40, 60),
        (42, 640),
        (43, 12_000),
    ] {
        counts[index] = Count {
            packets,
            bytes: packets * 70,
        };
    }
    for index in [3, 5, 6, 7, 8] {
        counts[index] = Count { packets: 1, bytes: 60 };
    }
    status.count(&counts);
    status.with_verdict()
}

fn networks() -> Vec<Network> {
    vec![
        Network {
            name: "bridge".into(),
            driver: "bridge".into(),
            bridge: Some("docker0".into()),
            path: PathState::fast(),
            host: PathState::fast(),
            direct: Some(PathState::fast()),
            endpoints: vec![
                endpoint("web", PathState::fast(), Some(traffic(8_123_456, 1_204, 4_222_111))),
                endpoint(
                    "database",
                    PathState::fast(),
                    Some(Traffic {
                        in_spoofed_packets: 1_310,
                        in_malformed_packets: 7,
                        ..traffic(4_222_111, 1_000, 8_123_000)
                    }),
                ),
                endpoint(
                    "legacy",
                    PathState::slow("disabled-by-label", "switched off by the label netfast.enable=false"),
                    None,
                ),
            ],
        },
        Network {
            name: "host".into(),
            driver: "host".into(),
            bridge: None,
            path: PathState::slow(
                "host-network",
                "shares the host's own namespace: there is no path to shorten",
            ),
            host: PathState::slow(
                "host-network",
                "shares the host's own namespace: there is no path to shorten",
            ),
            direct: None,
            endpoints: vec![Endpoint {
                veth: None,
                ..endpoint(
                    "monitor",
                    PathState::slow(
                        "host-network",
                        "shares the host's own namespace: there is no path to shorten",
                    ),
                    None,
                )
            }],
        },
        Network {
            name: "idle".into(),
            driver: "bridge".into(),
            bridge: Some("br-0123456789ab".into()),
            path: PathState::fast(),
            host: PathState::fast(),
            direct: Some(PathState::slow("bridge-netfilter", "br_netfilter shows packets")),
            endpoints: vec![],
        },
    ]
}

fn devices() -> Vec<Device> {
    vec![
        Device {
            name: "docker0".into(),
            kind: "bridge".into(),
            attached: true,
            error: None,
            path: PathState::fast(),
            traffic: Some(traffic(99, 1, 7)),
        },
        Device {
            name: "eth0".into(),
            kind: "uplink".into(),
            attached: false,
            error: Some("no such interface".into()),
            path: PathState::slow("not-attached", "no such interface"),
            traffic: None,
        },
    ]
}

#[test]
fn the_totals_are_the_sums_of_the_reasons() {
    let status = example();
    assert_eq!(status.totals.fast_packets, 12_345_666);
    assert_eq!(status.totals.slow_packets, 1_500 + 640 + 30 + 30 + 4 + 5);
    assert_eq!(
        status.totals.slow_bytes,
        status.reasons.iter().map(|reason| reason.bytes).sum::<u64>()
    );
    assert!(status.reasons.iter().all(|reason| reason.number < 40));
    assert!(status.learning.iter().all(|reason| reason.number >= 40));
}

#[test]
fn running() {
    assert_golden("status.txt", &example().render(Style::default(), false));
    assert_golden(
        "status-80.txt",
        &example().render(
            Style {
                width: Some(80),
                color: false,
            },
            true,
        ),
    );
    assert_golden_json("status.json", &example());
}

#[test]
fn what_became_of_candidates_is_for_those_who_ask() {
    const LEARNING: &str = "WHAT BECAME OF CANDIDATES FOR LEARNING";
    assert!(!example().render(Style::default(), false).contains(LEARNING));
    assert!(example().render(Style::default(), true).contains(LEARNING));
}

#[test]
fn the_first_line_is_the_verdict() {
    let first = |status: &Status| {
        let status = status.clone().with_verdict();
        let text = status.render(Style::default(), false);
        (status.verdict.ok, text.lines().next().unwrap_or_default().to_owned())
    };
    let numbers = "99.98 % of packets fast, 2 of 3 endpoints";
    let mut status = example();
    assert_eq!(first(&status), (true, format!("ok: {numbers}, daemon running")));
    status.daemon.in_sync = false;
    let said = |trouble: &str| (false, format!("attention: {trouble}; {numbers}"));
    assert_eq!(first(&status), said("catching up with changes"));
    status.runtime.error = Some("connection refused".into());
    assert_eq!(first(&status), said("the container runtime does not answer"));
    status.daemon.learning_off = Some("a program listens on NFQUEUE 0".into());
    assert_eq!(first(&status), said("learning off: a program listens on NFQUEUE 0"));
    status.daemon.using = false;
    assert_eq!(first(&status), said("fast path off"));
    status.daemon.running = false;
    assert_eq!(first(&status), said("daemon not running"));
    // Nor is one that is slow and that nobody has switched off.
    let mut ruled = example();
    let endpoint = &mut ruled.networks[0].endpoints[0];
    endpoint.path = PathState::slow("rate-rules", "a rule judges each packet");
    let name = endpoint.container.clone();
    let line = first(&ruled).1;
    assert!(
        line.starts_with(&format!(
            "attention: 1 endpoint is slow ({name}: a rule judges each packet); "
        )),
        "{line}"
    );
    // Endpoints that are all slow are no success, and no packets are no share.
    let mut idle = example();
    idle.totals = Totals::default();
    for endpoint in &mut idle.networks[0].endpoints {
        endpoint.path = PathState::slow("no-mac", "its MAC address is not known yet");
    }
    assert_eq!(
        first(&idle).1,
        "attention: no endpoint is fast; no packets yet, 0 of 3 endpoints"
    );
    assert_eq!(
        first(&Status::default()).1,
        "attention: daemon not running; no packets yet, 0 of 0 endpoints"
    );
}

#[test]
fn a_name_chooses_a_network_or_a_container() {
    let of = |name: &str| {
        let status = example().select(name).ok()?;
        Some(status.render_part(Style::default()))
    };
    let network = of("bridge").expect("a network");
    assert!(network.starts_with("ok: 99.98 % of packets fast, 2 of 3 endpoints, daemon running\n"));
    assert!(network.contains("database") && !network.contains("monitor") && !network.contains("WHY PACKETS"));
    let container = of("web").expect("a container");
    assert!(container.contains("1 of 1 endpoints") && container.contains("NETWORK bridge"));
    assert!(!container.contains("database"), "{container}");
    assert_eq!(of("nobody"), None);
}

#[test]
fn a_name_that_is_not_known_yet_is_told_from_one_that_does_not_exist() {
    let said = |change: &dyn Fn(&mut Daemon)| {
        let mut status = example();
        change(&mut status.daemon);
        status.select("shop").expect_err("there is none").to_string()
    };
    assert!(said(&|_| {}).starts_with("there is neither a network nor a container \"shop\""));
    assert_eq!(
        said(&|daemon| daemon.in_sync = false),
        "\"shop\" is not known yet: the daemon is starting or catching up with changes"
    );
    // Nobody reads anything then.
    assert!(said(&|daemon| (daemon.running, daemon.in_sync) = (false, false)).starts_with("there is neither"));
}

#[test]
fn what_the_kernel_lacks_is_a_line_each_while_the_daemon_runs() {
    let mut status = example();
    status.daemon.lacks = vec!["the kernel has no tcx; without it, much is lost. Wait.".into()];
    let shown = "\nNot here: the kernel has no tcx; without it, much is lost. Wait.\n";
    let text = |status: &Status| status.render(Style::default(), false);
    assert!(text(&status).contains(shown), "{}", text(&status));
    assert!(status.with_verdict().verdict.ok, "it is nobody's trouble");
    let mut left = example();
    left.daemon.running = false;
    left.daemon.lacks = vec!["a".into()];
    assert!(
        !text(&left).contains("Not here"),
        "another daemon may find another kernel"
    );
}

#[test]
fn daemon_gone_docker_gone_learning_off() {
    let mut status = example();
    status.daemon.running = false;
    status.daemon.learning_off = Some("a program listens on NFQUEUE 0".into());
    status.runtime = Runtime {
        state: "disconnected".into(),
        engine: None,
        error: Some("No such file or directory".into()),
    };
    status.networks.clear();
    status.devices.clear();
    assert_golden(
        "status-left.txt",
        &status.with_verdict().render(
            Style {
                width: Some(80),
                color: false,
            },
            false,
        ),
    );
}
