//! Data between two namespaces, by the traffic tool: all of it arrives, as it was sent.

use std::{env, net::SocketAddr, time::Duration};

use netfast_tests::{
    cmd,
    netns::NsHandle,
    programs,
    traffic::{hash, udp_send, udp_sink},
};
use serde::de::DeserializeOwned;

use super::lab::TIMEOUT;

/// MiB that go each way by TCP, and the variable that says how many if not these.
const MIB: u64 = 48;
const VARIABLE: &str = "NETFAST_TEST_MIB";

fn bytes() -> u64 {
    let said = env::var(VARIABLE).ok();
    let mib = said.map_or(MIB, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{VARIABLE}={text} is no number of MiB"))
    });
    mib << 20
}

fn traffic() -> String {
    programs::traffic().expect("the traffic tool").display().to_string()
}

fn report<T: DeserializeOwned>(stdout: &str) -> T {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// Starts a server and waits until it listens.
pub fn serve(ns: &NsHandle, verb: &str, port: u16, kind: &str) -> cmd::Background {
    let server = ns.spawn(&[&traffic(), verb, &port.to_string()]).expect("a server");
    cmd::poll("a server that listens", TIMEOUT, || {
        let sockets = ns
            .sh(&format!(
                "cat /proc/thread-self/net/{kind} /proc/thread-self/net/{kind}6"
            ))
            .ok()?;
        sockets.contains(&format!(":{port:04X} ")).then_some(())
    })
    .expect("it listens");
    server
}

/// TCP both ways at once, to a server on `port` that `to` leads to: bit-exact, closed at once.
pub fn bulk(client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16) {
    let serving = serve(server, "recv-hash", port, "tcp");
    let bytes = bytes();
    let line = format!("{} send-hash {to} --bytes {bytes} --back {bytes}", traffic());
    let sent: hash::Report = report(&client.sh(&line).expect("the data is sent"));
    let got: hash::ServerReport = report(&serving.wait(Duration::from_secs(20)).expect("its end").stdout);
    assert!(sent.exact, "the answer was damaged");
    assert!(
        got.errors.is_empty() && got.connections[0].exact,
        "the data was damaged: {got:?}"
    );
    assert_eq!(sent.sent_sha256, got.connections[0].received_sha256);
    assert_eq!(sent.received_sha256, got.connections[0].sent_sha256);
}

/// Datagrams one after the other, `rate` a second, to a server on `port` that `to` leads to: all counted.
pub fn datagrams(client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16, rate: u32) {
    let sink = serve(server, "udp-sink", port, "udp");
    let line = format!("{} udp-send {to} --seconds 1 --rate {rate} --batch 8", traffic());
    let sent: udp_send::Report = report(&client.sh(&line).expect("datagrams are sent"));
    let got: udp_sink::Report = report(&sink.stop().expect("the sink's report").stdout);
    assert_eq!(
        (got.received + got.dropped, sent.errors),
        (sent.sent, 0),
        "{sent:?} {got:?}"
    );
}
