//! A bridge that does not learn where a container is sends what is for it to all its ports: everybody on it goes on
//! getting a copy.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    require::{Need, needs},
    topo,
};

use super::{BOUND, SELDOM};
use crate::netns::lab::{Echo, Lab, TICK, ask, at, topology, udp, until_answered, warm};

/// Questions of which everybody on the bridge must get a copy.
const QUESTIONS: u64 = 50;

/// The first container listens on the bridge, and the second one's questions to the third, A, go by it as `put` says. The
/// kernel hands copies out in the order from the port that came last (`br_flood`, `net/bridge/br_forward.c`): A's is the
/// first, so that a flow could be learned from it.
fn flooded(on: &str, put: fn(&UdpSocket) -> bool) {
    if !needs(&[Need::Root]) {
        return;
    }
    let crowd = topo::Options {
        bridges: vec![3, 1],
        ..topology()
    };
    let lab = Lab::with(&crowd, Some(SELDOM));
    let container = |index| lab.topo.container(0, index);
    let (listener, client, a) = (container(0), container(1), container(2));
    let _echo = Echo::start(&a.ns, 7001);
    let socket = udp(&client.ns, 40_120, at(a.ip, 7001));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let heard = || received(&lab, &listener.veth);
    let before = heard();
    assert!((0..QUESTIONS).all(|_| ask(&socket)));
    let heard_of_none = heard() - before;
    assert!(
        heard_of_none < QUESTIONS / 2,
        "heard {heard_of_none} while the bridge knew"
    );
    let line = on.replace("VETH_A", &a.veth).replace("MAC_A", &a.mac);
    lab.topo.host().sh(&line).expect("a bridge that does not learn");
    let begin = Instant::now();
    while begin.elapsed() < BOUND {
        let before = heard();
        let number = (0..QUESTIONS).filter(|_| put(&socket)).count() as u64;
        if number == QUESTIONS && heard() - before >= QUESTIONS {
            return;
        }
        thread::sleep(TICK / 10);
    }
    panic!("{on}: the listener misses its copies\n{}", lab.netfast.log());
}

/// Sends a question that nobody answers.
fn send(socket: &UdpSocket) -> bool {
    thread::sleep(Duration::from_millis(2));
    socket.send(&[b'q'; 64]).is_ok()
}

/// Packets that the host has sent to a container.
fn received(lab: &Lab, veth: &str) -> u64 {
    let shown = lab
        .topo
        .host()
        .sh(&format!("ip -j -s link show dev {veth}"))
        .expect("a link");
    let links: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    links[0]["stats64"]["tx"]["packets"].as_u64().expect("a counter")
}

#[test]
fn a_port_that_learns_nothing() {
    flooded(
        "bridge link set dev VETH_A learning off; bridge fdb del MAC_A dev VETH_A master",
        ask,
    );
}

#[test]
fn a_bridge_that_forgets_at_once() {
    flooded("ip link set br-0 type bridge ageing_time 0", ask);
}

/// It lets in nothing from whom the bridge does not know, and what is for the container still goes to all ports.
#[test]
fn a_locked_port() {
    flooded(
        "bridge link set dev VETH_A locked on; bridge fdb del MAC_A dev VETH_A master",
        send,
    );
}
