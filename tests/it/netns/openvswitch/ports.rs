//! Ports of a bridge that are no containers: ways off the host, other bridges, tunnels.

use netfast_tests::site::LAN_IP;

use super::{
    super::{
        lab::{Lab, at},
        paths, transfer,
    },
    switch::{self, BRIDGE, World, is_there},
};

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
    topo.lan().ip("addr add 172.30.0.200/24 dev eth0").expect("an address");
    let lab = Lab::around(topo, Some("uplinks = [\"eth0\"]\n"));
    let (a, lan) = (lab.topo.container(0, 0), lab.topo.lan());
    let far = std::net::Ipv4Addr::new(172, 30, 0, 200);
    a.ns.sh(&format!("busybox ping -c1 -W5 {far}")).expect("an echo");
    paths::both(&lab, &a.ns, at(far, 7001), lan, 7001);
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
    let line = format!("add-port {BRIDGE} vx0 -- set interface vx0 type=vxlan options:remote_ip={LAN_IP} options:key=42");
    switch.vsctl(topo.host(), &line);
    let lan = topo.lan();
    lan.ip(&format!("link add vxlan0 mtu 1450 type vxlan id 42 dstport 4789 remote {} dev eth0", netfast_tests::site::HOST_IP))
        .expect("a tunnel");
    lan.ip("addr add 172.30.0.200/24 dev vxlan0").expect("an address");
    lan.ip("link set vxlan0 up").expect("it is up");
    for container in &topo.bridges[0].containers {
        container.ns.ip("link set eth0 mtu 1450").expect("an MTU");
    }
    let lab = Lab::around(topo, Some("tunnels = true\n"));
    let (a, lan) = (lab.topo.container(0, 0), lab.topo.lan());
    let far = std::net::Ipv4Addr::new(172, 30, 0, 200);
    a.ns.sh(&format!("busybox ping -c1 -W5 {far}")).expect("an echo");
    let before = lab.fast();
    transfer::bulk(&a.ns, at(far, 7001), lan, 7001);
    transfer::datagrams(&a.ns, at(far, 7001), lan, 7001, 2000);
    assert_eq!(lab.fast(), before, "{}", lab.told());
    let networks = lab.netfast.verb(&["networks"]).expect("a report");
    assert!(networks.contains("its ends come with each packet"), "{networks}");
    // And what stays on the bridge goes fast.
    let b = lab.topo.container(0, 1);
    paths::both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
    drop(switch);
}
