//! UDP that nobody answers (logs, metrics, media): fast as soon as the kernel has let it through, and judged by every rule that
//! is about what was not answered yet.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
};

use super::lab::{Lab, TIMEOUT, at, topology, udp};

/// The port that is listened on.
const PORT: u16 = 7030;
/// Datagrams of one look.
const LOOK: usize = 50;
/// Of these at least so many are fast when a flow is: one a second asks the kernel.
const FAST: u64 = 45;

fn ready() -> bool {
    needs(&[Need::Root, Need::Program("iptables")])
}

/// Listens on a port of IPv4, and never answers.
fn sink(ns: &NsHandle, port: u16) -> UdpSocket {
    sink_at(ns, at(Ipv4Addr::UNSPECIFIED, port))
}

/// The same at an address of either family.
pub(super) fn sink_at(ns: &NsHandle, address: SocketAddr) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(address)).expect("entered").expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    socket
}

/// Sends datagrams, and returns how many came and how many of them were fast.
pub(super) fn look(lab: &Lab, from: &UdpSocket, to: &UdpSocket) -> (usize, u64) {
    let before = lab.fast();
    for _ in 0..LOOK {
        // Refused by ICMP where a rule rejects: that is no failure of the test.
        let _sent = from.send(&[b'm'; 200]);
        thread::sleep(Duration::from_millis(1));
    }
    let mut data = [0; 2048];
    let came = (0..LOOK).take_while(|_| to.recv(&mut data).is_ok()).count();
    (came, lab.fast() - before)
}

/// Until all of it comes, and comes fast.
pub(super) fn await_fast(lab: &Lab, what: &str, from: &UdpSocket, to: &UdpSocket) {
    let seen = cmd::poll("one-way UDP is fast", TIMEOUT, || {
        let (came, fast) = look(lab, from, to);
        (came == LOOK && fast >= FAST).then_some(())
    });
    assert!(seen.is_ok(), "{what}: {:?}; {}", look(lab, from, to), lab.told());
}

#[test]
fn udp_that_nobody_answers_is_fast_on_each_path() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let (lan, host) = (lab.topo.lan(), lab.topo.host());
    let at_a = sink(&a.ns, PORT);
    await_fast(&lab, "within a bridge", &udp(&b.ns, 0, at(a.ip, PORT)), &at_a);
    await_fast(&lab, "from the host", &udp(host, 0, at(a.ip, PORT)), &at_a);
    let published = sink(&a.ns, 7001);
    await_fast(&lab, "published", &udp(lan, 0, at(HOST_IP, 7000)), &published);
    let outside = sink(lan, PORT);
    await_fast(&lab, "masqueraded", &udp(&a.ns, 0, at(LAN_IP, PORT)), &outside);
    assert!(lab.count(Reason::Refreshed) > 0, "it asks the kernel from time to time");
}

#[test]
fn an_answer_late_in_the_day_makes_it_a_conversation() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let at_a = sink(&a.ns, PORT);
    let from = udp(&b.ns, 41_030, at(a.ip, PORT));
    await_fast(&lab, "before", &from, &at_a);
    at_a.connect(at(b.ip, 41_030)).expect("connected");
    let seen = cmd::poll("both directions are fast", TIMEOUT, || {
        let there = look(&lab, &from, &at_a);
        let back = look(&lab, &at_a, &from);
        (there.0 == LOOK && back.0 == LOOK && there.1 >= FAST && back.1 >= FAST).then_some(())
    });
    assert!(seen.is_ok(), "{}", lab.told());
}

/// A rule that drops what it has had enough of, of new conversations only: no packet of an answered one meets it, so that the
/// rest of the network goes on fast.
#[test]
fn rules_about_what_is_new_judge_every_packet() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let at_a = sink(&a.ns, 7001);
    let from = udp(lab.topo.lan(), 0, at(HOST_IP, 7000));
    for backend in ["iptables", "iptables-legacy"] {
        await_fast(&lab, backend, &from, &at_a);
        let let_through =
            "FORWARD -p udp --dport 7001 -m conntrack --ctstate NEW -m limit --limit 1/hour --limit-burst 7 -j ACCEPT";
        let drop = "FORWARD -p udp --dport 7001 -m conntrack --ctstate NEW -j DROP";
        let host = lab.topo.host();
        host.sh(&format!("{backend} -w -I {drop} && {backend} -w -I {let_through}"))
            .expect("rules");
        // Legacy rules are polled once a second.
        thread::sleep(Duration::from_millis(1500));
        let mut came = 0;
        for _ in 0..3 {
            let (some, fast) = look(&lab, &from, &at_a);
            came += some;
            assert_eq!(fast, 0, "{backend}: each packet must be judged; {}", lab.told());
        }
        assert!(came <= 7, "{backend}: {came} came");
        host.sh(&format!("{backend} -w -D {drop} && {backend} -w -D {let_through}"))
            .expect("no rules");
    }
    await_fast(&lab, "without the rules", &from, &at_a);
    // Of TCP nothing that was not answered is ever fast: no need to keep UDP slow.
    let host = lab.topo.host();
    host.sh("iptables -w -I FORWARD -p tcp -m conntrack --ctstate NEW -m limit --limit 9/s -j ACCEPT")
        .expect("a rule");
    await_fast(&lab, "a rule for TCP", &from, &at_a);
    await_fast(&lab, "on the bridge", &udp(&b.ns, 0, at(a.ip, 7001)), &at_a);
}
