//! Where there is no XDP, and what is said of it.

use netfast_tests::require::{Need, needs};

use super::world::World;
use crate::netns::{
    judges::program::{Judge, Pinned, Place},
    lab::{self, TIMEOUT},
};

/// Without the wish there is no program, and nothing is changed in containers.
#[test]
fn it_is_off_by_default() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::with("");
    let _echo = world.echo();
    let socket = world.socket();
    lab::warm(&world.lab, &socket);
    assert!(!world.has_program() && !world.gro());
    world.is_not(&socket);
}

/// A veth is not taken by `auto`: its sender would lose segmentation.
#[test]
fn a_veth_is_not_taken_by_itself() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::with("xdp = \"auto\"");
    let _echo = world.echo();
    world.says("it is a veth");
    assert!(!world.has_program() && !world.gro());
    world.is_not(&world.socket());
}

/// Somebody else's program stays, whichever mode it is in.
#[test]
fn a_program_of_somebody_else_stays() {
    if !needs(&[Need::Root]) {
        return;
    }
    for place in [Place::XdpNative, Place::XdpGeneric] {
        let topo = netfast_tests::topo::Topo::new(&lab::topology()).expect("a topology");
        let judge = Judge::on(topo.host(), "eth0", place);
        let world = World::around(topo, "xdp = \"on\"");
        let _echo = world.echo();
        world.says("another XDP program");
        world.is_not(&world.socket());
        drop(judge);
        world.is_fast(&world.socket());
    }
}

/// Theirs cannot come in the place of ours, which is the kernel's doing.
#[test]
fn nobody_takes_its_place() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, _) = World::at_work();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Judge::on(world.lab.topo.host(), "eth0", Place::XdpNative)
    }));
    assert!(refused.is_err(), "the kernel took it");
    world.is_fast(&world.socket());
}

/// A program on the ingress sees the packets, so XDP ends when it comes.
#[test]
fn a_program_on_the_ingress_sees_all() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    let judge = Judge::on(world.lab.topo.host(), "eth0", Place::TcxIngressFirst);
    world.says("its ingress must see every packet");
    world.is_not(&socket);
    assert!(!world.has_program());
    drop(judge);
    world.is_fast(&socket);
}

/// A classic filter on the ingress makes the uplink none at all.
#[test]
fn a_filter_on_the_ingress_sees_all() {
    if !needs(&[Need::Root, Need::Program("tc")]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    let host = world.lab.topo.host();
    let program = Pinned::of_filter();
    let add = format!(
        "tc qdisc add dev eth0 clsact && tc filter add dev eth0 ingress bpf da pinned {}",
        program.path()
    );
    host.sh(&add).expect("a filter");
    world.is_not(&socket);
    assert!(!world.has_program());
    host.sh("tc qdisc del dev eth0 clsact").expect("no filter");
    world.is_fast(&socket);
}

/// Frames that need more than a page are the stack's.
#[test]
fn an_mtu_that_is_too_big() {
    if !needs(&[Need::Root]) {
        return;
    }
    let topo = netfast_tests::topo::Topo::new(&lab::topology()).expect("a topology");
    for ns in [topo.host(), topo.lan()] {
        ns.sh("ip link set eth0 mtu 9000").expect("an MTU");
    }
    let world = World::around(topo, "xdp = \"on\"");
    let _echo = world.echo();
    world.says("its MTU is 9000");
    world.is_not(&world.socket());
}

/// What the kernel must see for its own sake goes on to it: fragments, frames for another MAC address, VLAN tags.
#[test]
fn odd_frames_go_on() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    // Fragments: longer than the MTU.
    let before = world.sent();
    let data = vec![b'f'; 4000];
    let mut answer = [0; 2048];
    socket.send(&data).expect("sent");
    let _short = socket.recv(&mut answer);
    assert_eq!(world.sent(), before, "fragments went by XDP");
    // Another MAC address than the uplink's: the host is not meant.
    world
        .lab
        .topo
        .lan()
        .sh("ip neigh replace 198.18.0.1 lladdr 02:00:00:00:00:77 dev eth0")
        .expect("a neighbour");
    let before = world.sent();
    assert!((0..10).filter(|_| lab::ask(&socket)).count() == 0, "somebody answered");
    assert_eq!(world.sent(), before, "frames for somebody else went by XDP");
    world
        .lab
        .topo
        .lan()
        .sh("ip neigh del 198.18.0.1 dev eth0")
        .expect("no neighbour");
    netfast_tests::cmd::poll("answers", TIMEOUT, || lab::ask(&socket).then_some(())).expect("an answer");
}
