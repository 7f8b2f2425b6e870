//! Rows of the table of kinds of networks (docs/networks.md) that are about two hosts and have no tests elsewhere: flannel's backend
//! `host-gw`, a VXLAN bridge with a container that moves, macvlan.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::{Duration, Instant},
};

use netfast::apply::read::Tables;
use netfast_common::reason::FAST;
use netfast_tests::{
    cmd,
    hosts::{BRIDGE, Hosts, Kind},
    netfast_proc::{NetfastProc, Options},
    netns::{NetNs, NsHandle, veth_pair},
    require::{Need, needs},
};

use super::{
    lab::{Echo, TIMEOUT, arrives_whole, ask, at, connect, udp, until_answered, until_silent},
    transfer,
};

const SOON: Duration = Duration::from_millis(2500);
/// The address of a container that moves.
const MOVER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 77);

fn netfast(ns: &NetNs) -> NetfastProc {
    let options = Options {
        config: Some("learn_after = 0\ntunnels = true\n".into()),
        ..Options::no_runtime()
    };
    NetfastProc::start(ns, options).expect("netfast starts")
}

fn fast(netfast: &NetfastProc) -> u64 {
    let tables = Tables::open(netfast.pin_dir()).expect("the maps are pinned");
    tables.reasons().expect("the counts")[FAST as usize].packets
}

/// TCP both ways at once, datagrams, pings: all of it exact.
fn carries(near: &NsHandle, far: &NsHandle, ip: Ipv4Addr) {
    transfer::bulk(near, at(ip, 7001), far, 7001);
    transfer::datagrams(near, at(ip, 7001), far, 7001, 5000);
    let ping = near
        .sh(&format!("busybox ping -c20 -i0.05 -W5 {ip}"))
        .expect("an answer");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
}

/// Both ends hear of the other's close, after data both ways.
fn closes(near: &NsHandle, far: &NsHandle, ip: Ipv4Addr) {
    let (mut client, mut server) = connect(near, at(ip, 7003), far, 7003);
    let data = vec![7; 1 << 20];
    arrives_whole(&mut client, &mut server, &data);
    arrives_whole(&mut server, &mut client, &data);
    let ends = |one: &mut TcpStream, other: &mut TcpStream| {
        one.shutdown(Shutdown::Write).expect("closed");
        assert_eq!(other.read(&mut [0]).expect("the end"), 0);
    };
    ends(&mut client, &mut server);
    server.write_all(b"x").expect("it may still be sent to");
    assert_eq!(client.read(&mut [0; 2]).expect("a byte"), 1);
    ends(&mut server, &mut client);
}

/// flannel without a tunnel: each host is the gateway to the other's pods.
#[test]
fn flannel_host_gw() {
    if !needs(&[Need::Root]) {
        return;
    }
    let hosts = Hosts::new(Kind::Gateway, "").expect("two hosts");
    for host in &hosts.hosts {
        host.add_rules_of_flannel().expect("rules");
        let ping = format!("busybox ping -c1 -W5 {}", host.container_ip);
        host.ns.sh(&ping).expect("the container answers");
    }
    let daemons = [netfast(&hosts.hosts[0].ns), netfast(&hosts.hosts[1].ns)];
    let [near, far] = [0, 1].map(|number: usize| hosts.hosts[number].container.handle());
    let ip = hosts.hosts[1].container_ip;
    carries(&near, &far, ip);
    closes(&near, &far, ip);
    let _echo = Echo::start(&far, 7002);
    let socket = udp(&near, 0, at(ip, 7002));
    let is_fast = || {
        cmd::poll("the fast path", TIMEOUT, || {
            let before = daemons.each_ref().map(fast);
            let answered = (0..50).all(|_| ask(&socket));
            let enough = |(netfast, before): (&NetfastProc, u64)| fast(netfast) >= before + 96;
            (answered && daemons.iter().zip(before).all(enough)).then_some(())
        })
        .expect("both hosts repeat");
    };
    is_fast();
    // A rule holds, and the way is free again without it.
    let rule = "FORWARD -p udp --dport 7002 -j DROP";
    hosts.hosts[0].ns.sh(&format!("iptables -w -I {rule}")).expect("a rule");
    let since = Instant::now();
    until_silent(&socket, "silence");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    hosts.hosts[0]
        .ns
        .sh(&format!("iptables -w -D {rule}"))
        .expect("no rule");
    until_answered(&socket, "an answer");
    is_fast();
    // The link between the hosts takes less all of a sudden: the kernel says so, and nothing is lost.
    let (mut client, mut server) = connect(&near, at(ip, 7004), &far, 7004);
    let data = vec![9; 4 << 20];
    arrives_whole(&mut client, &mut server, &data);
    for host in &hosts.hosts {
        host.ns.ip("link set eth0 mtu 1300").expect("a smaller MTU");
    }
    arrives_whole(&mut client, &mut server, &data);
    arrives_whole(&mut server, &mut client, &data);
}

