//! What takes frames may stop taking them at any moment: then nothing may be lost but what was on its way.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use netfast_tests::require::{Need, needs};

use super::world::World;
use crate::netns::lab::{ask, until_answered, until_silent};

/// How many of a thousand questions, one each millisecond, may be without an answer when something changes under them.
const ON_ITS_WAY: usize = 20;

/// Asks all the time while `change` is done; how many questions had no answer.
fn lost_while(world: &World, change: impl FnOnce()) -> usize {
    let socket = world.socket();
    world.is_fast(&socket);
    let (ends, lost) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                if !ask(&socket) {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        thread::sleep(Duration::from_millis(200));
        change();
        thread::sleep(Duration::from_secs(1));
        ends.store(true, Ordering::Relaxed);
    });
    lost.into_inner()
}

/// Without GRO a veth has no NAPI, and drops frames. The program stops before that, and the daemon leaves the container alone.
#[test]
fn gro_is_switched_off_in_mid_flow() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::start();
    let _echo = world.echo();
    let lost = lost_while(&world, || world.set_gro(false));
    assert!(lost <= 2, "{lost} datagrams were lost");
    world.is_not(&world.socket());
    assert!(!world.gro(), "netfast has switched on what somebody had switched off");
    world.lab.netfast.detach().expect("detached");
}

/// The same without a daemon, which could not have noticed.
#[test]
fn gro_is_switched_off_while_no_daemon_runs() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (mut world, _echo, socket) = World::at_work();
    world.kill();
    thread::sleep(Duration::from_secs(1));
    world.set_gro(false);
    let before = world.sent();
    let lost = 100 - (0..100).filter(|_| ask(&socket)).count();
    assert!(lost <= 2, "{lost} datagrams were lost");
    assert_eq!(world.sent(), before, "frames were sent where none are taken");
}

/// GRO that is switched while the interface is down is told to nobody: the way there is asked about again.
#[test]
fn gro_is_switched_off_while_it_is_down() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    let ns = &world.container().ns;
    let down_and_up = || {
        ns.sh("ip link set eth0 down").expect("down");
        world.set_gro(false);
        let route = "ip route replace default via 172.30.0.1";
        ns.sh(&format!("ip link set eth0 up && {route}")).expect("up");
    };
    down_and_up();
    until_answered(&socket, "the interface is up again");
    world.is_not(&socket);
    // And without a daemon.
    world.set_gro(true);
    world.lab.netfast.detach().expect("detached");
}

/// A container's interface that goes down takes no packet by any way; when it comes back, all do.
#[test]
fn the_interface_goes_down_and_comes_back() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    let ns = &world.container().ns;
    ns.sh("ip link set eth0 down").expect("down");
    until_silent(&socket, "it is down");
    ns.sh("ip link set eth0 up && ip route replace default via 172.30.0.1")
        .expect("up");
    world.is_fast(&socket);
}

/// A container that ends in mid-flow takes its way along.
#[test]
fn the_container_goes_in_mid_flow() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, echo, socket) = World::at_work();
    world.lab.topo.host().sh("ip link del veth0x0").expect("gone");
    drop(echo);
    until_silent(&socket, "it is gone");
    let before = world.sent();
    assert!(!ask(&socket));
    assert_eq!(world.sent(), before, "frames were sent to nobody");
    world.lab.netfast.detach().expect("detached");
}

/// The container's end is moved to another namespace, with the flow's addresses there.
#[test]
fn the_veth_moves_to_another_namespace() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::start();
    let other = netfast_tests::netns::NetNs::new("other").expect("a namespace");
    let echo = world.echo();
    let socket = world.socket();
    world.is_fast(&socket);
    let (ip, mac) = (world.container().ip, world.container().mac.clone());
    drop(echo);
    let path = other.path().display().to_string();
    let name = path.rsplit('/').next().expect("a name");
    world
        .container()
        .ns
        .sh(&format!("ip link set eth0 netns {name}"))
        .expect("moved");
    other
        .sh(&format!(
            "ip link set lo up; ip link set eth0 address {mac} up && ip addr add {ip}/24 dev eth0 && \
             ip route add default via 172.30.0.1"
        ))
        .expect("an address");
    let _echo = crate::netns::lab::Echo::start(&other, super::world::PORT);
    until_answered(&socket, "it answers from there");
    world.is_fast(&socket);
    let lost = 200 - (0..200).filter(|_| ask(&socket)).count();
    assert!(lost <= ON_ITS_WAY, "{lost} datagrams were lost");
}
