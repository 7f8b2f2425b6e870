//! IPv6: data over every path, and whatever judges it goes on judging it.

use std::{
    net::Ipv6Addr,
    thread,
    time::{Duration, Instant},
};

use netfast_common::reason::Reason;
use netfast_tests::{
    require::{Need, needs},
    site::{HOST_IP6, LAN_IP6},
    topo::{self, Topo},
};

use super::{
    lab::{Echo, Lab, ask, at, topology, udp, until_answered, until_silent, warm},
    one_way::{await_fast, look, sink_at},
    paths::both,
};

/// Asks the kernel so seldom that only the daemon can have noticed.
pub(super) const SELDOM: &str = "revalidate_ms = 10000\n";

/// The address of a container, or with `None` of the host on that bridge.
pub(super) fn ip(bridge: usize, container: Option<usize>) -> Ipv6Addr {
    let number = |number: usize| u16::try_from(number).expect("few");
    let last = container.map_or(1, |index| number(index) + 2);
    Ipv6Addr::new(0xfd00, 0x30, number(bridge), 0, 0, 0, 0, last)
}

/// Two bridges, each with a network of IPv6, and these lines of `ip6tables`.
pub(super) fn lab(rules: &[&str], config: Option<&str>) -> Lab {
    let options = topo::Options {
        iptables: false,
        published: Vec::new(),
        ..topology()
    };
    let topo = Topo::new(&options).expect("a topology");
    let host = topo.host();
    host.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        .expect("forwarding");
    host.ip(&format!("-6 route add default via {LAN_IP6} dev eth0"))
        .expect("a route");
    for (number, bridge) in topo.bridges.iter().enumerate() {
        let gateway = ip(number, None);
        host.ip(&format!("-6 addr add {gateway}/64 dev {} nodad", bridge.name))
            .expect("an address");
        for (index, container) in bridge.containers.iter().enumerate() {
            let address = ip(number, Some(index));
            container
                .ns
                .ip(&format!("-6 addr add {address}/64 dev eth0 nodad"))
                .expect("an address");
            container
                .ns
                .ip(&format!("-6 route add default via {gateway}"))
                .expect("a route");
            // So that the host knows its MAC address.
            host.sh(&format!("busybox ping -6 -c1 -W5 {address}"))
                .expect("the container answers");
        }
    }
    for rule in rules {
        host.sh(&format!("ip6tables -w {rule}")).expect("a rule");
    }
    Lab::around(topo, config)
}

#[test]
fn same_bridge() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    both(&lab, &a.ns, at(ip(0, Some(1)), 7001), &b.ns, 7001);
}

#[test]
fn between_bridges() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], None);
    let (a, c) = (lab.topo.container(0, 0), lab.topo.container(1, 0));
    both(&lab, &a.ns, at(ip(1, Some(0)), 7001), &c.ns, 7001);
}

#[test]
fn masqueraded() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&["-t nat -A POSTROUTING -s fd00:30::/64 ! -o br-0 -j MASQUERADE"], None);
    both(
        &lab,
        &lab.topo.container(0, 0).ns,
        at(LAN_IP6, 7001),
        lab.topo.lan(),
        7001,
    );
}

#[test]
fn published() {
    if !needs(&[Need::Root]) {
        return;
    }
    let rules = ["tcp", "udp"].map(|protocol| {
        let to = ip(0, Some(0));
        format!("-t nat -A PREROUTING -i eth0 -p {protocol} --dport 7000 -j DNAT --to [{to}]:7001")
    });
    let lab = lab(&[&rules[0], &rules[1]], None);
    both(
        &lab,
        lab.topo.lan(),
        at(HOST_IP6, 7000),
        &lab.topo.container(0, 0).ns,
        7001,
    );
}

#[test]
fn host_to_container_and_back() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], None);
    let a = lab.topo.container(0, 0);
    both(&lab, lab.topo.host(), at(ip(0, Some(0)), 7001), &a.ns, 7001);
    both(&lab, &a.ns, at(ip(0, None), 7002), lab.topo.host(), 7002);
}

/// What is decided anew ends a flow at once, long before it asks.
#[test]
fn a_new_rule_of_ip6tables_counts() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], Some(SELDOM));
    let (a, c) = (lab.topo.container(0, 0), lab.topo.container(1, 0));
    let _echo = Echo::at(&c.ns, ip(1, Some(0)), 7001);
    let socket = udp(&a.ns, 40_000, at(ip(1, Some(0)), 7001));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let begin = Instant::now();
    lab.topo
        .host()
        .sh("ip6tables -w -I FORWARD -p udp -j DROP")
        .expect("a rule");
    until_silent(&socket, "a rule in mid-flow");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    lab.topo
        .host()
        .sh("ip6tables -w -D FORWARD -p udp -j DROP")
        .expect("a rule");
    until_answered(&socket, "an answer without the rule");
    warm(&lab, &socket);
}

