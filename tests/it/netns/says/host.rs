//! The host of all worlds, and how it becomes one of them and is a plain host again.

use std::{fs, thread, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::{NetNs, veth_pair},
    site::{HOST_IP, LAN_IP},
    topo::{self, Topo},
    worlds::{BRIDGES, Rules, Trait, World},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::super::lab::{Lab, TIMEOUT, introduce};

/// The host's ports that rules translate, and whose port 7001 is behind each.
pub const PUBLISHED: [(u16, (usize, usize)); 2] = [(7000, (0, 0)), (7002, (1, 0))];
/// The port of every server.
pub const PORT: u16 = 7001;
/// What is polled is polled once a second; a pass of the daemon comes after that.
const HEARD: Duration = Duration::from_millis(1300);

/// Starts netfast on the plain host. In the order of dropping: netfast before its namespace.
pub fn start() -> Lab {
    let topo = Topo::new(&topo::Options {
        bridges: BRIDGES.to_vec(),
        iptables: false,
        published: Vec::new(),
        br_netfilter: false,
    })
    .expect("a topology");
    // An uplink that nothing goes by.
    veth_pair((topo.host(), "spare0"), (topo.lan(), "spare0")).expect("another uplink");
    topo.host().ip("link set spare0 up").expect("it is up");
    topo.lan().ip("link set spare0 up").expect("it is up");
    introduce(&topo);
    let options = Options {
        config: Some("direct = true\n".to_owned()),
        ..Options::no_runtime()
    };
    let netfast = NetfastProc::start(topo.host(), options).expect("netfast starts");
    Lab { netfast, topo }
}

/// Makes it this world; what is done is undone by [`leave`].
pub fn enter(lab: &Lab, world: &World) {
    configure(lab, &config(world));
    for one in &world.traits {
        for (namespace, line) in doing(lab, *one) {
            let done = namespace.sh(&line);
            done.unwrap_or_else(|error| panic!("{one:?}: {error:#}"));
        }
    }
    settle(lab);
}

/// Makes it a plain host again.
pub fn leave(lab: &Lab, world: &World) {
    for one in world.traits.iter().rev() {
        for (namespace, line) in undoing(lab, *one) {
            let done = namespace.sh(&line);
            done.unwrap_or_else(|error| panic!("{one:?}, undone: {error:#}"));
        }
    }
    let host = lab.topo.host();
    host.sh("nft flush ruleset").expect("no rules");
    for ns in namespaces(&lab.topo) {
        // What was learned from a container with another address would be kept for a while.
        ns.sh("ip neigh flush all").expect("no neighbours");
    }
}

/// Waits until netfast must have heard of it.
fn settle(lab: &Lab) {
    thread::sleep(HEARD);
    cmd::poll("netfast is in sync", TIMEOUT, || {
        let status: serde_json::Value = lab.netfast.status().ok()?;
        (status["daemon"]["in_sync"] == true).then_some(())
    })
    .expect("in sync");
}

fn namespaces(topo: &Topo) -> impl Iterator<Item = &NetNs> {
    let containers = topo.bridges.iter().flat_map(|bridge| &bridge.containers);
    containers
        .map(|container| &container.ns)
        .chain([topo.host(), topo.lan()])
}

fn config(world: &World) -> String {
    let mut lines = vec![format!("learn_after = {}", world.learn_after)];
    for one in &world.traits {
        if let Trait::Disabled(bridge) = one {
            lines.push(format!("disabled_networks = [\"br-{bridge}\"]"));
        }
    }
    for (one, line) in [
        (Trait::OtherUplink, "uplinks = [\"spare0\"]"),
        (Trait::AccountingAllowed, "allow_accounting = true"),
        (Trait::LimitsAllowed, "allow_rate_rules = true"),
    ] {
        if world.has(one) {
            lines.push(line.into());
        }
    }
    lines.join("\n")
}

/// Puts a configuration in force.
fn configure(lab: &Lab, text: &str) {
    fs::write(lab.netfast.run_dir().join("netfast.toml"), text).expect("a configuration");
    let pid = lab.netfast.pid().expect("it runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a process")), Signal::SIGHUP).expect("it hears");
}

