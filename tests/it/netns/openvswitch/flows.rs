//! What is learned between containers at ports of a bridge, and how soon what the switch is told holds.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netfast_common::reason::Reason;
use netfast_tests::cmd;
use nix::sys::signal::Signal;

use super::{
    super::{
        lab::{Echo, TIMEOUT, ask, at, udp, until_answered, until_silent, warm},
        paths,
    },
    switch::{BRIDGE, World, is_there},
};

/// The switch has its own time to change its datapath (`ovs-vswitchd` looks at its flows twice a second), and then netfast a second.
const SOON: Duration = Duration::from_secs(3);

/// A conversation between the first two containers that is on the fast path.
fn talk(world: &World) -> (Echo, UdpSocket) {
    let (a, b) = (world.lab.topo.container(0, 0), world.lab.topo.container(0, 1));
    let echo = Echo::start(&b.ns, 7002);
    let socket = udp(&a.ns, 0, at(b.ip, 7002));
    until_answered(&socket, "the first answer");
    warm(&world.lab, &socket);
    (echo, socket)
}

/// What the switch is told stops a conversation in mid-flow, and what it is told then lets it go on, fast again.
fn obeys(world: &World, socket: &UdpSocket, stop: impl FnOnce(), go_on: impl FnOnce()) {
    stop();
    let since = Instant::now();
    until_silent(socket, "silence");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    go_on();
    until_answered(socket, "an answer");
    warm(&world.lab, socket);
}

/// TCP both ways at once, datagrams and echoes: exact and fast. The reports say so.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn between_containers() {
    if !is_there() {
        return;
    }
    let world = World::start();
    let (a, b) = (world.lab.topo.container(0, 0), world.lab.topo.container(0, 1));
    let networks = world.said(&["networks"]);
    assert!(
        networks.contains("openvswitch") && networks.contains("3/3"),
        "{networks}"
    );
    let explained = world.said(&["explain", &a.veth]);
    assert!(explained.contains("Open vSwitch"), "{explained}");
    println!("{explained}\n{}", world.said(&["networks", "ovs-system"]));
    let status = world.said(&["status"]);
    assert!(status.contains("ovs-system"), "{status}");
    paths::both(&world.lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
    a.ns.sh(&format!("busybox ping -c2 -W5 {}", b.ip)).expect("an echo");
    // The host's own port gets packets in another run of the kernel.
    a.ns.sh(&format!("busybox ping -c2 -W5 {}", world.lab.topo.bridges[0].gateway))
        .expect("an echo");
    let before = (world.lab.count(Reason::OvsActions), world.lab.fast());
    let (_echo, socket) = talk(&world);
    assert!((0..500).all(|_| ask(&socket)), "{}", world.lab.told());
    assert!(world.lab.fast() > before.1 + 900, "{}", world.lab.told());
    println!(
        "ovs-actions: {} before {}",
        world.lab.count(Reason::OvsActions),
        before.0
    );
}

/// A flow that drops, whoever has added it, with more to say than the one that let packets pass.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn a_changed_flow_table() {
    if !is_there() {
        return;
    }
    let world = World::start();
    let (_echo, socket) = talk(&world);
    let to = world.lab.topo.container(0, 1).ip;
    obeys(
        &world,
        &socket,
        || {
            world.ofctl(&format!("add-flow {BRIDGE} priority=100,ip,nw_dst={to},actions=drop"));
        },
        || {
            world.ofctl(&format!("del-flows {BRIDGE} ip,nw_dst={to}"));
        },
    );
    // Without a flow nothing passes: what a bridge in fail mode `secure` has while its controller is away.
    obeys(
        &world,
        &socket,
        || {
            world.vsctl(&format!("set-fail-mode {BRIDGE} secure"));
            world.ofctl(&format!("del-flows {BRIDGE}"));
        },
        || {
            world.ofctl(&format!("add-flow {BRIDGE} actions=NORMAL"));
        },
    );
    // A port of another VLAN, and both of it.
    let (a, b) = (
        &world.lab.topo.container(0, 0).veth,
        &world.lab.topo.container(0, 1).veth,
    );
    obeys(
        &world,
        &socket,
        || {
            world.vsctl(&format!("set port {a} tag=7"));
        },
        || {
            world.vsctl(&format!("set port {b} tag=7"));
        },
    );
    // A port that is none any more, and comes back.
    obeys(
        &world,
        &socket,
        || {
            world.vsctl(&format!("del-port {b}"));
        },
        || {
            world.vsctl(&format!("add-port {BRIDGE} {b} tag=7"));
        },
    );
}