/// A rule that must see every packet of IPv6 keeps its packets slow, and no others.
#[test]
fn a_rule_that_judges_ipv6_alone() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&["-A FORWARD -m limit --limit 1000/s -j ACCEPT"], None);
    let (a, c) = (lab.topo.container(0, 0), lab.topo.container(1, 0));
    let _echo = Echo::at(&c.ns, ip(1, Some(0)), 7001);
    let socket = udp(&a.ns, 40_000, at(ip(1, Some(0)), 7001));
    until_answered(&socket, "the first answer");
    let before = (lab.fast(), lab.count(Reason::Ipv6Off));
    let answered = (0..100).filter(|_| ask(&socket)).count();
    let after = (lab.fast(), lab.count(Reason::Ipv6Off));
    assert!(answered > 90, "{answered}");
    assert_eq!(after.0, before.0, "no packet is fast: {}", lab.told());
    assert!(after.1 >= before.1 + 180, "{before:?} {after:?}");
    let _echo4 = Echo::start(&c.ns, 7002);
    let socket4 = udp(&a.ns, 40_001, at(c.ip, 7002));
    until_answered(&socket4, "the first answer");
    warm(&lab, &socket4);
}

/// UDP that nobody answers is fast, unless a rule of `ip6tables` judges what is new.
#[test]
fn udp_that_nobody_answers() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], None);
    let (a, c) = (lab.topo.container(0, 0), lab.topo.container(1, 0));
    let to = at(ip(1, Some(0)), 7030);
    let at_c = sink_at(&c.ns, to);
    let from = udp(&a.ns, 0, to);
    await_fast(&lab, "between bridges", &from, &at_c);
    let rules = [
        "FORWARD -p udp --dport 7030 -m conntrack --ctstate NEW -j DROP",
        "FORWARD -p udp --dport 7030 -m conntrack --ctstate NEW -m limit --limit 1/hour --limit-burst 7 -j ACCEPT",
    ];
    let host = lab.topo.host();
    for rule in rules {
        host.sh(&format!("ip6tables -w -I {rule}")).expect("a rule");
    }
    thread::sleep(Duration::from_millis(1500));
    let (came, fast) = look(&lab, &from, &at_c);
    assert!(came <= 7, "{came} came");
    assert_eq!(fast, 0, "each packet must be judged; {}", lab.told());
    for rule in rules {
        host.sh(&format!("ip6tables -w -D {rule}")).expect("no rule");
    }
    await_fast(&lab, "without the rules", &from, &at_c);
}

/// Whatever the kernel decides otherwise from now on ends a flow within moments, long before it asks: where it is forwarded, and
/// within a bridge.
#[test]
fn what_changes_counts() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = lab(&[], Some(SELDOM));
    let (a, b, c) = (
        lab.topo.container(0, 0),
        lab.topo.container(0, 1),
        lab.topo.container(1, 0),
    );
    let (to_b, to_c) = (ip(0, Some(1)), ip(1, Some(0)));
    let _echoes = [Echo::at(&b.ns, to_b, 7001), Echo::at(&c.ns, to_c, 7001)];
    let host = lab.topo.host();
    let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
    for (what, to, on, off) in [
        (
            "forwarding switched off",
            to_c,
            format!("echo 0 > {forwarding}"),
            format!("echo 1 > {forwarding}"),
        ),
        (
            "a route that leads nowhere",
            to_c,
            format!("ip -6 route add blackhole {to_c}/128"),
            format!("ip -6 route del blackhole {to_c}/128"),
        ),
        (
            "a routing rule",
            to_c,
            format!("ip -6 rule add pref 100 to {to_c} blackhole"),
            format!("ip -6 rule del pref 100 to {to_c} blackhole"),
        ),
        (
            "a rule of nftables",
            to_c,
            "nft 'table ip6 t { chain c { type filter hook forward priority 0; meta l4proto udp drop; }; }'".into(),
            "nft delete table ip6 t".into(),
        ),
        (
            "a rule that sees what is bridged",
            to_b,
            "ip6tables -w -A FORWARD -p udp -j DROP".into(),
            "ip6tables -w -D FORWARD -p udp -j DROP".into(),
        ),
        (
            "bridged packets that are shown to ip6tables",
            to_b,
            format!("echo 0 > {bridged}; ip6tables -w -A FORWARD -p udp -j DROP; sleep 3; echo 1 > {bridged}"),
            "ip6tables -w -D FORWARD -p udp -j DROP".into(),
        ),
    ] {
        let socket = udp(&a.ns, 0, at(to, 7001));
        until_answered(&socket, what);
        warm(&lab, &socket);
        host.sh(&on).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let begin = Instant::now();
        until_silent(&socket, what);
        let took = begin.elapsed();
        assert!(
            took < Duration::from_secs(4),
            "{what}: passed by for {took:?}\n{}",
            lab.netfast.log()
        );
        host.sh(&off).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        until_answered(&socket, "an answer again");
        warm(&lab, &socket);
    }
}
