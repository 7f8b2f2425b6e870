//! What changes under a flow's feet: containers, interfaces, MTUs, bridge ports.

use netfast_tests::{
    cmd,
    netns::{NetNs, veth_pair},
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo::Topo,
};

use super::lab::{
    Echo, Lab, TIMEOUT, arrives_whole, ask, at, connect, introduce, udp, until_answered, until_silent, warm,
};

/// Another container with this address and this MAC, on a new veth of the first bridge.
fn stand_in(topo: &Topo, ip: std::net::Ipv4Addr, mac: &str) -> NetNs {
    let ns = NetNs::new("standin").expect("a namespace");
    veth_pair((topo.host(), "vethnew"), (&ns, "eth0")).expect("a veth pair");
    topo.host().ip("link set vethnew master br-0 up").expect("a port");
    ns.ip(&format!("link set eth0 address {mac} up")).expect("a MAC");
    ns.ip(&format!("addr add {ip}/24 dev eth0")).expect("an address");
    ns.ip(&format!("route add default via {}", topo.bridges[0].gateway))
        .expect("a route");
    ns
}

/// A container goes, and another comes with its address and another MAC.
fn replaced(by_port: bool) {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let echo = Echo::start(&a.ns, 7001);
    let (from, to) = if by_port {
        (lab.topo.lan().handle(), at(HOST_IP, 7000))
    } else {
        (b.ns.handle(), at(a.ip, 7001))
    };
    let socket = udp(&from, 40_004, to);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    assert!(lab.flows_of(a.ip) > 0);

    lab.topo
        .host()
        .ip(&format!("link del {}", a.veth))
        .expect("its veth goes");
    drop(echo);
    assert!(!ask(&socket), "somebody answers for the container that is gone");
    cmd::poll("the end of its flows", TIMEOUT, || {
        (lab.flows_of(a.ip) == 0).then_some(())
    })
    .expect("flows go");

    let next = stand_in(&lab.topo, a.ip, "02:42:ac:1e:00:77");
    let _echo = Echo::start(&next, 7001);
    // As a container's start does: it announces itself.
    next.sh(&format!("busybox arping -U -c1 -I eth0 {} || true", a.ip))
        .expect("announced");
    b.ns.ip("neigh flush dev eth0").expect("forgotten");
    lab.topo.host().ip("neigh flush dev br-0").expect("forgotten");
    until_answered(&socket, "the new container's answer");
    lab.topo
        .host()
        .sh(&format!("busybox ping -c1 -W5 {}", a.ip))
        .expect("it is known");
    warm(&lab, &socket);
}

#[test]
fn container_replaced_by_another_with_its_address() {
    replaced(false);
}

#[test]
fn container_behind_a_published_port_replaced() {
    replaced(true);
}

#[test]
fn interface_down_and_up() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let _echo = Echo::start(&a.ns, 7001);
    let _other = Echo::start(lab.topo.lan(), 7002);
    let socket = udp(&b.ns, 40_005, at(a.ip, 7001));
    let outside = udp(&b.ns, 40_006, at(LAN_IP, 7002));
    for socket in [&socket, &outside] {
        until_answered(socket, "the first answer");
        warm(&lab, socket);
    }
    for device in [a.veth.as_str(), "br-0"] {
        lab.topo.host().ip(&format!("link set {device} down")).expect("down");
        until_silent(&socket, "silence while it is down");
        lab.topo.host().ip(&format!("link set {device} up")).expect("up");
        until_answered(&socket, "an answer when it is up again");
        introduce(&lab.topo);
        warm(&lab, &socket);
    }
    lab.topo.host().ip("link set eth0 down").expect("down");
    until_silent(&outside, "silence while the uplink is down");
    lab.topo.host().ip("link set eth0 up").expect("up");
    lab.topo
        .host()
        .ip(&format!("route replace default via {LAN_IP}"))
        .expect("a route");
    until_answered(&outside, "an answer when it is up again");
    warm(&lab, &outside);
}

#[test]
fn mtu_lowered_in_mid_connection() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let a = lab.topo.container(0, 0);
    let (mut near, mut far) = connect(&a.ns, at(LAN_IP, 7003), lab.topo.lan(), 7003);
    let data: Vec<u8> = (0..4_u32 << 20)
        .map(|at| u8::try_from(at % 253).expect("below 253"))
        .collect();
    for mtu in ["1500", "1000", "700"] {
        for ns in [lab.topo.host(), lab.topo.lan()] {
            ns.ip(&format!("link set eth0 mtu {mtu}")).expect("an MTU");
        }
        let before = lab.fast();
        arrives_whole(&mut near, &mut far, &data);
        assert!(lab.fast() > before, "nothing took the fast path with an MTU of {mtu}");
    }
}

/// The same container, MAC and address at another port of the bridge.
#[test]
fn bridge_port_changed() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let socket = udp(&b.ns, 40_007, at(a.ip, 7001));
    {
        let _echo = Echo::start(&a.ns, 7001);
        until_answered(&socket, "the first answer");
        warm(&lab, &socket);
    }
    // The old port stays up, and nobody is behind it any more who would answer.
    a.ns.ip("addr flush dev eth0").expect("no address");
    let next = stand_in(&lab.topo, a.ip, &a.mac);
    let _echo = Echo::start(&next, 7001);
    // What it says moves its MAC address to the new port.
    next.sh(&format!("busybox ping -c1 -W5 {}", lab.topo.bridges[0].gateway))
        .expect("it speaks");
    until_answered(&socket, "an answer from the new port");
    a.ns.ip("link set eth0 down").expect("the old one goes");
    warm(&lab, &socket);
}