/// What asks for more than to be sent on keeps a conversation with the kernel, with its own reason: a controller, a meter, a sampler.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn what_does_more_than_to_send_on() {
    if !is_there() {
        return;
    }
    let world = World::start();
    let (_echo, socket) = talk(&world);
    let to = world.lab.topo.container(0, 1).ip;
    world.ofctl(&format!(
        "-O OpenFlow13 add-meter {BRIDGE} meter=1,pktps,bands=type=drop,rate=100000"
    ));
    for actions in [
        "meter:1,NORMAL",
        "controller(max_len=64),NORMAL",
        "ct(commit),NORMAL",
        "sample(probability=65535,collector_set_id=1),NORMAL",
    ] {
        world.ofctl(&format!(
            "-O OpenFlow13 add-flow {BRIDGE} 'priority=100,ip,nw_dst={to},actions={actions}'"
        ));
        if actions.starts_with("sample") {
            world.vsctl(&format!(
                "--id=@b get bridge {BRIDGE} -- --id=@i create ipfix 'targets=\"127.0.0.1:4739\"' -- create \
                 Flow_Sample_Collector_Set id=1 bridge=@b ipfix=@i"
            ));
        }
        thread::sleep(SOON);
        let before = (world.lab.fast(), world.lab.count(Reason::OvsActions));
        assert!((0..100).all(|_| ask(&socket)), "{actions}: {}", world.lab.told());
        let flows = world.switch.datapath_flows(world.host());
        assert_eq!(world.lab.fast(), before.0, "{actions}: {}\n{flows}", world.lab.told());
        assert!(world.lab.count(Reason::OvsActions) > before.1, "{actions}: {flows}");
        world.ofctl(&format!("del-flows {BRIDGE} ip,nw_dst={to}"));
        cmd::poll("the fast path", TIMEOUT, || {
            let before = world.lab.fast();
            (ask(&socket) && ask(&socket) && world.lab.fast() > before).then_some(())
        })
        .unwrap_or_else(|error| panic!("{actions}: {error}; {}", world.lab.told()));
    }
}

/// Nothing of netfast stays when it is detached, and no answer is missed: nobody holds the modules then.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn detached() {
    if !is_there() {
        return;
    }
    let mut world = World::start();
    let (echo, socket) = talk(&world);
    world.lab.netfast.stop(Signal::SIGTERM).expect("it ends");
    assert!((0..50).all(|_| ask(&socket)), "{}", world.lab.told());
    world.lab.netfast.detach().expect("detached");
    assert!((0..50).all(|_| ask(&socket)));
    let links = world.host().sh("bpftool link").expect("the links");
    assert!(!links.contains("ovs_do_execute_action"), "{links}");
    drop((echo, socket));
    let World { lab, switch } = world;
    switch.remove(lab.topo.host());
}

/// A mirror that comes in mid-flow sees every packet, within a second or so, also when nobody runs the daemon.
#[test]
#[ignore = "needs a kernel with Open vSwitch: cargo xtask vm --only netns::openvswitch"]
fn a_mirror_sees_every_packet() {
    if !is_there() {
        return;
    }
    for is_killed in [false, true] {
        let mut world = World::start();
        let (_echo, socket) = talk(&world);
        let spy = world.lab.topo.container(0, 2).ns.handle();
        let received = || -> u64 {
            let lines = spy.sh("cat /proc/thread-self/net/dev").expect("its counters");
            let line = lines
                .lines()
                .find_map(|line| line.trim().strip_prefix("eth0:"))
                .expect("its interface");
            line.split_whitespace()
                .nth(1)
                .and_then(|word| word.parse().ok())
                .expect("packets")
        };
        if is_killed {
            world.lab.netfast.stop(Signal::SIGKILL).expect("it dies");
        }
        let out = &world.lab.topo.container(0, 2).veth;
        world.vsctl(&format!(
            "--id=@p get port {out} -- --id=@m create mirror name=all select_all=true output_port=@p -- set bridge {BRIDGE} mirrors=@m"
        ));
        world.switch.purge(world.host());
        thread::sleep(SOON);
        let before = received();
        let asked = (0..300).filter(|_| ask(&socket)).count();
        let seen = received() - before;
        assert!(
            asked > 290 && seen >= 2 * asked as u64,
            "{seen} of twice {asked}: {}",
            world.lab.told()
        );
    }
}
