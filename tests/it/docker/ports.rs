//! Published ports in all the ways that `-p` knows: ranges, and addresses of the host.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
    site::{HOST_IP, HOST_IP6},
};

use super::bed::{Bed, PORT, Reach, docker_host, is_fast, reaches, run, serve};

/// The host's second address on its uplink.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

#[test]
fn ranges_and_single_addresses_are_fast_where_they_are_published_and_nowhere_else() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.host()
        .ip(&format!("addr add {SECOND}/24 dev eth0"))
        .expect("an address");
    host.create_network("mine", &[]).expect("a network");
    let published = |what: &str| [what.to_owned(), format!("{what}/udp")];
    for (name, network, what) in [
        ("range", "bridge", "7000-7010:7000-7010".to_owned()),
        ("one", "mine", format!("{HOST_IP}:8080:{PORT}")),
        ("loopback", "mine", format!("127.0.0.1:8090:{PORT}")),
    ] {
        let [tcp, udp] = published(&what);
        host.run_container(name, network, &["-p", &tcp, "-p", &udp], &[])
            .expect("a container");
    }
    let bed = Bed::start(host, None);
    let containers = [("range", "bridge"), ("one", "mine"), ("loopback", "mine")];
    for (container, network) in containers {
        bed.await_fast(container, network);
    }
    let [range, one, loopback] = containers.map(|(container, _)| bed.ns(container));
    let (host, lan) = (bed.host.host().handle(), bed.host.lan().handle());
    let at = |ip: Ipv4Addr, port| SocketAddrV4::new(ip, port);

    // One of the range's ports is the one that these tests' servers have.
    bed.prove("published, a range of ports", &lan, &range, at(SECOND, PORT));
    bed.prove("published on one address", &lan, &one, at(HOST_IP, 8080));
    bed.prove_tcp(
        "published on 127.0.0.1",
        &host,
        &loopback,
        at(Ipv4Addr::LOCALHOST, 8090),
    );

    let ends = [7000, 7010, 7011].map(|port: u16| run(&range, &["rr-server", &port.to_string()]));
    let servers = [&range, &one, &loopback].map(|ns| serve(ns, &["rr-server", &PORT.to_string()]));
    let cases: [(&str, SocketAddr, Reach); 8] = [
        ("the first of the range", at(HOST_IP, 7000).into(), Reach::Both),
        ("the last of the range", at(HOST_IP, 7010).into(), Reach::Both),
        ("after the range", at(HOST_IP, 7011).into(), Reach::None),
        ("before the range", at(HOST_IP, 6999).into(), Reach::None),
        ("on its address", at(HOST_IP, 8080).into(), Reach::Both),
        ("on another address", at(SECOND, 8080).into(), Reach::None),
        (
            "on another family's address",
            SocketAddr::new(HOST_IP6.into(), 8080),
            Reach::None,
        ),
        ("on the loopback's, from outside", at(HOST_IP, 8090).into(), Reach::None),
    ];
    // The second time every verdict that could be learned has been.
    for round in 1..=2 {
        for (what, to, reach) in cases {
            reaches(&format!("{what}, round {round}"), &lan, to, reach);
        }
    }
    for (what, to, _) in cases.into_iter().filter(|(_, _, reach)| *reach == Reach::Both) {
        is_fast(&bed, what, &lan, to);
    }
    bed.record("ranges of ports and single addresses, and no others", "-p", None, 0);
    drop((ends, servers));
}
