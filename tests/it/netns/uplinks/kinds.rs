//! Each kind of uplink carries the same conversations, exact, as fast as a plain one or with a reason.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo,
};

use super::{
    super::{
        lab::{Echo, ask, at, topology, udp, until_answered, until_silent, warm},
        paths, transfer,
    },
    world::{Kind, World},
};

/// Within this time of a change the kernel's new decision holds: the promise is a second, and the rest is for the machine.
pub(super) const SOON: Duration = Duration::from_millis(2500);

/// TCP both ways at once and datagrams: exact, and on the fast path or wholly on the slow one.
fn both(world: &World, is_fast: bool, client: &NsHandle, to: SocketAddr, server: &NsHandle) {
    if is_fast {
        return paths::both(&world.lab, client, to, server, 7001);
    }
    let before = world.lab.fast();
    transfer::bulk(client, to, server, 7001);
    transfer::datagrams(client, to, server, 7001, 5000);
    assert_eq!(world.lab.fast(), before, "{}", world.lab.told());
}

/// Everything that an uplink is for.
pub(super) fn carries(world: &World, is_fast: bool) {
    let a = world.lab.topo.container(0, 0);
    both(world, is_fast, &a.ns, at(LAN_IP, 7001), world.lan());
    both(world, is_fast, world.lan(), at(HOST_IP, 7000), &a.ns);
    for (ns, to) in [(&*a.ns, LAN_IP), (world.lan(), HOST_IP)] {
        ns.sh(&format!("busybox ping -c2 -W5 {to}")).expect("an echo");
    }
    obeys(world, is_fast);
}

/// A new rule holds for a conversation that is on its way.
fn obeys(world: &World, is_fast: bool) {
    let _echo = Echo::start(world.lan(), 7002);
    let socket = udp(&world.lab.topo.container(0, 0).ns, 0, at(LAN_IP, 7002));
    until_answered(&socket, "the first answer");
    if is_fast {
        warm(&world.lab, &socket);
    }
    let rule = format!("DOCKER-USER -d {LAN_IP} -j DROP");
    world.lab.topo.iptables(&format!("-I {rule}")).expect("a rule");
    let since = Instant::now();
    until_silent(&socket, "silence");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    world.lab.topo.iptables(&format!("-D {rule}")).expect("no rule");
    until_answered(&socket, "an answer");
}

/// It is an uplink, and the reports say so.
pub(super) fn is_said_to_be_one(world: &World) {
    let (check, name) = (world.check(), world.kind.uplink());
    let mut lines = check.lines();
    let is_it = |line: &str| line.contains("uplinks") && line.contains(name);
    assert!(lines.any(is_it), "{check}");
    assert!(!check.contains("is no uplink"), "{check}");
    let explained = world.explain();
    assert!(explained.contains(&format!("way out ({name})")), "{explained}");
    assert!(explained.contains("netfast is attached to"), "{explained}");
}

/// It is none, and the reports say why.
pub(super) fn is_said_to_be_none(world: &World, why: &str) {
    for text in [world.check(), world.explain()] {
        let mut lines = text.lines();
        let is_it = |line: &str| line.contains(world.kind.uplink()) && line.contains(why);
        assert!(lines.any(is_it), "{text}");
    }
}

/// A kind that is as fast as a plain one.
pub(super) fn fast(kind: Kind, options: &topo::Options) {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::with(kind, options, None);
    is_said_to_be_one(&world);
    carries(&world, true);
}

/// Engines since 27.3 leave it so.
pub(super) fn without_br_netfilter() -> topo::Options {
    topo::Options {
        br_netfilter: false,
        ..topology()
    }
}

#[test]
fn a_bridge() {
    fast(Kind::Bridge, &without_br_netfilter());
}

/// What comes in has been translated within the bridge, before the bridge device.
#[test]
fn a_bridge_under_br_netfilter() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::start(Kind::Bridge);
    carries(&world, false);
    is_said_to_be_none(&world, "bridge-nf-call-iptables");
}

/// As in a machine that is a container itself. It is named.
#[test]
fn a_bridge_whose_port_is_a_veth() {
    if !needs(&[Need::Root]) {
        return;
    }
    let config = Some("uplinks = [\"br0\"]\n");
    let world = World::with(Kind::VethBridge, &without_br_netfilter(), config);
    is_said_to_be_one(&world);
    carries(&world, true);
}

#[test]
fn a_tun_device() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::start(Kind::Tun);
    carries(&world, false);
    is_said_to_be_none(&world, "no Ethernet header");
}

/// What the host's rules have tracked is nothing to the container's own: they translate what they would without netfast.
#[test]
fn rules_in_the_container_see_what_comes_by_a_bridge() {
    if !needs(&[Need::Root]) {
        return;
    }
    for br_netfilter in [false, true] {
        let options = topo::Options {
            iptables: false,
            published: Vec::new(),
            br_netfilter,
            ..topology()
        };
        let world = World::with(Kind::Bridge, &options, None);
        let (a, host) = (world.lab.topo.container(0, 0), world.host());
        // So that conntrack works in the host.
        host.sh("iptables -w -A FORWARD -m conntrack --ctstate INVALID -j DROP")
            .expect("a rule");
        let route = format!("route add 172.30.0.0/24 via {HOST_IP}");
        world.lan().ip(&route).expect("a route");
        let redirect = "iptables -w -t nat -A PREROUTING -p udp --dport 7001 -j REDIRECT --to-ports 7099";
        a.ns.sh(redirect).expect("a rule");
        let _echo = Echo::start(&a.ns, 7099);
        let socket = udp(world.lan(), 0, at(a.ip, 7001));
        until_answered(&socket, "the first answer");
        if br_netfilter {
            // The daemon hears of the rule's chain.
            thread::sleep(Duration::from_secs(1));
        } else {
            warm(&world.lab, &socket);
        }
        let before = world.lab.fast();
        assert!((0..500).all(|_| ask(&socket)), "{}", world.lab.told());
        let fast = world.lab.fast() - before;
        assert!(
            if br_netfilter { fast == 0 } else { fast > 500 },
            "{fast} fast; {}",
            world.lab.told()
        );
    }
}
