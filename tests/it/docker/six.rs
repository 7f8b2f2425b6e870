//! IPv6 as the engine gives it: networks of both families, masquerade and published ports by its rules of `ip6tables`.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    docker_host::Options,
    require::{Need, needs},
    site::{HOST_IP6, LAN_IP6},
};

use super::bed::{Bed, PORT, Reach, docker_host, reaches, run, serve};

/// The port of the host that the server on docker0 is published on.
const PUBLISHED: u16 = 8080;

/// The containers, each with its network.
const PLACES: [(&str, &str); 6] = [
    ("c-a", "bridge"),
    ("c-b", "bridge"),
    ("c-c", "mine"),
    ("c-d", "mine"),
    ("c-e", "inside"),
    ("c-f", "inside"),
];

/// A host whose networks have both families, with netfast on it.
fn bed() -> Bed {
    // Rules for IPv6 are an experiment of engines before 27.0, and the default since.
    let flags = [
        "--experimental",
        "--ipv6",
        "--ip6tables",
        "--fixed-cidr-v6=fd00:40::/64",
    ];
    let host = docker_host(Options {
        dockerd_flags: flags.map(str::to_owned).to_vec(),
        ..Options::default()
    });
    host.host()
        .ip(&format!("-6 route replace default via {LAN_IP6} dev eth0"))
        .expect("a route");
    host.create_network("mine", &["--ipv6", "--subnet=fd00:41::/64"])
        .expect("a network");
    host.create_network("inside", &["--internal", "--ipv6", "--subnet=fd00:42::/64"])
        .expect("a network");
    let (tcp, udp) = (format!("{PUBLISHED}:{PORT}"), format!("{PUBLISHED}:{PORT}/udp"));
    for (name, network) in PLACES {
        let published: &[&str] = if name == "c-a" { &["-p", &tcp, "-p", &udp] } else { &[] };
        host.run_container(name, network, published, &[]).expect("a container");
    }
    let bed = Bed::start(host, None);
    for (container, network) in PLACES {
        bed.await_fast(container, network);
    }
    bed
}

fn at(ip: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(ip, port, 0, 0).into()
}

impl Bed {
    /// The container's IPv6 address on a network, with [`PORT`].
    fn at6(&self, container: &str, network: &str) -> SocketAddr {
        let attachment = self.host.attachment(container, network).expect("it is there");
        at(attachment.ip6.parse().expect("an IPv6 address"), PORT)
    }
}

#[test]
fn every_path_of_ipv6_is_exact_and_fast() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = bed();
    let [a, b, c, d, e, f] = PLACES.map(|(container, _)| bed.ns(container));
    let (host, lan) = (bed.host.host().handle(), bed.host.lan().handle());
    let outside = at(LAN_IP6, PORT);
    for (what, client, server, to) in [
        ("docker0, IPv6", &b, &a, bed.at6("c-a", "bridge")),
        ("user-defined bridge, IPv6", &d, &c, bed.at6("c-c", "mine")),
        ("internal network, IPv6", &f, &e, bed.at6("c-e", "inside")),
        ("published, IPv6", &lan, &a, at(HOST_IP6, PUBLISHED)),
        ("masquerade, docker0, IPv6", &b, &lan, outside),
        ("masquerade, user-defined, IPv6", &d, &lan, outside),
        ("host to container, IPv6", &host, &a, bed.at6("c-a", "bridge")),
        (
            "container to host, IPv6",
            &b,
            &host,
            at("fd00:40::1".parse().expect("an address"), PORT),
        ),
    ] {
        bed.prove(what, client, server, to);
    }
    bed.prove_tcp("hairpin, IPv6", &b, &a, at(HOST_IP6, PUBLISHED));
}

#[test]
fn what_ipv6_may_reach_is_what_the_engine_lets_it() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("ip6tables")]) {
        return;
    }
    let bed = bed();
    let lan = bed.host.lan().handle();
    let [bridge, mine, inside] = ["c-b", "c-d", "c-f"].map(|name| bed.ns(name));
    let servers = ["c-a", "c-c", "c-e"].map(|name| serve(&bed.ns(name), &["rr-server", &PORT.to_string()]));
    let outside = serve(&lan, &["rr-server", &PORT.to_string()]);
    let cases = [
        ("on docker0", &bridge, bed.at6("c-a", "bridge"), Reach::Both),
        ("on a user-defined bridge", &mine, bed.at6("c-c", "mine"), Reach::Both),
        ("on an internal bridge", &inside, bed.at6("c-e", "inside"), Reach::Both),
        ("out of docker0", &bridge, at(LAN_IP6, PORT), Reach::Both),
        ("where it is published", &lan, at(HOST_IP6, PUBLISHED), Reach::Both),
        ("from bridge to bridge", &bridge, bed.at6("c-c", "mine"), Reach::None),
        ("out of an internal bridge", &inside, at(LAN_IP6, PORT), Reach::None),
        ("into an internal bridge", &mine, bed.at6("c-e", "inside"), Reach::None),
    ];
    // The second time every verdict that could be learned has been.
    for round in 1..=2 {
        for (what, client, to, reach) in &cases {
            reaches(&format!("{what}, IPv6, round {round}"), client, *to, *reach);
        }
    }
    drop((servers, outside));
}

/// A rule against a flow that is on the fast path.
#[test]
fn a_rule_of_ip6tables_ends_a_published_flow() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("ip6tables")]) {
        return;
    }
    let bed = bed();
    let (lan, a) = (bed.host.lan().handle(), bed.ns("c-a"));
    let server = serve(&a, &["rr-server", &PORT.to_string()]);
    let to = at(HOST_IP6, PUBLISHED);
    let flow = run(&lan, &["rr", &to.to_string(), "--seconds", "60", "--size", "100"]);
    thread::sleep(Duration::from_millis(700));
    let ((), counted) = bed.count(|| thread::sleep(Duration::from_millis(700)));
    bed.must_be_fast("published, IPv6", counted, 0.9);
    let rule = format!("FORWARD -d {} -j DROP", bed.at6("c-a", "bridge").ip());
    bed.host.in_host(&format!("ip6tables -w -I {rule}")).expect("a rule");
    let start = Instant::now();
    cmd::poll("the flow stops", Duration::from_secs(5), || {
        let ((), counted) = bed.count(|| thread::sleep(Duration::from_millis(250)));
        (counted.packets.fast_packets == 0).then_some(())
    })
    .expect("the rule ends it");
    println!("it was stopped after {} ms at most", start.elapsed().as_millis());
    bed.host
        .in_host(&format!("ip6tables -w -D {rule}"))
        .expect("the rule goes");
    drop(flow);
    reaches("the way is free again", &lan, to, Reach::Both);
    drop(server);
}
