use netfast_common::device::Kind;

use super::*;
use crate::{
    config::{AliasMode, Config},
    plan::{
        AliasReport, MemberReport,
        report::{PoolReport, Why},
    },
    report::{
        Style,
        golden::{assert_golden, assert_golden_json},
    },
    state::{DeviceReport, RuntimeReport},
};

mod false_words;
mod overlay;
mod six;
mod tunnels;
mod uplinks;

fn endpoint(container: &str, ifindex: u32, address: &str, path: Path) -> EndpointReport {
    EndpointReport {
        container_id: format!("{container}0123456789"),
        container: container.into(),
        interface: Some("eth0".into()),
        addresses: vec![address.into()],
        veth: Some(format!("veth{ifindex}")),
        ifindex: Some(ifindex),
        path,
        ..EndpointReport::default()
    }
}

fn network(name: &str, bridge: (&str, u32), subnet: &str, endpoints: Vec<EndpointReport>) -> NetworkReport {
    NetworkReport {
        id: format!("{name}-id"),
        name: name.into(),
        driver: "bridge".into(),
        pools: vec![PoolReport {
            subnet: Some(subnet.into()),
            ..PoolReport::default()
        }],
        bridge: Some(bridge.0.into()),
        bridge_ifindex: Some(bridge.1),
        endpoints,
        ..NetworkReport::default()
    }
}

fn state() -> State {
    let device = |name: &str, kind: &str, attached| DeviceReport {
        name: name.into(),
        kind: kind.into(),
        slot: Some(1),
        attached,
        error: None,
    };
    State {
        version: "0.1.0".into(),
        abi: 1,
        boot: String::new(),
        pid: 7,
        started_ms: 0,
        synced_ms: Some(0),
        in_sync: true,
        pin_dir: "/pins".into(),
        config: Config::default(),
        attached_by: "tcx".into(),
        queue_watch_error: None,
        lacks: Vec::new(),
        record: crate::abilities::Record::default(),
        record_file: None,
        learning_off: None,
        runtime: RuntimeReport {
            state: "connected".into(),
            engine: Some("Docker 28".into()),
            error: None,
        },
        networks: vec![
            network(
                "backend",
                ("br-backend", 6),
                "172.30.0.0/16",
                vec![
                    endpoint("web", 13, "172.30.0.2/16", Path::Fast),
                    endpoint("database", 14, "172.30.0.3/16", Path::Fast),
                ],
            ),
            network(
                "bridge",
                ("docker0", 5),
                "172.17.0.0/16",
                vec![
                    endpoint("legacy", 15, "172.17.0.9/16", Path::slow(Why::DisabledByLabel)),
                    endpoint("new", 16, "172.17.0.10/16", Path::Fast),
                    endpoint("web", 12, "172.17.0.2/16", Path::Fast),
                ],
            ),
        ],
        devices: [
            (2, device("eth0", "uplink", true)),
            (5, device("docker0", "bridge", true)),
            (12, device("veth12", "endpoint", true)),
            (13, device("veth13", "endpoint", true)),
            (14, device("veth14", "endpoint", true)),
            (16, device("veth16", "endpoint", false)),
        ]
        .map(|(ifindex, device)| (DeviceKey::served(ifindex), device))
        .into(),
        tunnels: Vec::new(),
        not_uplinks: Vec::new(),
        localhost: crate::state::LocalState::default(),
        resolvers: Vec::new(),
        resolver_rules: Vec::new(),
        sysctls: Vec::new(),
        clsact: BTreeMap::new(),
        table_bytes: 9,
        aliases: Vec::new(),
        vips: crate::state::VipState::default(),
        segments: Vec::new(),
        xdp_gro: Vec::new(),
        xdp: Vec::new(),
        xdp_ends: 0,
    }
}

fn on() -> Control {
    Control {
        switches: Control::USE | Control::LEARN,
        ..Control::default()
    }
}

/// 10/8 is behind a tunnel, 192.0.2/24 behind nothing, 172.17.0.1 the host, 172.30/16 the network; the rest outside. So it is
/// with the IPv6 networks that begin alike.
fn route(_: u32, _: IpAddr, to: IpAddr) -> Route {
    let text = to.to_string();
    if text.ends_with(".255") || to.is_multicast() {
        Route::Many
    } else if text.starts_with("10.") || text.starts_with("fd10:") {
        Route::Out(9, "wg0".into())
    } else if text.starts_with("192.0.2.") || text.starts_with("fdff:") {
        Route::None("Network is unreachable".into())
    } else if ["172.17.0.1", "172.30.0.1", "fd17::1", "fd30::1"].contains(&text.as_str()) {
        Route::Host
    } else if text.starts_with("172.17.") || text.starts_with("fd17:") {
        Route::Out(5, "docker0".into())
    } else if text.starts_with("172.30.") || text.starts_with("fd30:") {
        Route::Out(6, "br-backend".into())
    } else {
        Route::Out(2, "eth0".into())
    }
}

