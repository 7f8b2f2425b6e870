//! A bridge that does not learn where a container is sends what is for it to all its ports: everybody on it goes on
//! getting a copy.

use std::{thread, time::Instant};

use netfast_tests::{
    require::{Need, needs},
    topo,
};

use super::{BOUND, SELDOM, Way};
use crate::netns::lab::{Lab, TICK, ask, topology, until_answered, warm};

/// Questions of which everybody on the bridge must get a copy.
const QUESTIONS: u64 = 50;

/// A third container listens on the bridge, and the answers to the second one's questions go by it.
fn flooded(on: &str) {
    if !needs(&[Need::Root]) {
        return;
    }
    let crowd = topo::Options {
        bridges: vec![3, 1],
        ..topology()
    };
    let lab = Lab::with(&crowd, Some(SELDOM));
    let (_echo, socket) = Way::Bridge.open(&lab, 40_120);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let (a, listener) = (lab.topo.container(0, 0), lab.topo.container(0, 2));
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
        let answered = (0..QUESTIONS).filter(|_| ask(&socket)).count() as u64;
        if answered == QUESTIONS && heard() - before >= QUESTIONS {
            return;
        }
        thread::sleep(TICK / 10);
    }
    panic!("{on}: the listener misses its copies\n{}", lab.netfast.log());
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
    flooded("bridge link set dev VETH_A learning off; bridge fdb del MAC_A dev VETH_A master");
}

#[test]
fn a_bridge_that_forgets_at_once() {
    flooded("ip link set br-0 type bridge ageing_time 0");
}
