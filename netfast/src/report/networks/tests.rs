use super::*;
use crate::report::{
    golden::{assert_golden, assert_golden_json},
    tunnels::{
        self,
        tests::{planned, told},
    },
};

fn example() -> Networks {
    let slow = || {
        PathState::slow(
            "host-network",
            "shares the host's own namespace: there is no path to shorten",
        )
    };
    let endpoint = |container: &str, last: u8, path| Endpoint {
        container_id: "c0ffee".repeat(10),
        container: container.into(),
        interface: Some("eth0".into()),
        addresses: vec![format!("172.18.5.{last}/16")],
        mac: Some(format!("02:42:ac:12:05:{last:02x}")),
        veth: Some(format!("veth1a2b3{last:02x}")),
        ifindex: Some(10 + u32::from(last)),
        direct: (last == 2).then(|| PathState::slow("not-heard", "br-6f1e5a0b9c8d has no entry of it")),
        path,
    };
    Networks {
        notes: Vec::new(),
        tunnels: Vec::new(),
        xdp: Vec::new(),
        networks: vec![
            Network {
                id: "6f1e5a0b9c8d".repeat(5),
                name: "backend".into(),
                driver: "bridge".into(),
                scope: "local".into(),
                internal: true,
                pools: vec![Pool {
                    subnet: Some("172.18.0.0/16".into()),
                    ip_range: Some("172.18.5.0/24".into()),
                    gateway: Some("172.18.0.1".into()),
                }],
                bridge: Some("br-6f1e5a0b9c8d".into()),
                parent: None,
                bridge_ifindex: Some(5),
                path: PathState::fast(),
                host: PathState::slow("rate-rules", "a packet-filter rule must see every packet"),
                ipv6: PathState::fast(),
                direct: Some(PathState::fast()),
                localhost: Vec::new(),
                resolvers: vec![
                    ResolverReport {
                        container: "db".into(),
                        networks: vec!["backend".into()],
                        on: true,
                        why: None,
                    },
                    ResolverReport {
                        container: "proxy".into(),
                        networks: vec!["backend".into()],
                        on: false,
                        why: Some("there is the nftables table inet mesh".into()),
                    },
                ],
                segments: Some("up to 128 KiB".into()),
                endpoints: vec![
                    endpoint("web", 2, PathState::fast()),
                    endpoint(
                        "database",
                        3,
                        PathState::slow("no-mac", "its MAC address is not known yet"),
                    ),
                ],
            },
            Network {
                id: "0a1b2c3d4e5f".repeat(5),
                name: "host".into(),
                driver: "host".into(),
                scope: "local".into(),
                path: slow(),
                host: slow(),
                ipv6: slow(),
                endpoints: vec![Endpoint {
                    container: "monitor".into(),
                    path: slow(),
                    ..Endpoint::default()
                }],
                ..Network::default()
            },
            Network {
                id: "5c4d3e2f1a0b".repeat(5),
                name: "lan".into(),
                driver: "macvlan".into(),
                scope: "local".into(),
                pools: vec![Pool {
                    subnet: Some("192.168.1.0/24".into()),
                    ip_range: Some("192.168.1.192/27".into()),
                    gateway: Some("192.168.1.1".into()),
                }],
                parent: Some("eth0".into()),
                path: PathState::slow("macvlan", "macvlan: the packets do not pass the host's stack"),
                ..Network::default()
            },
        ],
    }
}

#[test]
fn list() {
    assert_golden("networks.txt", &example().render_list(Style::default()));
}

#[test]
fn details() {
    assert_golden("networks-details.txt", &example().render_details(Style::default()));
    assert_golden_json("networks.json", &example());
}

#[test]
fn of_uplinks_it_is_said_whether_they_have_xdp() {
    let report = |name: &str, why: Option<&str>| XdpReport {
        ifindex: 2,
        name: name.into(),
        why: why.map(Into::into),
    };
    let with = example().with_xdp(&[report("eth0", None), report("eth1", Some("its MTU is 9000"))]);
    let text = with.render_list(Style::default());
    let lines = "\nXDP at eth0: on\nXDP at eth1: off: its MTU is 9000\n";
    assert!(text.ends_with(lines), "{text}");
    assert!(with.render_details(Style::default()).ends_with(lines));
    assert!(!example().render_list(Style::default()).contains("XDP"));
}

#[test]
fn tunnels_are_a_line_each_below_the_networks() {
    let with = example().with_tunnels(tunnels::gather(&planned(), &told()));
    let lines = "\nTunnel flannel.1 (VXLAN 700, UDP port 8472): outer headers are repeated.\nTunnel vxlan0 (VXLAN 800, UDP port 8472): the \
                 kernel writes each outer header: netfast is not attached to it yet.\n";
    for text in [
        with.render_list(Style::default()),
        with.clone().select("backend").render_details(Style::default()),
    ] {
        assert!(text.contains(lines), "{text}");
    }
}

#[test]
fn what_keeps_all_slow_is_told_first() {
    let of = |switches| Control {
        switches,
        ..Control::default()
    };
    let told = |switches| {
        let networks = example().under(of(switches), Some("a program listens on NFQUEUE 0"));
        let text = networks.render_list(Style::default());
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        told(0),
        "No flow is used at the moment: every packet takes the slow path."
    );
    assert_eq!(
        told(Control::USE),
        "No flow is learned at the moment: a program listens on NFQUEUE 0."
    );
    assert!(told(Control::USE | Control::LEARN).starts_with("NETWORK ID"));
}

/// Without a runtime networks have neither identifiers nor subnets, and nobody tells a driver's scope.
#[test]
fn without_a_runtime_no_column_is_blank() {
    let mut networks = example();
    for network in &mut networks.networks {
        (network.id, network.scope) = (String::new(), String::new());
        network.pools.clear();
    }
    let list = networks.render_list(Style::default());
    assert_eq!(
        list.lines().next(),
        Some("NAME     DRIVER   FAST/ALL  PATH  REASON"),
        "{list}"
    );
    assert!(list.contains("\nbackend  bridge        1/2  fast  "), "{list}");
    let details = networks.render_details(Style::default());
    assert!(!details.contains("scope"), "{details}");
    // No network at all has its headings.
    let none = Networks::default().render_list(Style::default());
    assert!(none.starts_with("NETWORK ID"), "{none}");
}

#[test]
fn a_name_goes_before_an_identifier() {
    let mut networks = example();
    networks.networks[1].name = "6f1e".into();
    let selected = networks.clone().select("6f1e").networks;
    assert_eq!(selected.len(), 1);
    assert_eq!(selected[0].driver, "host");
    assert_eq!(networks.clone().select("6f1e5").networks[0].name, "backend");
    assert!(networks.select("nobody").networks.is_empty());
}