/// What the programs were told of the interfaces of a state.
fn told(state: &State) -> BTreeMap<DeviceKey, Device> {
    let kind = |name: &str| match name {
        "endpoint" => Kind::Endpoint,
        "bridge" => Kind::Bridge,
        _ => Kind::Uplink,
    };
    let flags = Device::ACCELERATED | Device::IPV6 | Device::ANY_SOURCE;
    let devices = state.devices.iter();
    devices
        .map(|(key, device)| (*key, Device::new(kind(&device.kind), flags, 1)))
        .collect()
}

/// Explains with these flows, where docker0's port 12 is what the host has heard 172.17.0.77 behind.
fn explain_with(state: &State, control: Control, live: u64, container: &str, to: Option<&str>) -> Explanation {
    let to = to.map(|to| Destination::parse(to, container, &state.networks, &state.aliases).expect("a destination"));
    let facts = Facts {
        state,
        running: true,
        control,
        devices: &told(state),
        route: &route,
        is_on_link: &|bridge, ip| bridge == 5 && matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [172, 17]),
        stand_in: &|bridge, _| (bridge == 5).then(|| [172, 17, 255, 254].into()),
        behind: &|ip| (ip == IpAddr::from([172, 17, 0, 77])).then_some(12),
        flows: &|ifindex, _| Flows {
            usable: u64::from(ifindex % 2) * 4,
            live,
            waiting: 1,
            packets: 12_345,
            bytes: 17_876_524,
            ..Flows::default()
        },
    };
    Explanation::of(container, to, &facts).expect("it is there")
}

fn explain_in(state: &State, control: Control, container: &str, to: Option<&str>) -> Explanation {
    explain_with(state, control, 0, container, to)
}

fn explain(container: &str, to: &str) -> Explanation {
    explain_in(&state(), on(), container, Some(to))
}

fn why(explanation: &Explanation) -> Vec<&str> {
    let steps = explanation.ways.iter().flat_map(|way| &way.steps);
    explanation
        .host
        .iter()
        .chain(steps)
        .filter_map(|step| step.path.why.as_deref())
        .collect()
}

#[test]
fn every_kind_of_destination() {
    for (container, to, verdict, wanted) in [
        ("web", "database", Verdict::Fast, &[][..]),
        ("web", "database:5432", Verdict::Fast, &[]),
        ("web", "172.30.0.3", Verdict::Fast, &[]),
        ("database", "web", Verdict::Fast, &[]),
        ("web", "legacy", Verdict::Slow, &["disabled-by-label"]),
        ("legacy", "web", Verdict::Slow, &["disabled-by-label"]),
        ("database", "203.0.113.9:443", Verdict::KernelDecides, &[]),
        ("database", "10.1.2.3", Verdict::Slow, &["egress-unknown"]),
        ("database", "192.0.2.1", Verdict::Slow, &["other-packet"]),
        ("web", "172.17.0.1", Verdict::Fast, &[]),
        ("database", "172.30.0.1", Verdict::Slow, &["egress-unknown"]),
        ("database", "172.30.255.255", Verdict::Slow, &["not-unicast"]),
        ("web", "172.17.0.77", Verdict::Inside, &[]),
        ("new", "172.17.0.77", Verdict::Slow, &["unknown-device"]),
        ("web", "172.17.3.3", Verdict::Slow, &["other-packet"]),
        ("web", "224.0.0.251", Verdict::Slow, &["not-unicast", "not-unicast"]),
        ("database", "[2001:db8::1]:443", Verdict::KernelDecides, &[]),
        ("database", "2001:db8::1", Verdict::KernelDecides, &[]),
        ("database", "fe80::1", Verdict::Slow, &["link-local"]),
        ("database", "ff02::1", Verdict::Slow, &["not-unicast"]),
        ("database", "127.0.0.1:80", Verdict::Inside, &[]),
        ("database", "172.30.0.3", Verdict::Inside, &[]),
        ("new", "203.0.113.9", Verdict::Slow, &["unknown-device"]),
    ] {
        let explanation = explain(container, to);
        assert_eq!(
            (explanation.verdict, why(&explanation)),
            (verdict, wanted.to_vec()),
            "{container} to {to}"
        );
        // Whatever is slow comes with something to do, or is so by nature.
        let text = explanation.render(Style::default());
        assert!(text.starts_with(&format!("{container} to {to}")), "{text}");
    }
}

/// `pair` is shared by `web` and `database` on `backend`.
fn with_alias(vip: Option<[u8; 4]>, eligible: [bool; 2]) -> State {
    let member = |name: &str, last: u8, eligible: bool| MemberReport {
        container_id: format!("{name}-id"),
        container: name.into(),
        addresses: vec![[172, 30, 0, last].into()],
        eligible,
        ..MemberReport::default()
    };
    let mut state = state();
    for endpoint in state.networks.iter_mut().flat_map(|network| &mut network.endpoints) {
        endpoint.container_id = format!("{}-id", endpoint.container);
    }
    state.aliases = vec![AliasReport {
        alias: "pair".into(),
        network: "backend".into(),
        mode: if vip.is_some() { AliasMode::Vip } else { AliasMode::Rr },
        vip: vip.map(Into::into),
        members: vec![member("web", 2, eligible[0]), member("database", 3, eligible[1])],
        ..AliasReport::default()
    }];
    state
}

