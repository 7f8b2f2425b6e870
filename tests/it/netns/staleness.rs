//! Flows stay true: they keep conntrack's entries alive, and end when the kernel's verdict changes.

use std::time::{Duration, Instant};

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
};
use nix::sys::signal::Signal;

use super::lab::{Echo, Lab, TIMEOUT, ask, at, topology, udp, until_answered, until_silent, warm};

/// The conntrack entry of a port, with its number.
fn entry(lab: &Lab, port: u16) -> Option<String> {
    let listed = lab
        .topo
        .host()
        .sh("conntrack -L -p udp -o id 2>/dev/null")
        .expect("conntrack lists");
    let line = listed.lines().find(|line| line.contains(&format!("sport={port} ")))?;
    let words = line
        .split_whitespace()
        .filter(|word| !word.starts_with("use=") && !word.starts_with('['));
    // Without the seconds that are left.
    let kept: Vec<&str> = words
        .enumerate()
        .filter(|(at, _)| *at != 2)
        .map(|(_, word)| word)
        .collect();
    Some(kept.join(" "))
}

/// conntrack forgets a conversation after so many seconds, and netfast asks often enough.
fn keeps_alive(kill: bool, timeout: u8) {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let mut lab = Lab::start();
    for name in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.topo
            .host()
            .set_sysctl(&format!("net/netfilter/{name}"), &timeout.to_string())
            .expect("a short timeout");
    }
    // Nobody announces these.
    std::thread::sleep(Duration::from_millis(1500));
    let _echo = Echo::start(lab.topo.lan(), 7002);
    let socket = udp(&lab.topo.container(0, 0).ns, 40_002, at(LAN_IP, 7002));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let before = entry(&lab, 40_002).expect("an entry");
    if kill {
        lab.netfast.stop(Signal::SIGKILL).expect("it dies");
    }
    let (fast, begin) = (lab.fast(), Instant::now());
    let mut asked = 0;
    // Three times the timeout.
    while begin.elapsed() < Duration::from_secs(9) {
        assert!(ask(&socket) || ask(&socket), "no answer");
        asked += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    let share = (lab.fast() - fast) as f64 / f64::from(2 * asked);
    assert!(
        asked > 100 && share > 0.8,
        "{share:.3} of {asked} questions and answers took the fast path"
    );
    assert_eq!(
        entry(&lab, 40_002).expect("the entry is still there"),
        before,
        "another entry"
    );
}

#[test]
fn revalidation_keeps_conntrack_alive() {
    keeps_alive(false, 3);
}

#[test]
fn revalidation_keeps_conntrack_alive_without_the_daemon() {
    keeps_alive(true, 3);
}

/// Asking once a second would be too late each time.
#[test]
fn an_entry_that_lives_for_a_second_is_kept_alive() {
    keeps_alive(false, 1);
}

#[test]
fn a_rule_stops_a_flow_at_once() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some("revalidate_ms = 10000\n"));
    let _echo = Echo::start(&lab.topo.container(0, 0).ns, 7001);
    let socket = udp(lab.topo.lan(), 40_003, at(HOST_IP, 7000));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let outdated = || lab.count(Reason::StaleEpoch) + lab.count(Reason::StaleGeneration);
    let before = outdated();
    lab.topo.iptables("-I DOCKER-USER -p udp -j DROP").expect("a rule");
    until_silent(&socket, "the end");
    // Not because it was time to ask again.
    assert!(outdated() > before, "the daemon did not outdate the flow");
    lab.topo.iptables("-D DOCKER-USER -p udp -j DROP").expect("no rule");
    until_answered(&socket, "an answer without the rule");
    warm(&lab, &socket);
}

#[test]
fn a_rule_stops_a_flow_without_the_daemon() {
    if !needs(&[Need::Root]) {
        return;
    }
    let mut lab = Lab::start();
    let _echo = Echo::start(&lab.topo.container(0, 0).ns, 7001);
    let socket = udp(lab.topo.lan(), 40_003, at(HOST_IP, 7000));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    lab.netfast.stop(Signal::SIGKILL).expect("it dies");
    lab.topo.iptables("-I DOCKER-USER -p udp -j DROP").expect("a rule");
    until_silent(&socket, "the end, within the revalidation interval");
    lab.topo.iptables("-D DOCKER-USER -p udp -j DROP").expect("no rule");
    until_answered(&socket, "an answer without the rule");
    // Learning needs no daemon.
    warm(&lab, &socket);
    lab.netfast.launch().expect("it starts again");
    cmd::poll("answers", TIMEOUT, || ask(&socket).then_some(())).expect("answers");
    warm(&lab, &socket);
}
