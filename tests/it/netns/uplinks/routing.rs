//! Two uplinks: packets leave where the kernel's rules say, now and after a change.

use std::net::{Ipv4Addr, UdpSocket};

use netfast_tests::{
    netns::veth_pair,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
};

use super::{
    super::{
        lab::{at, topology, udp},
        transfer,
    },
    changes::{Witness, goes_fast},
    world::{Kind, World},
};

/// The host's address on its other uplink, and the client's there.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const OTHER_LAN: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 100);
/// What is reached by both.
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A host with two uplinks, a server behind both, and a container's socket that asks it.
fn start() -> (World, Witness, UdpSocket) {
    let mut options = topology();
    options.published = Vec::new();
    let topo = netfast_tests::topo::Topo::new(&options).expect("a topology");
    veth_pair((topo.host(), "eth1"), (topo.lan(), "eth1")).expect("another uplink");
    for (ns, ip) in [(topo.host(), OTHER), (topo.lan(), OTHER_LAN)] {
        ns.ip("link set eth1 up").expect("up");
        ns.ip(&format!("addr add {ip}/24 dev eth1")).expect("an address");
        for device in ["all", "eth0", "eth1"] {
            ns.set_sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")
                .expect("a switch");
        }
    }
    topo.lan().ip(&format!("addr add {FAR}/32 dev lo")).expect("an address");
    topo.host()
        .ip(&format!("route add default via {OTHER_LAN} table 100"))
        .expect("a route");
    let world = World::around(Kind::Ethernet, topo);
    let witness = Witness::start(world.lan(), at(FAR, 7002));
    let socket = udp(&world.lab.topo.container(0, 0).ns, 40_011, at(FAR, 7002));
    witness.sees_soon(&socket, HOST_IP);
    goes_fast(&world, &witness, &socket);
    (world, witness, socket)
}

/// The default route moves, and comes back.
#[test]
fn the_default_route_moves() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, witness, socket) = start();
    for (gateway, source) in [(OTHER_LAN, OTHER), (LAN_IP, HOST_IP)] {
        world
            .host()
            .ip(&format!("route replace default via {gateway}"))
            .expect("a route");
        witness.sees_soon(&socket, source);
        goes_fast(&world, &witness, &socket);
    }
}

/// Rules by source, by the interface, by a mark, by the user: each moves what it is about, and nothing else.
#[test]
fn rules_of_routing() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, witness, socket) = start();
    let (a, b) = (world.lab.topo.container(0, 0), world.lab.topo.container(0, 1));
    let neighbour = udp(&b.ns, 40_012, at(FAR, 7002));
    witness.sees_soon(&neighbour, HOST_IP);
    world
        .lab
        .topo
        .iptables(&format!(
            "-t mangle -A PREROUTING -s {} -p udp --dport 7002 -j MARK --set-mark 7",
            a.ip
        ))
        .expect("a rule");
    for (rule, sources) in [
        (format!("from {}", a.ip), [OTHER, HOST_IP]),
        ("fwmark 7".into(), [OTHER, HOST_IP]),
        ("iif br-0".into(), [OTHER, OTHER]),
        ("ipproto udp dport 7002".into(), [OTHER, OTHER]),
        // What it forwards the kernel takes for root's.
        ("uidrange 1000-1000".into(), [HOST_IP, HOST_IP]),
    ] {
        world
            .host()
            .ip(&format!("rule add {rule} table 100 pref 50"))
            .expect("a rule");
        for (asker, source) in [(&socket, sources[0]), (&neighbour, sources[1])] {
            witness.sees_soon(asker, source);
            goes_fast(&world, &witness, asker);
        }
        world.host().ip("rule del pref 50").expect("no rule");
        witness.sees_soon(&socket, HOST_IP);
    }
}

/// Answers come in by the other uplink: exact, and slow, since no flow has its reverse there.
#[test]
fn answers_by_the_other_uplink() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, witness, socket) = start();
    world
        .lan()
        .ip(&format!("route add {HOST_IP}/32 via {OTHER} dev eth1"))
        .expect("a route");
    witness.sees_soon(&socket, HOST_IP);
    let (a, before) = (world.lab.topo.container(0, 0), world.lab.fast());
    transfer::bulk(&a.ns, at(FAR, 7001), world.lan(), 7001);
    assert_eq!(world.lab.fast(), before, "{}", world.lab.told());
}