/// What is done, and where.
fn doing(lab: &Lab, one: Trait) -> Vec<(&NetNs, String)> {
    let host = lab.topo.host();
    let inside = |bridge, place| &lab.topo.container(bridge, place).ns;
    let veth = |bridge, place| lab.topo.container(bridge, place).veth.clone();
    let on_host = |lines: &[&str]| lines.iter().map(|line| (host, (*line).to_owned())).collect::<Vec<_>>();
    let forward = |rule: String| vec![(host, format!("iptables-nft -w -I FORWARD {rule}"))];
    match one {
        Trait::Rules(rules) => rules_of(host, rules),
        Trait::BrNetfilter => on_host(&["sysctl -qw net.bridge.bridge-nf-call-iptables=1"]),
        Trait::Internal(bridge) => [
            forward(format!("-i br-{bridge} ! -o br-{bridge} -j DROP")),
            forward(format!("! -i br-{bridge} -o br-{bridge} -j DROP")),
        ]
        .concat(),
        Trait::NoIcc(bridge) => forward(format!("-i br-{bridge} -o br-{bridge} -j DROP")),
        Trait::Raw(bridge) => vec![(
            host,
            format!("iptables-nft -w -t raw -I PREROUTING -i br-{bridge} -p udp -j DROP"),
        )],
        Trait::Limit(bridge) => forward(format!("-i br-{bridge} -m limit --limit 5/s")),
        Trait::LimitOut(bridge) => forward(format!("-i br-{bridge} -o eth0 -m limit --limit 5/s")),
        Trait::HostLimit => on_host(&["iptables-nft -w -I INPUT -m limit --limit 5/s"]),
        Trait::Ufw => on_host(&[
            "iptables-nft -w -N ufw",
            "iptables-nft -w -A ufw -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN",
            "iptables-nft -w -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-nft -w -A INPUT -m conntrack --ctstate INVALID -j ufw",
            "iptables-nft -w -A INPUT -m conntrack --ctstate INVALID -j DROP",
        ]),
        Trait::BridgeTable => {
            on_host(&["nft 'add table bridge t; add chain bridge t c { type filter hook forward priority 0; }'"])
        }
        Trait::BridgeDrop => on_host(&[
            "nft 'add table bridge d; add chain bridge d c { type filter hook forward priority 0; }'",
            "nft 'add rule bridge d c iifname \"veth0*\" oifname \"veth0*\" drop'",
        ]),
        Trait::FilterIn(bridge, place) => filter(host, &veth(bridge, place), "ingress"),
        Trait::FilterOut(bridge, place) => filter(host, &veth(bridge, place), "egress"),
        Trait::UplinkFilter => filter(host, "eth0", "ingress"),
        Trait::Shaped(bridge, place) => shaper(host, &veth(bridge, place)),
        Trait::BridgeShaped(bridge) => shaper(host, &format!("br-{bridge}")),
        Trait::UplinkDown => on_host(&["ip link set eth0 down"]),
        Trait::RouteBack => vec![(lab.topo.lan(), format!("ip route add 172.30.0.0/16 via {HOST_IP}"))],
        Trait::NoForward => on_host(&["sysctl -qw net.ipv4.ip_forward=0"]),
        Trait::Blackhole => vec![(host, format!("ip route add blackhole {LAN_IP}"))],
        Trait::Prohibited(bridge, place) => {
            let ip = lab.topo.container(bridge, place).ip;
            vec![(host, format!("ip rule add from {ip} prohibit"))]
        }
        Trait::NoDefault(bridge, place) => vec![(inside(bridge, place), "ip route del default || true".into())],
        Trait::Down(bridge, place) => vec![(inside(bridge, place), "ip link set eth0 down".into())],
        Trait::VethDown(bridge, place) => vec![(host, format!("ip link set {} down", veth(bridge, place)))],
        Trait::TwoMacs(bridge, place) => {
            let (mac, gateway) = (&lab.topo.container(bridge, place).mac, lab.topo.bridges[bridge].gateway);
            // Whether it is answered does not matter: it is heard.
            let change = |mac: &str| format!("ip link set eth0 address {mac}; busybox ping -c1 -W1 {gateway} || true");
            let ns = inside(bridge, place);
            vec![(ns, change("02:00:5e:00:00:99")), (ns, change(mac))]
        }
        Trait::Forgotten(bridge) => {
            let ports = (0..BRIDGES[bridge])
                .map(|place| format!("ip link set {} type bridge_slave fdb_flush", veth(bridge, place)));
            let neighbours = format!("ip neigh flush dev br-{bridge}");
            ports.chain([neighbours]).map(|line| (host, line)).collect()
        }
        Trait::TwoAddresses(bridge, place) => {
            let more = format!("172.30.{bridge}.{}", 100 + place);
            vec![
                (inside(bridge, place), format!("ip addr add {more}/24 dev eth0")),
                (host, format!("busybox ping -c1 -W1 {more} || true")),
            ]
        }
        Trait::Mtu(bridge, place, mtu) => mtus(lab, (bridge, place), mtu),
        Trait::Isolated => on_host(&[
            "ip link set veth0x0 type bridge_slave isolated on",
            "ip link set veth0x1 type bridge_slave isolated on",
        ]),
        Trait::Strict => on_host(&["sysctl -qw net.ipv4.conf.all.rp_filter=1"]),
        Trait::Accounting | Trait::AccountingAllowed => on_host(&["sysctl -qw net.netfilter.nf_conntrack_acct=1"]),
        Trait::OtherUplink | Trait::Disabled(_) | Trait::LimitsAllowed => Vec::new(),
    }
}

