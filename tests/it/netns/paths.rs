//! Data over every path: bit-exact, on the fast path, and closed without hanging.

use std::net::SocketAddr;

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    programs,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo,
};

use super::{
    lab::{Lab, at, topology},
    transfer,
};

/// The part of the data packets that must take the fast path.
const SHARE: f64 = 0.99;
/// Those that were longer than what the kernel had let through before: what is on its way while a flow's packets grow.
const TOO_BIG_SHARE: f64 = 0.05;
/// Those of the millisecond or so until the daemon has looked at a flow's conntrack entry.
const UNVETTED_SHARE: f64 = 0.05;
/// No data, or not of ours; and those whose part depends on how fast the machine is: the packet per direction and second
/// that asks the kernel again, or passes the bridge, and the longer ones and the first ones, which have bounds of their own.
const NOT_COUNTED: [Reason; 13] = [
    Reason::NotIp,
    Reason::IpOptions,
    Reason::LinkLocal,
    Reason::NeighbourDiscovery,
    Reason::OtherProtocol,
    Reason::NotUnicast,
    Reason::TcpSyn,
    Reason::TcpFin,
    Reason::TcpRst,
    Reason::Revalidate,
    Reason::PortDue,
    Reason::TooBig,
    Reason::Unvetted,
];

/// Packets of data so far: fast, and slow.
fn data(lab: &Lab) -> (u64, u64) {
    let counted = Reason::ALL
        .iter()
        .filter(|reason| reason.is_slow() && !NOT_COUNTED.contains(reason));
    (lab.fast(), counted.map(|reason| lab.count(*reason)).sum())
}

/// Enough was fast since then.
fn check_share(lab: &Lab, before: (u64, u64), at_least: u64) {
    let now = data(lab);
    let (fast, slow) = (now.0 - before.0, now.1 - before.1);
    let share = fast as f64 / (fast + slow) as f64;
    assert!(
        fast > at_least && share > SHARE,
        "{fast} of {} data packets took the fast path; slow: {}",
        fast + slow,
        lab.told()
    );
    let too_big = lab.count(Reason::TooBig) as f64 / lab.fast() as f64;
    assert!(too_big < TOO_BIG_SHARE, "too big: {}", lab.told());
    let unvetted = lab.count(Reason::Unvetted) as f64 / lab.fast() as f64;
    assert!(unvetted < UNVETTED_SHARE, "unvetted: {}", lab.told());
    let totals = lab.netfast.totals().expect("totals");
    assert!(totals.fast_packets >= now.0, "status counts {totals:?}");
}

/// TCP both ways at once: fast.
fn bulk(lab: &Lab, client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16) {
    let before = data(lab);
    transfer::bulk(client, to, server, port);
    check_share(lab, before, 100);
}

/// Datagrams one after the other: fast.
fn datagrams(lab: &Lab, client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16) {
    let before = data(lab);
    transfer::datagrams(client, to, server, port, 10_000);
    check_share(lab, before, 500);
}

pub(super) fn both(lab: &Lab, client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16) {
    bulk(lab, client, to, server, port);
    datagrams(lab, client, to, server, port);
}

#[test]
fn same_bridge() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
}

/// However short the rest of the test is: this flow lives until it has asked, or far longer than it may go without.
#[test]
fn a_live_flow_asks_the_kernel_again() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let traffic = programs::traffic().expect("the traffic tool").display().to_string();
    let _echo = transfer::serve(&b.ns, "rr-server", 7001, "udp");
    let to = at(b.ip, 7001);
    let _load =
        a.ns.spawn(&[&traffic, "rr", "--udp", &to.to_string(), "--seconds", "60"])
            .expect("a load");
    cmd::poll("a packet that asks the kernel again", super::lab::TIMEOUT, || {
        (lab.fast() > 0 && lab.count(Reason::Revalidate) > 0).then_some(())
    })
    .expect("no flow has asked the kernel again");
}

#[test]
fn same_bridge_without_br_netfilter() {
    if !needs(&[Need::Root]) {
        return;
    }
    let options = topo::Options {
        br_netfilter: false,
        ..topology()
    };
    let lab = Lab::with(&options, None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
}

#[test]
fn between_bridges_that_may_talk() {
    if !needs(&[Need::Root]) {
        return;
    }
    let options = topo::Options {
        iptables: false,
        published: Vec::new(),
        ..topology()
    };
    let lab = Lab::with(&options, None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(1, 0));
    both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
}

#[test]
fn container_to_outside() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    both(
        &lab,
        &lab.topo.container(0, 0).ns,
        at(LAN_IP, 7001),
        lab.topo.lan(),
        7001,
    );
}

#[test]
fn outside_to_published_port() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    both(
        &lab,
        lab.topo.lan(),
        at(HOST_IP, 7000),
        &lab.topo.container(0, 0).ns,
        7001,
    );
}

#[test]
fn host_to_container() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let a = lab.topo.container(0, 0);
    both(&lab, lab.topo.host(), at(a.ip, 7001), &a.ns, 7001);
}

#[test]
fn container_to_host() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let gateway = lab.topo.bridges[0].gateway;
    both(
        &lab,
        &lab.topo.container(0, 0).ns,
        at(gateway, 7001),
        lab.topo.host(),
        7001,
    );
}

/// A host that forwards nothing is reached all the same.
#[test]
fn container_to_a_host_that_does_not_forward() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let host = lab.topo.host();
    host.set_sysctl("net/ipv4/ip_forward", "0").expect("off");
    let gateway = lab.topo.bridges[0].gateway;
    both(&lab, &lab.topo.container(0, 0).ns, at(gateway, 7001), host, 7001);
}

/// Through the host's address to another container of the same bridge, as with `--userland-proxy=false`.
#[test]
fn hairpin_to_published_port() {
    if !needs(&[Need::Root]) {
        return;
    }
    let options = topo::Options {
        published: Vec::new(),
        ..topology()
    };
    let topo = topo::Topo::new(&options).expect("a topology");
    let ip = topo.container(0, 0).ip;
    for protocol in ["tcp", "udp"] {
        for rule in [
            format!("-t nat -A DOCKER -p {protocol} --dport 7000 -j DNAT --to {ip}:7001"),
            format!("-t filter -A DOCKER -d {ip} -o br-0 -p {protocol} --dport 7001 -j ACCEPT"),
            format!("-t nat -A POSTROUTING -s 172.30.0.0/24 -d {ip} -p {protocol} --dport 7001 -j MASQUERADE"),
        ] {
            topo.iptables(&rule).expect("a rule");
        }
    }
    topo.host()
        .ip("link set veth0x0 type bridge_slave hairpin on")
        .expect("hairpin");
    topo.host()
        .ip("link set veth0x1 type bridge_slave hairpin on")
        .expect("hairpin");
    let lab = Lab::around(topo, None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    both(&lab, &b.ns, at(HOST_IP, 7000), &a.ns, 7001);
}
