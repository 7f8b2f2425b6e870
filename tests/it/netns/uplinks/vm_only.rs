//! Kinds of uplinks that are modules of distributions' kernels: `cargo xtask vm --only netns::uplinks`. Ignored elsewhere, not
//! passed.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    require::{Need, needs},
    site::LAN_IP,
};

use super::{
    super::lab::{Echo, at, connect, topology, udp, until_answered, warm},
    kinds,
    world::{Kind, World},
};

#[test]
#[ignore = "needs a kernel with 802.1Q: cargo xtask vm --only netns::uplinks"]
fn a_vlan() {
    kinds::fast(Kind::Vlan, &topology());
}

#[test]
#[ignore = "needs a kernel with VLANs on bridges: cargo xtask vm --only netns::uplinks"]
fn a_bridge_that_filters_by_vlan() {
    kinds::fast(Kind::VlanBridge, &kinds::without_br_netfilter());
}

#[test]
#[ignore = "needs a kernel with bonding: cargo xtask vm --only netns::uplinks"]
fn a_bond() {
    kinds::fast(Kind::Bond, &topology());
}

/// The other interface takes over in mid-flow: no byte is lost, and it goes fast on.
#[test]
#[ignore = "needs a kernel with bonding: cargo xtask vm --only netns::uplinks"]
fn a_bond_that_fails_over() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::start(Kind::Bond);
    let a = world.lab.topo.container(0, 0);
    let _echo = Echo::start(world.lan(), 7002);
    let socket = udp(&a.ns, 0, at(LAN_IP, 7002));
    until_answered(&socket, "the first answer");
    warm(&world.lab, &socket);
    let (mut near, mut far) = connect(&a.ns, at(LAN_IP, 7003), world.lan(), 7003);
    let data: Vec<u8> = (0..4_u32 << 20)
        .map(|at| u8::try_from(at % 253).expect("below 253"))
        .collect();
    for (down, up) in [("eth0", None), ("eth1", Some("eth0"))] {
        if let Some(up) = up {
            world.lan().ip(&format!("link set {up} up")).expect("up");
            thread::sleep(Duration::from_millis(500));
        }
        thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut got = vec![0; data.len()];
                far.read_exact(&mut got).expect("the data");
                assert!(got == data, "the data was damaged");
            });
            let half = data.len() / 2;
            near.write_all(&data[..half]).expect("sent");
            world.lan().ip(&format!("link set {down} down")).expect("down");
            near.write_all(&data[half..]).expect("sent");
            receiver.join().expect("received");
        });
        let since = Instant::now();
        until_answered(&socket, "an answer");
        println!("answered {:?} after the transfer", since.elapsed());
        warm(&world.lab, &socket);
    }
}

#[test]
#[ignore = "needs a kernel with WireGuard: cargo xtask vm --only netns::uplinks"]
fn wireguard() {
    if !needs(&[Need::Root, Need::Program("wg")]) {
        return;
    }
    let world = World::start(Kind::Wireguard);
    kinds::carries(&world, false);
    kinds::is_said_to_be_none(&world, "no Ethernet header");
}
