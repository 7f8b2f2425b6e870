//! Two bridges of the host joined by a veth pair, as weave joins its bridge with its datapath: containers on the one, the way to
//! other hosts on the other.

use netfast_tests::{
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo::{self, Topo},
};

use super::super::{
    lab::{Echo, Lab, ask, at, introduce, udp, until_answered, warm},
    paths, transfer,
};

/// The far container's address, at the other end of the tunnel.
const FAR: &str = "172.30.0.200";

/// Joins the containers' bridge to another one with a tunnel to the client, which plays a container of another host.
fn join(topo: &Topo) {
    let (host, lan) = (topo.host(), topo.lan());
    for line in [
        "link add datapath mtu 1376 type bridge",
        "link add vethwe-bridge mtu 1376 type veth peer name vethwe-datapath mtu 1376",
        "link set vethwe-bridge master br-0 up",
        "link set vethwe-datapath master datapath up",
    ] {
        host.ip(line).expect("a part of it");
    }
    for (ns, near, far) in [(host, HOST_IP, LAN_IP), (lan, LAN_IP, HOST_IP)] {
        ns.ip(&format!(
            "link add vxlan-6784 mtu 1376 type vxlan id 6784 dstport 6784 local {near} remote {far} dev eth0"
        ))
        .expect("a tunnel");
    }
    host.ip("link set vxlan-6784 master datapath up").expect("a port");
    host.ip("link set datapath up").expect("it is up");
    lan.ip("link set vxlan-6784 up").expect("it is up");
    lan.ip(&format!("addr add {FAR}/24 dev vxlan-6784"))
        .expect("an address");
    for container in &topo.bridges[0].containers {
        host.ip(&format!("link set {} mtu 1376", container.veth))
            .expect("an MTU");
        container.ns.ip("link set eth0 mtu 1376").expect("an MTU");
        container
            .ns
            .sh(&format!("busybox ping -c1 -W5 {FAR}"))
            .expect("the far container answers");
    }
}

/// Many stations are behind each end of the pair, so it leads off the containers' bridge as a tunnel's port does: fast up to it and from
/// it on.
#[test]
fn joined_by_a_veth_pair() {
    if !needs(&[Need::Root]) {
        return;
    }
    let options = topo::Options {
        bridges: vec![2],
        iptables: false,
        br_netfilter: false,
        published: Vec::new(),
    };
    let topo = Topo::new(&options).expect("a topology");
    join(&topo);
    introduce(&topo);
    let lab = Lab::around(topo, Some("tunnels = true\ndirect = true\n"));
    let a = lab.topo.container(0, 0);
    let far = FAR.parse::<std::net::Ipv4Addr>().expect("an address");
    for (client, to, server) in [(&*a.ns, far, &**lab.topo.lan()), (lab.topo.lan(), a.ip, &a.ns)] {
        transfer::bulk(client, at(to, 7001), server, 7001);
        let before = lab.fast();
        transfer::datagrams(client, at(to, 7001), server, 7001, 5000);
        println!("{} of 5000 to {to}", lab.fast() - before);
    }
    // What is answered is learned: one-way datagrams to a port that the bridge may flood are not.
    for (client, to, server) in [(&*a.ns, far, &**lab.topo.lan()), (lab.topo.lan(), a.ip, &a.ns)] {
        let _echo = Echo::start(server, 7002);
        let socket = udp(client, 0, at(to, 7002));
        until_answered(&socket, "the first answer");
        warm(&lab, &socket);
        let before = lab.fast();
        assert!((0..500).all(|_| ask(&socket)), "{}", lab.told());
        assert!(lab.fast() >= before + 980, "{} {}", lab.fast() - before, lab.told());
    }
    let check = lab.netfast.verb(&["status", "--json"]).expect("a report");
    assert!(check.contains("vethwe-bridge"), "{check}");
    let explained = lab.netfast.verb(&["explain", &a.veth, FAR]).expect("a report");
    println!("{explained}");
    // And what stays on the containers' own bridge goes fast.
    let b = lab.topo.container(0, 1);
    paths::both(&lab, &a.ns, at(b.ip, 7001), &b.ns, 7001);
}
