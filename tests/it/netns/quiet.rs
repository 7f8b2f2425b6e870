//! conntrack keeps a connection that nobody uses for days, whether most of its packets took the fast path or not.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    require::{Need, needs},
    site::LAN_IP,
};
use nix::sys::signal::Signal;

use super::lab::{Lab, at, connect, exchange, until_fast};

/// How long conntrack keeps what it believes not to be acknowledged, in seconds; 300 by default.
const UNACKNOWLEDGED: u64 = 4;
/// The port of the server outside.
const PORT: u16 = 7010;

/// A connection by masquerade that is on the fast path.
fn busy() -> (Lab, TcpStream, TcpStream) {
    let lab = Lab::start();
    lab.topo
        .host()
        .set_sysctl(
            "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged",
            &UNACKNOWLEDGED.to_string(),
        )
        .expect("a sysctl");
    let mut ends = connect(&lab.topo.container(0, 0).ns, at(LAN_IP, PORT), lab.topo.lan(), PORT);
    until_fast(&lab, &mut ends);
    keep_busy(&mut ends);
    (lab, ends.0, ends.1)
}

/// For so long that the kernel was asked again.
fn keep_busy(ends: &mut (TcpStream, TcpStream)) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        exchange(ends, 1);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The server speaks first, so its packet needs the connection's entry.
fn goes_on(lab: &Lab, client: TcpStream, server: TcpStream) {
    thread::sleep(Duration::from_secs(UNACKNOWLEDGED + 3));
    let listed = lab
        .topo
        .host()
        .sh("conntrack -L -p tcp 2>/dev/null")
        .expect("conntrack lists");
    let left = |line: &str| {
        line.split_whitespace()
            .nth(2)
            .and_then(|seconds| seconds.parse::<u64>().ok())
    };
    let of_this = |line: &&str| line.contains(&format!("dport={PORT} "));
    let seconds = listed.lines().filter(of_this).find_map(left);
    assert!(
        seconds.is_some_and(|seconds| seconds > 400_000),
        "{listed}\n{}",
        lab.netfast.log()
    );
    let mut ends = (server, client);
    exchange(&mut ends, 3);
}

#[test]
fn beside_a_daemon() {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let (lab, client, server) = busy();
    goes_on(&lab, client, server);
}

#[test]
fn after_a_daemon_that_ended() {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let (mut lab, client, server) = busy();
    lab.netfast.stop(Signal::SIGTERM).expect("it ends");
    goes_on(&lab, client, server);
}

#[test]
fn after_a_daemon_that_was_killed_when_the_next_one_runs() {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let (mut lab, client, server) = busy();
    lab.netfast.stop(Signal::SIGKILL).expect("it dies");
    let mut ends = (client, server);
    keep_busy(&mut ends);
    lab.netfast.launch().expect("the next one");
    goes_on(&lab, ends.0, ends.1);
}

#[test]
fn after_detach() {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let (lab, client, server) = busy();
    lab.netfast.detach().expect("detached");
    goes_on(&lab, client, server);
}