#[test]
fn a_name_that_several_share() {
    let vip = Some([198, 19, 7, 2]);
    let explained = explain_in(&with_alias(vip, [true; 2]), on(), "web", Some("Pair:80"));
    let text = explained.render(Style::default());
    assert!(text.starts_with("web to Pair:80 (198.19.7.2): fast"), "{text}");
    assert!(
        text.contains("each connection goes to the next of 2 of 2 members") && text.contains("database (veth14)"),
        "{text}"
    );
    assert_eq!(explained.ways.len(), 1, "the alias's network");
    let none = explain_in(&with_alias(vip, [false; 2]), on(), "web", Some("pair.backend"));
    assert!(none.render(Style::default()).contains("refused at once"));
    assert_eq!((none.verdict, why(&none)), (Verdict::Slow, vec!["other-packet"]));
    let rotated = explain_in(&with_alias(None, [false, true]), on(), "web", Some("pair"));
    let text = rotated.render(Style::default());
    assert!(
        text.contains("(172.30.0.3)") && text.contains("begins with the next of 1 of 2 members"),
        "{text}"
    );
    // Who is not on its network does not know it.
    let state = with_alias(vip, [true; 2]);
    assert!(Destination::parse("pair", "legacy", &state.networks, &state.aliases).is_err());
}

#[test]
fn a_container_on_two_networks_is_asked_by_the_nearer() {
    let near = explain("web", "database");
    assert_eq!(
        near.ways.iter().map(|way| way.network.as_str()).collect::<Vec<_>>(),
        ["backend"]
    );
    let far = explain("web", "203.0.113.9");
    assert_eq!(far.ways.len(), 2);
    assert_eq!(far.verdict, Verdict::KernelDecides);
    let none = explain_in(&state(), on(), "web", None);
    assert_eq!((none.ways.len(), none.destination), (2, None));
}

#[test]
fn names_are_of_containers_and_identifiers() {
    let state = state();
    let by_id = explain_in(&state, on(), "databa", Some("web"));
    assert_eq!(by_id.container, "database");
    let nobody = Destination::parse("nobody:80", "web", &state.networks, &[]).expect_err("there is none");
    assert_eq!(
        nobody.to_string(),
        "\"nobody:80\" is neither an address, nor a container, nor a name that several containers share"
    );
    let devices = BTreeMap::new();
    let facts = Facts {
        state: &state,
        running: true,
        control: on(),
        devices: &devices,
        route: &route,
        stand_in: &|_, _| None,
        is_on_link: &|_, _| false,
        behind: &|_| None,
        flows: &|_, _| Flows::default(),
    };
    assert_eq!(Explanation::of("nobody", None, &facts), None);
}

#[test]
fn the_switches_of_the_host_come_first() {
    let mut state = state();
    let off = explain_in(&state, Control::default(), "database", Some("web"));
    assert_eq!((off.verdict, why(&off)), (Verdict::Slow, vec!["disabled"]));
    state.learning_off = Some("a program listens on NFQUEUE 0".into());
    let control = Control {
        switches: Control::USE,
        ..Control::default()
    };
    let queue = explain_in(&state, control, "database", Some("web"));
    assert_eq!(why(&queue), ["learn-off"]);
    assert!(queue.render(Style::default()).contains("NFQUEUE 0"));
}

#[test]
fn the_text() {
    let narrow = Style {
        width: Some(80),
        color: false,
    };
    let texts = [
        explain("web", "203.0.113.9:443").render(narrow),
        explain("database", "10.1.2.3").render(narrow),
        explain("legacy", "web").render(Style::default()),
        explain("database", "localhost:80".replace("localhost", "127.0.0.1").as_str()).render(narrow),
    ];
    assert_golden("explain.txt", &texts.join("\n"));
    assert_golden_json("explain.json", &explain("database", "10.1.2.3"));
}

#[test]
fn every_reason_and_every_cause_is_explained() {
    let all = reasons::Reasons::all();
    assert_eq!(all.reasons.len(), Reason::ALL.len() + Why::ALL.len());
    for reason in &all.reasons {
        let one = reasons::Reasons::named(&reason.name).unwrap_or_else(|| panic!("{reason:?}"));
        assert!(one.reasons.contains(reason), "{reason:?}");
        assert!(one.render(Style::default()).contains(reason.text), "{reason:?}");
    }
    assert_eq!(reasons::Reasons::named("no-such-reason"), None);
    assert_golden(
        "reasons.txt",
        &all.render(Style {
            width: Some(100),
            color: false,
        }),
    );
}