/// A container with an address of the network, on the bridge of a host.
fn put(host: &NetNs, veth: &str) -> NetNs {
    let ns = NetNs::new("mover").expect("a namespace");
    veth_pair((host, veth), (&ns, "eth0")).expect("a veth pair");
    host.ip(&format!("link set {veth} mtu 1450 master {BRIDGE} up"))
        .expect("a port");
    ns.ip("link set eth0 mtu 1450 up").expect("it is up");
    ns.ip(&format!("addr add {MOVER}/24 dev eth0")).expect("an address");
    announce(&ns);
    ns
}

/// As engines do for a container that begins: whoever knows the address by another MAC address hears of it.
fn announce(ns: &NetNs) {
    ns.sh(&format!("busybox arping -U -c2 -I eth0 {MOVER} || true"))
        .expect("told");
}

/// The container of a conversation is gone, and another one with its address is on the other host.
#[test]
fn a_container_that_moves_across_a_vxlan_bridge() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let hosts = Hosts::new(Kind::Bridged, "noudpcsum").expect("two hosts");
    let daemons = [netfast(&hosts.hosts[0].ns), netfast(&hosts.hosts[1].ns)];
    let near = hosts.hosts[0].container.handle();
    let mut last = None;
    for number in [1, 0, 1] {
        drop(last.take());
        let moved = put(&hosts.hosts[number].ns, &format!("mover{number}"));
        moves(&near, &moved);
        carries(&near, &moved, MOVER);
        closes(&near, &moved, MOVER);
        last = Some(moved);
    }
    assert!(daemons.iter().all(|netfast| fast(netfast) > 1000));
}

/// Who is at the address now answers.
fn moves(near: &NsHandle, moved: &NetNs) {
    let _echo = Echo::start(moved, 7002);
    let socket = udp(near, 0, at(MOVER, 7002));
    until_answered(&socket, "an answer of who has moved");
}

/// A macvlan device of a host's network card in a container.
fn macvlan(host: &NetNs, ip: Ipv4Addr) -> NetNs {
    let ns = NetNs::new("macvlan").expect("a namespace");
    host.ip(&format!(
        "link add link eth0 name eth0 netns {} type macvlan mode bridge",
        ns.name()
    ))
    .expect("a macvlan device");
    ns.ip("link set eth0 up").expect("it is up");
    ns.ip(&format!("addr add {ip}/24 dev eth0")).expect("an address");
    ns
}

/// Containers of macvlan networks of two hosts: what they send each other is as without netfast, which has nothing of it on the fast path.
#[test]
fn macvlan_across_two_hosts() {
    if !needs(&[Need::Root]) {
        return;
    }
    let hosts = ["host0", "host1"].map(|name| NetNs::new(name).expect("a namespace"));
    veth_pair((&hosts[0], "eth0"), (&hosts[1], "eth0")).expect("a wire");
    for (number, host) in hosts.iter().enumerate() {
        host.ip("link set eth0 up").expect("it is up");
        host.ip(&format!("addr add 10.244.0.{}/24 dev eth0", 1 + number))
            .expect("an address");
    }
    let near = macvlan(&hosts[0], Ipv4Addr::new(10, 244, 0, 11));
    let daemons = hosts.each_ref().map(netfast);
    let mut last = None;
    for number in [1, 0, 1] {
        drop(last.take());
        let moved = macvlan(&hosts[number], MOVER);
        announce(&moved);
        moves(&near, &moved);
        carries(&near, &moved, MOVER);
        closes(&near, &moved, MOVER);
        last = Some(moved);
    }
    assert_eq!(daemons.each_ref().map(fast), [0, 0]);
}
