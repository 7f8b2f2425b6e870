//! What stops all packets of a flow: the kernel is asked again at once where the change is announced, within a second
//! where it is polled for. Here flows ask it by themselves so seldom that only the daemon can be the reason.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    require::{Need, needs},
    site::LAN_IP,
};

use super::{BOUND, Held, LOOK, SELDOM, SILENCE, UNWANTED, Undo, Way, held, last_answer, until_unjudged};
use crate::netns::lab::{Lab, TIMEOUT, topology, until_answered, warm};

/// `before` prepares the topology; `on` makes what stops the flow.
fn stopped(way: Way, before: impl FnOnce(&Lab), on: impl FnOnce(&Lab) -> Held) {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    before(&lab);
    let (_echo, socket) = way.open(&lab, 40_110);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let held = on(&lab);
    let last = last_answer(&socket, UNWANTED, Instant::now());
    assert!(last < BOUND, "{way:?}: answered for {last:?}\n{}", lab.netfast.log());
    drop(held);
    until_unjudged(&lab, &socket);
}

/// By a shell line in the host; A and B stand for the veths of the containers, and IP and MAC for the first one's.
fn stopped_by(way: Way, on: &str, off: &str) {
    stopped(
        way,
        |_| {},
        |lab| Box::new(held(lab, &named(lab, on), &named(lab, off))) as Held,
    );
}

fn named(lab: &Lab, line: &str) -> String {
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    line.replace("VETH_A", &a.veth)
        .replace("VETH_B", &b.veth)
        .replace("MAC_A", &a.mac)
        .replace("MAC_B", &b.mac)
        .replace("IP_A", &a.ip.to_string())
}

fn chain(hook: &str, device: &str, port: u16) -> String {
    format!(
        "nft 'add table netdev judge; add chain netdev judge c {{ type filter hook {hook} device \"{device}\" priority 0; }}
         add rule netdev judge c udp dport {port} drop'"
    )
}

const NO_CHAIN: &str = "nft delete table netdev judge";

#[test]
fn a_chain_on_ingress_of_the_veth() {
    stopped_by(Way::Bridge, &chain("ingress", "VETH_B", 7001), NO_CHAIN);
}

#[test]
fn a_chain_on_egress_of_the_veth() {
    stopped_by(Way::Bridge, &chain("egress", "VETH_A", 7001), NO_CHAIN);
}

#[test]
fn a_chain_on_egress_of_the_veth_of_the_host_s_packets() {
    stopped_by(Way::Host, &chain("egress", "VETH_A", 7001), NO_CHAIN);
}

#[test]
fn a_chain_on_ingress_of_the_bridge() {
    stopped_by(Way::Out, &chain("ingress", "br-0", 7002), NO_CHAIN);
}

#[test]
fn a_chain_on_egress_of_the_bridge() {
    stopped_by(Way::Published, &chain("egress", "br-0", 7001), NO_CHAIN);
}

#[test]
fn a_chain_on_ingress_of_the_uplink() {
    stopped_by(Way::Published, &chain("ingress", "eth0", 7000), NO_CHAIN);
}

#[test]
fn a_chain_on_egress_of_the_uplink() {
    stopped_by(Way::Out, &chain("egress", "eth0", 7002), NO_CHAIN);
}

/// All of its hooks are behind the way in.
#[test]
fn rules_in_the_container() {
    stopped(
        Way::Bridge,
        |_| {},
        |lab| {
            let ns = lab.topo.container(0, 0).ns.handle();
            ns.sh("iptables -w -A INPUT -p udp --dport 7001 -j DROP")
                .expect("a rule");
            Box::new(Undo(ns, "iptables -w -F INPUT".into())) as Held
        },
    );
}

#[test]
fn an_ipsec_policy() {
    let policy = |verb: &str| format!("ip xfrm policy {verb} src IP_A/32 dst {LAN_IP}/32 dir fwd");
    let add = format!("{} action block", policy("add"));
    stopped_by(Way::Out, &add, &policy("delete"));
}

#[test]
fn a_next_hop_that_becomes_a_black_hole() {
    let before = |lab: &Lab| {
        // Or the route would be announced with it, as if it had changed itself.
        let line = format!(
            "sysctl -qw net.ipv4.nexthop_compat_mode=0
             ip nexthop add id 7 dev eth0 && ip route add {LAN_IP}/32 nhid 7"
        );
        lab.topo.host().sh(&line).expect("a route by a next-hop object");
    };
    let on = |lab: &Lab| {
        let undo = "ip nexthop replace id 7 dev eth0";
        Box::new(held(lab, "ip nexthop replace id 7 blackhole", undo)) as Held
    };
    stopped(Way::Out, before, on);
}

#[test]
fn a_routing_rule() {
    stopped_by(
        Way::Out,
        "ip rule add from IP_A blackhole",
        "ip rule del from IP_A blackhole",
    );
}

