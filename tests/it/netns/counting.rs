//! Who counts what: conntrack's accounting is exact as long as nobody says that it may lag, and netfast's metrics are
//! what the containers' own interfaces count.

use std::{net::SocketAddr, net::UdpSocket};

use netfast::config::DEFAULT_METRICS;
use netfast_tests::{
    cmd,
    require::{Need, needs},
    site::HOST_IP,
};
use serde_json::Value;

use super::lab::{Echo, Lab, TIMEOUT, ask, at, topology, udp, until_answered, warm};
use crate::metrics;

/// Questions of each conversation that is counted.
const QUESTIONS: u64 = 200;

/// A conversation of the outside with the published port, which has been answered.
fn published(lab: &Lab, port: u16) -> (Echo, UdpSocket) {
    let echo = Echo::start(&lab.topo.container(0, 0).ns, 7001);
    let to: SocketAddr = at(HOST_IP, 7000);
    let socket = udp(lab.topo.lan(), port, to);
    until_answered(&socket, "the first answer");
    (echo, socket)
}

fn path(lab: &Lab) -> String {
    let text = lab.netfast.verb(&["networks", "br-0", "--json"]).expect("a network");
    let networks: Value = serde_json::from_str(&text).expect("JSON");
    let network = &networks["networks"][0];
    let word = |key: &str| network[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("path"), word("why"))
}

fn set_accounting(lab: &Lab, on: &str) {
    let host = lab.topo.host();
    host.set_sysctl("net/netfilter/nf_conntrack_acct", on)
        .expect("a switch");
}

fn until(lab: &Lab, wanted: &str) {
    cmd::poll(wanted, TIMEOUT, || (path(lab).trim() == wanted).then_some(())).expect("netfast finds out");
}

/// Packets of a conversation by its source port, as conntrack counts them, each way.
fn tracked(lab: &Lab, port: u16) -> [u64; 2] {
    let line = format!("conntrack -L -p udp --orig-port-src {port} 2>/dev/null");
    let shown = lab.topo.host().sh(&line).expect("conntrack's entries");
    let mut counts = shown
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("packets="));
    let mut next = || counts.next().and_then(|count| count.parse().ok());
    match (next(), next()) {
        (Some(there), Some(back)) => [there, back],
        _ => panic!("no counts in {shown:?}"),
    }
}

fn ask_all(socket: &UdpSocket) {
    let answered = (0..QUESTIONS).filter(|_| ask(socket)).count() as u64;
    assert_eq!(answered, QUESTIONS, "nothing is lost here");
}

fn ready() -> bool {
    needs(&[Need::Root, Need::Program("conntrack")])
}

#[test]
fn conntrack_counts_every_packet_once_its_accounting_is_on() {
    if !ready() {
        return;
    }
    let lab = Lab::start();
    let (_echo, early) = published(&lab, 42_300);
    warm(&lab, &early);
    set_accounting(&lab, "1");
    until(&lab, "slow accounting");
    // The earlier one has no counters: conntrack gives them to new connections only.
    let late = udp(lab.topo.lan(), 42_301, at(HOST_IP, 7000));
    let fast = lab.fast();
    ask_all(&late);
    assert_eq!(tracked(&lab, 42_301), [QUESTIONS; 2]);
    assert_eq!(lab.fast(), fast, "all of them took the kernel's path");
    let told = lab.netfast.verb(&["explain", "veth0x0"]).expect("an explanation");
    assert!(
        told.contains("conntrack accounting is on") && told.contains("allow_accounting"),
        "{told}"
    );
    let checked = lab.netfast.verb(&["check", "--runtime", "none"]).expect("a report");
    assert!(checked.contains("nf_conntrack_acct"), "{checked}");
    set_accounting(&lab, "0");
    until(&lab, "fast");
    warm(&lab, &early);
}