/// What undoes it; rules are all taken away at once.
fn undoing(lab: &Lab, one: Trait) -> Vec<(&NetNs, String)> {
    let host = lab.topo.host();
    let inside = |bridge, place| &lab.topo.container(bridge, place).ns;
    let veth = |bridge, place| lab.topo.container(bridge, place).veth.clone();
    let default = |bridge: usize| format!("ip route replace default via {}", lab.topo.bridges[bridge].gateway);
    let one_line = |line: String| vec![(host, line)];
    match one {
        Trait::BrNetfilter => one_line("sysctl -qw net.bridge.bridge-nf-call-iptables=0".into()),
        Trait::FilterIn(bridge, place) | Trait::FilterOut(bridge, place) => {
            one_line(format!("tc qdisc del dev {} clsact", veth(bridge, place)))
        }
        Trait::UplinkFilter => one_line("tc qdisc del dev eth0 clsact".into()),
        Trait::Shaped(bridge, place) => one_line(format!("tc qdisc del dev {} root", veth(bridge, place))),
        Trait::BridgeShaped(bridge) => one_line(format!("tc qdisc del dev br-{bridge} root")),
        Trait::UplinkDown => one_line(format!("ip link set eth0 up && ip route replace default via {LAN_IP}")),
        Trait::RouteBack => vec![(lab.topo.lan(), "ip route del 172.30.0.0/16".into())],
        Trait::NoForward => one_line("sysctl -qw net.ipv4.ip_forward=1".into()),
        Trait::Blackhole => one_line(format!("ip route del blackhole {LAN_IP}")),
        Trait::Prohibited(bridge, place) => one_line(format!(
            "ip rule del from {} prohibit",
            lab.topo.container(bridge, place).ip
        )),
        Trait::NoDefault(bridge, place) => vec![(inside(bridge, place), default(bridge))],
        Trait::Down(bridge, place) => {
            vec![(
                inside(bridge, place),
                format!("ip link set eth0 up && {}", default(bridge)),
            )]
        }
        Trait::VethDown(bridge, place) => one_line(format!("ip link set {} up", veth(bridge, place))),
        Trait::TwoMacs(bridge, place) => one_line(format!(
            "ip link set {} type bridge_slave fdb_flush",
            veth(bridge, place)
        )),
        Trait::TwoAddresses(bridge, place) => vec![(
            inside(bridge, place),
            format!("ip addr del 172.30.{bridge}.{}/24 dev eth0", 100 + place),
        )],
        Trait::Mtu(bridge, place, _) => mtus(lab, (bridge, place), 1500),
        Trait::Isolated => one_line(
            "ip link set veth0x0 type bridge_slave isolated off; ip link set veth0x1 type bridge_slave isolated off"
                .into(),
        ),
        Trait::Strict => one_line("sysctl -qw net.ipv4.conf.all.rp_filter=0".into()),
        Trait::Accounting | Trait::AccountingAllowed => one_line("sysctl -qw net.netfilter.nf_conntrack_acct=0".into()),
        Trait::Rules(_)
        | Trait::Internal(_)
        | Trait::NoIcc(_)
        | Trait::Raw(_)
        | Trait::Limit(_)
        | Trait::LimitOut(_)
        | Trait::HostLimit
        | Trait::Ufw
        | Trait::BridgeTable
        | Trait::BridgeDrop
        | Trait::OtherUplink
        | Trait::Disabled(_)
        | Trait::Forgotten(_)
        | Trait::LimitsAllowed => Vec::new(),
    }
}

