//! XDP at an uplink: datagrams from a sender that computes its checksums, as what comes in by a network card has them.

mod lost;
mod refused;
mod world;

use netfast_tests::{
    cmd,
    require::{Need, needs},
    site::HOST_IP,
};

use self::world::{PORT, World};
use super::{
    lab::{TIMEOUT, ask, at},
    transfer,
};

/// A datagram of a published port goes to the container by XDP, and arrives as it was sent.
#[test]
fn datagrams_arrive_exactly_and_by_xdp() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, echo, _) = World::at_work();
    drop(echo);
    let before = world.sent();
    transfer::datagrams(
        world.lab.topo.lan(),
        at(HOST_IP, 7000),
        &world.container().ns,
        PORT,
        10_000,
    );
    let sent = world.sent() - before;
    assert!(sent > 8_000, "{sent} datagrams went by XDP; {}", world.lab.told());
}

/// Of each length, odd ones and those of a whole page among them, every byte is what was sent.
#[test]
fn each_length_arrives_exactly() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    let before = world.sent();
    let mut answer = [0; 2048];
    for length in [1_usize, 2, 17, 18, 19, 63, 511, 512, 513, 1024, 1471, 1472] {
        let data: Vec<u8> = (0..length)
            .map(|i| u8::try_from((i * 7 + length) % 251).expect("small"))
            .collect();
        let came = cmd::poll("an answer", TIMEOUT, || {
            socket.send(&data).ok()?;
            let got = socket.recv(&mut answer).ok()?;
            (answer[..got] == data).then_some(())
        });
        came.unwrap_or_else(|error| panic!("{length} bytes: {error}"));
    }
    assert!(world.sent() > before, "none went by XDP");
}

/// What others make of the uplink's packets: TCP goes its usual way, whole.
#[test]
fn tcp_is_left_alone_and_whole() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, echo, _) = World::at_work();
    drop(echo);
    let before = world.sent();
    transfer::bulk(world.lab.topo.lan(), at(HOST_IP, 7000), &world.container().ns, PORT);
    assert_eq!(world.sent(), before, "TCP went by XDP");
}

/// The checksum of a datagram that a local sender leaves to the hardware is none: no program of XDP's could tell.
#[test]
fn a_checksum_that_is_left_to_a_device_is_left_to_the_stack() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    world.set_tx_checksums(true);
    let before = world.sent();
    assert!((0..100).filter(|_| ask(&socket)).count() > 95, "datagrams are lost");
    assert_eq!(world.sent(), before, "they went by XDP without a checksum");
}

/// A flow that is removed from the table is the kernel's at once, and a rule decides.
#[test]
fn a_rule_that_comes_decides() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    world
        .lab
        .topo
        .iptables("-I DOCKER-USER -p udp -j DROP")
        .expect("a rule");
    super::lab::until_silent(&socket, "a rule that drops");
    world
        .lab
        .topo
        .iptables("-D DOCKER-USER -p udp -j DROP")
        .expect("no rule");
    super::lab::until_answered(&socket, "without the rule");
    world.is_fast(&socket);
}

/// Detaching takes the program away, loses nothing, and leaves containers as they were.
#[test]
fn detach_restores() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = World::at_work();
    assert!(world.gro(), "it takes frames");
    world.lab.netfast.detach().expect("detached");
    assert!(!world.gro(), "GRO is off again");
    assert!(!world.has_program(), "the program is gone");
    assert!((0..50).filter(|_| ask(&socket)).count() > 45, "datagrams are lost");
}

/// A daemon that is killed leaves the programs at work, and its successor takes them over. XDP ends within a
/// second; the datagrams go on.
#[test]
fn goes_on_without_a_daemon_and_with_the_next() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (mut world, _echo, socket) = World::at_work();
    world.kill();
    assert!((0..100).filter(|_| ask(&socket)).count() > 95, "datagrams are lost");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = world.sent();
    assert!((0..100).filter(|_| ask(&socket)).count() > 95, "datagrams are lost");
    assert_eq!(world.sent(), before, "nobody would tell of who judges");
    world.lab.netfast.launch().expect("started again");
    world.is_fast(&socket);
    world.lab.netfast.detach().expect("detached");
    assert!(!world.gro() && !world.has_program());
}