#[test]
fn conntrack_may_lag_where_the_operator_says_so() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), Some("allow_accounting = true\nrevalidate_ms = 10000\n"));
    set_accounting(&lab, "1");
    let (_echo, socket) = published(&lab, 42_302);
    warm(&lab, &socket);
    ask_all(&socket);
    let [there, back] = tracked(&lab, 42_302);
    assert!(
        there < QUESTIONS && back < QUESTIONS,
        "{there} and {back}: nothing was fast"
    );
    assert_eq!(path(&lab).trim(), "fast");
    let checked = lab.netfast.verb(&["check", "--runtime", "none"]).expect("a report");
    assert!(checked.contains("nf_conntrack_acct"), "{checked}");
}

/// Sent and received packets and bytes of a container's interface, as it counts them itself.
fn own_counters(lab: &Lab, place: usize) -> [u64; 4] {
    let shown = lab
        .topo
        .container(0, place)
        .ns
        .sh("ip -s -j link show eth0")
        .expect("counters");
    let links: Value = serde_json::from_str(&shown).expect("JSON");
    let stats = &links[0]["stats64"];
    let number = |side: &str, key: &str| stats[side][key].as_u64().expect("a number");
    [
        number("tx", "packets"),
        number("tx", "bytes"),
        number("rx", "packets"),
        number("rx", "bytes"),
    ]
}

/// The same from the metrics.
fn metrics_of(lab: &Lab, place: usize) -> [u64; 4] {
    let host = lab.topo.host().handle();
    let answer = metrics::get(&host, DEFAULT_METRICS, "/metrics", "").expect("it is served");
    let samples = metrics::samples(&answer.body);
    let veth = &lab.topo.container(0, place).veth;
    let sample = |what: &str, direction: &str| -> u64 {
        let labels = format!("{{\"container\": {veth:?}, \"direction\": {direction:?}, \"network\": \"br-0\"}}");
        let name = format!("netfast_endpoint_interface_{what}_total{labels}");
        let value = samples
            .get(&name)
            .unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
        value.to_string().parse().expect("a whole number")
    };
    [
        sample("packets", "sent"),
        sample("bytes", "sent"),
        sample("packets", "received"),
        sample("bytes", "received"),
    ]
}

/// What `check` says of the kernel: whether what the fast path delivers to a container is counted there.
fn counts_redirected(lab: &Lab) -> bool {
    let checked = lab.netfast.verb(&["check", "--runtime", "none", "--json"]);
    let report: Value = serde_json::from_str(&checked.expect("a report")).expect("JSON");
    let mut lines = report["lines"].as_array().expect("lines").iter();
    let line = lines.find(|line| line["subject"] == "counting of redirected packets");
    line.expect("it is said")["level"] == "ok"
}

#[test]
fn metrics_count_what_the_containers_count() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let _echo = Echo::start(&a.ns, 7060);
    let socket = udp(&b.ns, 42_303, at(a.ip, 7060));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    // Until ARP and the like are over: both are read at one moment then.
    let read = |place| {
        cmd::poll("a quiet moment", TIMEOUT, || {
            let (before, told, after) = (
                own_counters(&lab, place),
                metrics_of(&lab, place),
                own_counters(&lab, place),
            );
            (before == after).then_some((told, after))
        })
        .expect("it is quiet for a moment")
    };
    let (before, fast) = ([read(0), read(1)], lab.fast());
    ask_all(&socket);
    let after = [read(0), read(1)];
    assert!(lab.fast() > fast + QUESTIONS, "they took the fast path");
    for (place, (told, own)) in after.into_iter().enumerate() {
        assert_eq!(told, own, "container {place}");
        let (was, _) = before[place];
        let since: Vec<u64> = told.iter().zip(was).map(|(now, was)| now - was).collect();
        // 64 bytes of payload, 28 of headers, 14 of Ethernet; besides at most an ARP packet or two.
        let few = |count: u64, each: u64| (QUESTIONS * each..=QUESTIONS * each + 10 * each).contains(&count);
        let received = few(since[2], 1) && few(since[3], 106);
        assert!(
            few(since[0], 1) && few(since[1], 106) && received == counts_redirected(&lab),
            "container {place}: {since:?}"
        );
    }
}
