//! What `netfast explain` says of an engine's networks, beside what their packets do.

use std::net::SocketAddr;

use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP, LAN_IP6},
};
use serde_json::Value;

use super::bed::{Bed, PORT, docker_host};

/// The verdict, all causes, and the text.
fn said(bed: &Bed, from: &str, to: &str) -> (String, Vec<String>, String) {
    let json = bed
        .netfast
        .verb(&["explain", from, to, "--json"])
        .expect("an explanation");
    let explained: Value = serde_json::from_str(&json).expect("JSON");
    let ways = explained["ways"].as_array().expect("ways");
    let steps = ways.iter().flat_map(|way| way["steps"].as_array().expect("steps"));
    let causes = steps.filter_map(|step| step["why"].as_str().map(Into::into)).collect();
    let text = bed.netfast.verb(&["explain", from, to]).expect("text");
    (explained["verdict"].as_str().expect("a verdict").into(), causes, text)
}

#[test]
fn nothing_is_called_fast_that_the_engine_s_rules_may_drop() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("quiet", &["-o", "com.docker.network.bridge.enable_icc=false"])
        .expect("a network without icc");
    host.create_network("inside", &["--internal"])
        .expect("an internal network");
    for network in ["bridge", "quiet", "inside"] {
        for number in 1..=2 {
            let published = format!("{}:{PORT}", 8080 + number);
            let ports = ["-p", &published];
            let extra = if network == "bridge" { &ports[..] } else { &[] };
            host.run_container(&format!("{network}-{number}"), network, extra, &[])
                .expect("a container");
        }
    }
    host.run_container("monitor", "host", &[], &[]).expect("monitor");
    let bed = Bed::start(host, None);
    for network in ["bridge", "quiet", "inside"] {
        bed.await_fast(&format!("{network}-1"), network);
        bed.await_fast(&format!("{network}-2"), network);
    }
    let outside = LAN_IP.to_string();
    let (verdict, _, text) = said(&bed, "inside-1", &outside);
    assert!(
        verdict == "kernel-decides" && text.contains("internal network"),
        "{text}"
    );
    let (verdict, _, text) = said(&bed, "quiet-1", "quiet-2");
    assert!(verdict == "kernel-decides" && text.contains("icc=false"), "{text}");
    // A published port of its own, and one of another.
    let (verdict, causes, text) = said(&bed, "bridge-1", &format!("{HOST_IP}:8081"));
    assert_eq!(
        (verdict.as_str(), causes),
        ("kernel-decides", vec!["same-device".into()]),
        "{text}"
    );
    let (verdict, _, text) = said(&bed, "bridge-2", &format!("{HOST_IP}:8081"));
    assert!(
        verdict == "kernel-decides" && text.contains("published port of bridge-1"),
        "{text}"
    );
    let general = bed.netfast.verb(&["explain", "monitor"]).expect("an explanation");
    assert!(general.contains("shares the host's own namespace"), "{general}");
    // What is let through is fast, and said to be.
    for network in ["bridge", "inside"] {
        let (one, other) = (format!("{network}-1"), format!("{network}-2"));
        let to = format!("{other}:{PORT}/udp");
        let (before, _, text) = said(&bed, &one, &to);
        assert_ne!(before, "slow", "{text}");
        bed.prove_udp(network, &bed.ns(&one), &bed.ns(&other), bed.at(&other, network));
        let (after, _, text) = said(&bed, &one, &to);
        assert_eq!(after, "fast", "{text}");
    }
}

/// IPv6 is explained by the same steps, from its own rules, routes and addresses.
#[test]
fn ipv6_is_called_what_its_packets_are() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.host()
        .ip(&format!("-6 route replace default via {LAN_IP6} dev eth0"))
        .expect("a route");
    host.create_network("dual", &["--ipv6", "--subnet=fd00:51::/64"])
        .expect("a network of both families");
    host.create_network("inside", &["--internal", "--ipv6", "--subnet=fd00:52::/64"])
        .expect("an internal network");
    host.create_network("four", &[]).expect("a network of IPv4");
    for name in ["dual-1", "dual-2", "inside-1", "four-1"] {
        let network = name.split('-').next().expect("its network");
        host.run_container(name, network, &[], &[]).expect("a container");
    }
    let bed = Bed::start(host, None);
    for name in ["dual-1", "dual-2", "inside-1", "four-1"] {
        bed.await_fast(name, name.split('-').next().expect("its network"));
    }
    let outside = LAN_IP6.to_string();
    let (verdict, _, text) = said(&bed, "inside-1", &outside);
    assert!(
        verdict == "kernel-decides" && text.contains("internal network"),
        "{text}"
    );
    // It has no address that its packets could come from.
    let (verdict, causes, text) = said(&bed, "four-1", &outside);
    assert_eq!((verdict.as_str(), causes), ("slow", vec!["spoofed".into()]), "{text}");
    let (verdict, _, text) = said(&bed, "dual-1", &outside);
    assert!(verdict != "slow" && text.contains("way out (eth0)"), "{text}");
    let attachment = bed.host.attachment("dual-2", "dual").expect("it is there");
    let to = SocketAddr::new(attachment.ip6.parse().expect("an IPv6 address"), PORT);
    let asked = format!("{to}/udp");
    let (before, _, text) = said(&bed, "dual-1", &asked);
    assert_ne!(before, "slow", "{text}");
    bed.prove_udp("dual, IPv6", &bed.ns("dual-1"), &bed.ns("dual-2"), to);
    let (after, _, text) = said(&bed, "dual-1", &asked);
    assert_eq!(after, "fast", "{text}");
}