#[test]
fn forwarding_switched_off() {
    let set = |value: u8| format!("sysctl -qw net.ipv4.ip_forward={value}");
    stopped_by(Way::Out, &set(0), &set(1));
}

#[test]
fn forwarding_switched_off_for_one_interface() {
    let set = |value: u8| format!("sysctl -qw net.ipv4.conf.br-0.forwarding={value}");
    stopped_by(Way::Out, &set(0), &set(1));
}

/// What is led past it would still arrive: the kernel asks whether the other end is up (`skb_do_redirect`,
/// net/core/filter.c). No answer would leave, so it is arrivals that count.
#[test]
fn a_veth_that_goes_down() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    let (echo, socket) = Way::Bridge.open(&lab, 40_111);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    drop(echo);
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7001));
    let server = cmd::poll("a port that the echo has left", TIMEOUT, || {
        lab.topo.container(0, 0).ns.handle().run(bind).expect("entered").ok()
    });
    let server = server.expect("a free port");
    let tick = Some(Duration::from_millis(10));
    server.set_read_timeout(tick).expect("an option");
    let arrives = || socket.send(&[UNWANTED]).is_ok() && server.recv(&mut [0; 64]).is_ok();
    assert!(arrives(), "it is up");
    let set = |how: &str| named(&lab, &format!("ip link set VETH_A {how}"));
    let held = held(&lab, &set("down"), &set("up"));
    let (begin, mut last) = (Instant::now(), Duration::ZERO);
    while begin.elapsed() < last.min(BOUND) + SILENCE {
        if arrives() {
            last = begin.elapsed();
        }
    }
    assert!(last < BOUND, "something arrives for {last:?}\n{}", lab.netfast.log());
    drop(held);
    cmd::poll("an arrival", TIMEOUT, || arrives().then_some(())).expect("it is up again");
}

/// From interfaces that are up to others that are, redirects lead past it.
#[test]
fn a_bridge_that_goes_down() {
    for way in [Way::Out, Way::Published] {
        stopped_by(way, "ip link set br-0 down", "ip link set br-0 up");
    }
}

/// Rules that nobody asked get a say: the kernel announces no switch of `br_netfilter`.
#[test]
fn bridged_packets_that_are_shown_to_iptables() {
    let before = |lab: &Lab| {
        let host = lab.topo.host();
        host.set_sysctl("net/bridge/bridge-nf-call-iptables", "0").expect("off");
        lab.topo
            .iptables("-I FORWARD -p udp --dport 7001 -j DROP")
            .expect("a rule");
        // Switched back within one look at the switches, nobody would have seen it off.
        thread::sleep(LOOK);
    };
    let on = |lab: &Lab| {
        let set = |value: u8| format!("sysctl -qw net.bridge.bridge-nf-call-iptables={value}");
        Box::new(held(lab, &set(1), &set(0))) as Held
    };
    stopped(Way::Bridge, before, on);
}

#[test]
fn isolated_ports() {
    let set = |value: &str| {
        format!("bridge link set dev VETH_A isolated {value}; bridge link set dev VETH_B isolated {value}")
    };
    stopped_by(Way::Bridge, &set("on"), &set("off"));
}

#[test]
fn a_port_in_another_state_of_the_spanning_tree() {
    stopped_by(
        Way::Bridge,
        "bridge link set dev VETH_A state 0",
        "bridge link set dev VETH_A state 3",
    );
}

#[test]
fn a_locked_port() {
    stopped_by(
        Way::Bridge,
        "bridge link set dev VETH_B locked on learning off; bridge fdb del MAC_B dev VETH_B master",
        "bridge link set dev VETH_B locked off learning on",
    );
}

#[test]
fn a_port_that_gets_nothing_for_unknown_stations() {
    let before = |lab: &Lab| {
        let line = named(
            lab,
            "bridge link set dev VETH_A flood off learning off; bridge fdb replace MAC_A dev VETH_A master static",
        );
        lab.topo
            .host()
            .sh(&line)
            .expect("a port that gets only what is for known stations");
    };
    let on = |lab: &Lab| {
        let forgotten = named(lab, "bridge fdb del MAC_A dev VETH_A master");
        let flooded = named(lab, "bridge link set dev VETH_A flood on learning on");
        Box::new(held(lab, &forgotten, &flooded)) as Held
    };
    stopped(Way::Bridge, before, on);
}

/// The bridge looks for the container behind its neighbour's port, and no frame leaves by the port that it came in by.
#[test]
fn a_static_entry_for_another_port() {
    stopped_by(
        Way::Bridge,
        "bridge fdb replace MAC_A dev VETH_B master static sticky",
        "bridge fdb del MAC_A dev VETH_B master",
    );
}

/// Where it is unknown, the bridge asks everybody.
#[test]
fn a_static_entry_for_a_station_that_was_forgotten() {
    stopped_by(
        Way::Bridge,
        "bridge fdb del MAC_A dev VETH_A master; bridge fdb add MAC_A dev VETH_B master static sticky",
        "bridge fdb del MAC_A dev VETH_B master",
    );
}
