//! Ports of a bridge that are no containers: ways off the host, other bridges, tunnels.

use std::{net::Ipv4Addr, time::Instant};

use netfast_tests::{
    site::{HOST_IP, LAN_IP},
    topo::{self, Topo},
};

use super::{
    super::{
        lab::{Echo, Lab, ask, at, udp, until_answered, until_silent, warm},
        paths, transfer,
    },
    switch::{self, BRIDGE, Switch, World, is_there},
};

/// A station at the other end of a tunnel or a cable.
const FAR: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);

/// Two bridges joined by patch ports are one datapath.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn patch_ports() {
    if !is_there() {
        return;
    }
    let world = World::with(None, |topo, switch| {
        let veth = &topo.container(0, 1).veth;
        for line in [
            "add-br ovs1",
            &format!("add-port {BRIDGE} to1 -- set interface to1 type=patch options:peer=to0"),
            "add-port ovs1 to0 -- set interface to0 type=patch options:peer=to1",
            &format!("del-port {veth}"),
            &format!("add-port ovs1 {veth}"),
        ] {
            switch.vsctl(topo.host(), line);
        }
    });
    let (a, b) = (world.lab.topo.container(0, 0), world.lab.topo.container(0, 1));
    paths::both(&world.lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
}

/// The host's network card as a port: what a bridge for containers on the LAN has.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn a_way_off_the_host() {
    if !is_there() {
        return;
    }
    let (topo, switch) = switch::host(2);
    topo.host().ip("addr flush dev eth0").expect("no address");
    switch.vsctl(topo.host(), &format!("add-port {BRIDGE} eth0"));
    topo.lan()
        .ip(&format!("addr add {FAR}/24 dev eth0"))
        .expect("an address");
    let lab = Lab::around(topo, Some("uplinks = [\"eth0\"]\n"));
    let (a, lan) = (lab.topo.container(0, 0), lab.topo.lan());
    a.ns.sh(&format!("busybox ping -c1 -W5 {FAR}")).expect("an echo");
    paths::both(&lab, &a.ns, at(FAR, 7001), lan, 7001);
    paths::both(&lab, lan, at(a.ip, 7001), &a.ns, 7001);
    drop(switch);
}

/// A tunnel's port is told its other end with each packet: all is as without netfast, and the reason is told.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn a_tunnel() {
    if !is_there() {
        return;
    }
    let (topo, switch) = switch::host(2);
    let line =
        format!("add-port {BRIDGE} vx0 -- set interface vx0 type=vxlan options:remote_ip={LAN_IP} options:key=42");
    switch.vsctl(topo.host(), &line);
    let lan = topo.lan();
    lan.ip(&format!(
        "link add vxlan0 mtu 1450 type vxlan id 42 dstport 4789 remote {HOST_IP} dev eth0"
    ))
    .expect("a tunnel");
    lan.ip(&format!("addr add {FAR}/24 dev vxlan0")).expect("an address");
    lan.ip("link set vxlan0 up").expect("it is up");
    for container in &topo.bridges[0].containers {
        container.ns.ip("link set eth0 mtu 1450").expect("an MTU");
    }
    let lab = Lab::around(topo, Some("tunnels = true\n"));
    let (a, lan) = (lab.topo.container(0, 0), lab.topo.lan());
    a.ns.sh(&format!("busybox ping -c1 -W5 {FAR}")).expect("an echo");
    let before = lab.fast();
    transfer::bulk(&a.ns, at(FAR, 7001), lan, 7001);
    transfer::datagrams(&a.ns, at(FAR, 7001), lan, 7001, 2000);
    assert_eq!(lab.fast(), before, "{}", lab.told());
    let networks = lab.netfast.verb(&["networks"]).expect("a report");
    assert!(networks.contains("its ends come with each packet"), "{networks}");
    // And what stays on the bridge goes fast.
    let b = lab.topo.container(0, 1);
    paths::both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
    drop(switch);
}

/// weave's: its bridge with the containers, joined by a veth pair with a datapath that has a tunnel to each other host. What the pair leads
/// to is fast up to it and from it on, and the datapath decides about each packet.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn weave() {
    if !is_there() {
        return;
    }
    let options = topo::Options {
        bridges: vec![2],
        iptables: false,
        published: Vec::new(),
        br_netfilter: false,
    };
    let topo = Topo::new(&options).expect("a topology");
    let (host, lan) = (topo.host(), topo.lan());
    let switch = Switch::start(host);
    for line in [
        "link set br-0 down",
        "link set br-0 name weave mtu 1376 up",
        "link add vethwe-bridge mtu 1376 type veth peer name vethwe-datapath mtu 1376",
        "link set vethwe-bridge master weave up",
        "link set vethwe-datapath up",
    ] {
        host.ip(line).expect("a part of it");
    }
    switch.vsctl(host, "add-br datapath");
    switch.vsctl(host, "add-port datapath vethwe-datapath");
    let tunnel = "type=vxlan options:key=6784 options:dst_port=6784";
    switch.vsctl(
        host,
        &format!("add-port datapath vxlan-6784 -- set interface vxlan-6784 {tunnel} options:remote_ip={LAN_IP}"),
    );
    lan.ip(&format!(
        "link add vxlan-6784 mtu 1376 type vxlan id 6784 dstport 6784 remote {HOST_IP} dev eth0"
    ))
    .expect("a tunnel");
    lan.ip(&format!("addr add {FAR}/24 dev vxlan-6784"))
        .expect("an address");
    lan.ip("link set vxlan-6784 up").expect("it is up");
    for container in &topo.bridges[0].containers {
        container.ns.ip("link set eth0 mtu 1376").expect("an MTU");
        let ping = format!("busybox ping -c1 -W5 {FAR}");
        container.ns.sh(&ping).expect("the far container answers");
    }
    let lab = Lab::around(topo, None);
    let (a, b, lan) = (lab.topo.container(0, 0), lab.topo.container(0, 1), lab.topo.lan());
    for (client, to, server) in [(&*a.ns, FAR, &**lan), (lan, a.ip, &a.ns)] {
        transfer::bulk(client, at(to, 7001), server, 7001);
        transfer::datagrams(client, at(to, 7001), server, 7001, 2000);
    }
    let _echo = Echo::start(lan, 7002);
    let socket = udp(&a.ns, 0, at(FAR, 7002));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let before = lab.fast();
    assert!((0..500).all(|_| ask(&socket)), "{}", lab.told());
    assert!(lab.fast() > before + 950, "{} {}", lab.fast() - before, lab.told());
    paths::both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
    let since = Instant::now();
    switch.ofctl(
        lab.topo.host(),
        &format!("add-flow datapath priority=100,ip,nw_dst={FAR},actions=drop"),
    );
    until_silent(&socket, "silence");
    println!("silent after {:?}", since.elapsed());
    let networks = lab.netfast.verb(&["networks"]).expect("a report");
    assert!(networks.contains("weave"), "{networks}");
}