fn mtus(lab: &Lab, (bridge, place): (usize, usize), mtu: u16) -> Vec<(&NetNs, String)> {
    let container = lab.topo.container(bridge, place);
    vec![
        (lab.topo.host(), format!("ip link set {} mtu {mtu}", container.veth)),
        (&container.ns, format!("ip link set eth0 mtu {mtu}")),
    ]
}

/// A filter that passes everything on.
fn filter<'a>(host: &'a NetNs, device: &str, hook: &str) -> Vec<(&'a NetNs, String)> {
    let line = format!(
        "tc qdisc add dev {device} clsact &&
         tc filter add dev {device} {hook} bpf da bytecode '1,6 0 0 4294967295,'"
    );
    vec![(host, line)]
}

fn shaper<'a>(host: &'a NetNs, device: &str) -> Vec<(&'a NetNs, String)> {
    let line = format!("tc qdisc replace dev {device} root handle 7: tbf rate 1gbit burst 1mb latency 50ms");
    vec![(host, line)]
}

/// All rules of a kind at once.
fn rules_of(host: &NetNs, rules: Rules) -> Vec<(&NetNs, String)> {
    if rules == Rules::None {
        return Vec::new();
    }
    if rules == Rules::Open {
        let table = "nft 'add table ip open; add chain ip open c { type filter hook forward priority 0; }'";
        return vec![(host, table.into())];
    }
    let mut filter = vec![
        "*filter".to_owned(),
        ":FORWARD DROP".into(),
        ":DOCKER -".into(),
        ":STAGE-1 -".into(),
        ":STAGE-2 -".into(),
        "-A FORWARD -j STAGE-1".into(),
    ];
    let mut nat = vec![
        "*nat".to_owned(),
        ":DOCKER -".into(),
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".into(),
        "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER".into(),
    ];
    for bridge in 0..BRIDGES.len() {
        let name = format!("br-{bridge}");
        filter.extend([
            format!("-A FORWARD -o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            format!("-A FORWARD -o {name} -j DOCKER"),
            format!("-A FORWARD -i {name} ! -o {name} -j ACCEPT"),
            format!("-A FORWARD -i {name} -o {name} -j ACCEPT"),
            format!("-A STAGE-1 -i {name} ! -o {name} -j STAGE-2"),
            format!("-A STAGE-2 -o {name} -j DROP"),
        ]);
        if rules == Rules::Engine {
            nat.push(format!(
                "-A POSTROUTING -s 172.30.{bridge}.0/24 ! -o {name} -j MASQUERADE"
            ));
        }
    }
    for (port, (bridge, place)) in PUBLISHED {
        let ip = format!("172.30.{bridge}.{}", place + 2);
        for protocol in ["tcp", "udp"] {
            nat.push(format!(
                "-A DOCKER ! -i br-{bridge} -p {protocol} --dport {port} -j DNAT --to {ip}:{PORT}"
            ));
            filter.push(format!(
                "-A DOCKER -d {ip} ! -i br-{bridge} -o br-{bridge} -p {protocol} --dport {PORT} -j ACCEPT"
            ));
        }
    }
    let end = || vec!["COMMIT".to_owned()];
    let lines = [filter, end(), nat, end()].concat().join("\n");
    vec![(host, format!("iptables-nft-restore -w <<'END'\n{lines}\nEND"))]
}
