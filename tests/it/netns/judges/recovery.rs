//! After a change netfast is there again as soon as the kernel alone is, in the same run; and an endpoint comes back to
//! the fast path when what kept it off is gone.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    packet::Packet,
    require::{Need, needs},
    site::LAN_IP,
    topo::Topo,
};

use super::{BOUND, WANTED, ask_with};
use crate::{
    differential::station::Tap,
    netns::lab::{Echo, Lab, TICK, TIMEOUT, at, introduce, topology, udp, until_answered, warm},
};

/// Of each side in a round; the middle one counts.
const TRIES: usize = 3;
/// Both sides are compared as often, at most: other work on the machine makes a round slow, a fault makes all of them so.
const ROUNDS: usize = 3;
/// What netfast may take longer: the noise of two runs on a busy machine, and less than a retransmitted ARP request.
const SLACK: Duration = Duration::from_millis(400);

/// How long after `up` the first answer comes, with some two hundred questions a second. (What is delivered between the
/// moment when a cable is down and the daemon's hearing of it makes the container ask for its neighbour in vain, and wait a
/// second: of thousands a second there would be some.)
fn pause(socket: &UdpSocket, down: impl FnOnce(), up: impl FnOnce()) -> Duration {
    socket
        .set_read_timeout(Some(Duration::from_millis(4)))
        .expect("an option");
    let asks = |time: Duration| {
        let begin = Instant::now();
        while begin.elapsed() < time {
            let _lost = ask_with(socket, WANTED);
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        // Also in the moment when it goes down, and when it comes up.
        let changed = scope.spawn(|| {
            asks(Duration::from_millis(600));
        });
        thread::sleep(Duration::from_millis(150));
        down();
        changed.join().expect("asked");
    });
    up();
    let begin = Instant::now();
    while ask_with(socket, WANTED).is_none() {
        assert!(begin.elapsed() < TIMEOUT, "no answer any more");
    }
    let pause = begin.elapsed();
    socket.set_read_timeout(Some(TICK)).expect("an option");
    pause
}

fn middle(mut pauses: Vec<Duration>) -> Duration {
    pauses.sort();
    pauses[pauses.len() / 2]
}

/// Shell lines in the host: what happens, and what ends it. A stands for the first container's veth.
fn compare(down: &str, up: &str) {
    if !needs(&[Need::Root]) {
        return;
    }
    let kernel = Topo::new(&topology()).expect("a topology");
    introduce(&kernel);
    let lab = Lab::start();
    let pauses = |topo: &Topo, settle: &dyn Fn(&UdpSocket)| {
        let (a, b) = (topo.container(0, 0), topo.container(0, 1));
        let _echo = Echo::start(&a.ns, 7001);
        let socket = udp(&b.ns, 40_120, at(a.ip, 7001));
        let run = |line: &str| {
            topo.host().sh(&line.replace("VETH_A", &a.veth)).expect("done");
        };
        let tries = (0..TRIES).map(|_| {
            until_answered(&socket, "an answer");
            settle(&socket);
            pause(&socket, || run(down), || run(up))
        });
        middle(tries.collect())
    };
    let round = || {
        let alone = pauses(&kernel, &|_| thread::sleep(Duration::from_millis(500)));
        let with = pauses(&lab.topo, &|socket| {
            introduce(&lab.topo);
            warm(&lab, socket);
        });
        (with, alone)
    };
    let mut rounds = Vec::new();
    while rounds.len() < ROUNDS {
        let (with, alone) = round();
        if with < alone + SLACK {
            return;
        }
        rounds.push((with, alone));
    }
    panic!("with netfast and without, in each round: {rounds:?}");
}

#[test]
fn a_veth_that_was_down() {
    compare("ip link set VETH_A down", "ip link set VETH_A up");
}

#[test]
fn a_bridge_that_was_down() {
    compare("ip link set br-0 down", "ip link set br-0 up");
}

#[test]
fn a_port_that_was_taken_off_its_bridge() {
    compare("ip link set VETH_A nomaster", "ip link set VETH_A master br-0");
}

/// Why the first container's endpoint is slow; empty if it is not.
fn why(lab: &Lab) -> String {
    let status: serde_json::Value = lab.netfast.status().expect("a status");
    let veth = &lab.topo.container(0, 0).veth;
    let networks = status["networks"].as_array().expect("networks");
    let mut endpoints = networks
        .iter()
        .flat_map(|network| network["endpoints"].as_array().expect("endpoints"));
    let endpoint = endpoints
        .find(|endpoint| endpoint["veth"] == veth.as_str())
        .expect("the endpoint");
    endpoint["reason"].as_str().unwrap_or_default().to_owned()
}

/// A container that once sent from another MAC address is fast again as soon as the bridge has forgotten that.
#[test]
fn an_address_that_the_bridge_forgets() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let a = lab.topo.container(0, 0);
    let foreign = "02:00:00:00:77:77";
    let tap = Tap::open(&a.ns, "eth0").expect("a raw socket");
    let packet = Packet {
        from_mac: [2, 0, 0, 0, 0x77, 0x77],
        to_mac: [2, 0, 0, 0, 0x77, 0x78],
        ..Packet::udp((a.ip, 1), (LAN_IP, 1))
    };
    for forget in [
        "bridge fdb del 02:00:00:00:77:77 dev VETH_A master",
        // Of itself: hundredths of a second.
        "ip link set br-0 type bridge ageing_time 100",
    ] {
        tap.send(&packet.bytes()).expect("sent");
        let told = cmd::poll("slow, with the reason", TIMEOUT, || {
            let why = why(&lab);
            (!why.is_empty()).then_some(why)
        });
        let told = told.expect("slow");
        assert!(told.contains(foreign) && told.contains(&a.mac), "{told}");
        lab.topo
            .host()
            .sh(&forget.replace("VETH_A", &a.veth))
            .expect("forgotten");
        let begin = Instant::now();
        cmd::poll("fast again", TIMEOUT, || {
            // It goes on speaking itself.
            let _answered = lab.topo.host().sh(&format!("busybox ping -c1 -W1 {}", a.ip));
            why(&lab).is_empty().then_some(())
        })
        .expect("fast");
        assert!(begin.elapsed() < BOUND * 2, "{:?}", begin.elapsed());
    }
}
