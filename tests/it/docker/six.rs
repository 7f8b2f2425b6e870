//! IPv6 as the engine gives it: networks of both families, masquerade and published ports by its rules of `ip6tables`.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    require::{Need, needs},
    site::{HOST_IP6, LAN_IP6},
};

use super::{
    bed::{Bed, PORT, Reach, connects, docker_host, reaches, run, serve},
    paths::PLACES,
};

/// The port of the host that the server on docker0 is published on.
const PUBLISHED: u16 = 8080;

/// A host whose networks have both families, with netfast on it; and whether the containers of an internal network reach each
/// other without it: with `br_netfilter` on, Docker 20.10 drops their neighbour solicitations, which go to no address of it.
fn bed() -> (Bed, Reach) {
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
    let inside = {
        let [e, f] = ["c-e", "c-f"].map(|name| host.container_netns(name).expect("a container"));
        let _server = serve(&e, &["rr-server", &PORT.to_string()]);
        let to = address_of(&host, "c-e", "inside");
        if connects(&f, to, Duration::from_secs(5)) {
            Reach::Both
        } else {
            Reach::None
        }
    };
    let bed = Bed::start(host, None);
    for (container, network) in PLACES {
        bed.await_fast(container, network);
    }
    (bed, inside)
}

/// The container's IPv6 address on a network, with [`PORT`].
fn address_of(host: &DockerHost, container: &str, network: &str) -> SocketAddr {
    let attachment = host.attachment(container, network).expect("it is there");
    at(attachment.ip6.parse().expect("an IPv6 address"), PORT)
}

fn at(ip: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(ip, port, 0, 0).into()
}

#[test]
fn every_path_of_ipv6_is_exact_and_fast() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let (bed, inside) = bed();
    let [server, client, mine, mine_client, inner, inner_client] = PLACES.map(|(container, _)| bed.ns(container));
    let (host, lan) = (bed.host.host().handle(), bed.host.lan().handle());
    let outside = at(LAN_IP6, PORT);
    for (what, from, to, address) in [
        (
            "docker0, IPv6",
            &client,
            &server,
            address_of(&bed.host, "c-a", "bridge"),
        ),
        (
            "user-defined bridge, IPv6",
            &mine_client,
            &mine,
            address_of(&bed.host, "c-c", "mine"),
        ),
        ("published, IPv6", &lan, &server, at(HOST_IP6, PUBLISHED)),
        ("masquerade, docker0, IPv6", &client, &lan, outside),
        ("masquerade, user-defined, IPv6", &mine_client, &lan, outside),
        (
            "host to container, IPv6",
            &host,
            &server,
            address_of(&bed.host, "c-a", "bridge"),
        ),
        (
            "container to host, IPv6",
            &client,
            &host,
            at("fd00:40::1".parse().expect("an address"), PORT),
        ),
    ] {
        bed.prove(what, from, to, address);
    }
    if inside == Reach::Both {
        bed.prove(
            "internal network, IPv6",
            &inner_client,
            &inner,
            address_of(&bed.host, "c-e", "inside"),
        );
    }
    bed.prove_tcp("hairpin, IPv6", &client, &server, at(HOST_IP6, PUBLISHED));
}

#[test]
fn what_ipv6_may_reach_is_what_the_engine_lets_it() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("ip6tables")]) {
        return;
    }
    let (bed, within) = bed();
    let lan = bed.host.lan().handle();
    let [bridge, mine, inside] = ["c-b", "c-d", "c-f"].map(|name| bed.ns(name));
    let servers = ["c-a", "c-c", "c-e"].map(|name| serve(&bed.ns(name), &["rr-server", &PORT.to_string()]));
    let outside = serve(&lan, &["rr-server", &PORT.to_string()]);
    let cases = [
        (
            "on docker0",
            &bridge,
            address_of(&bed.host, "c-a", "bridge"),
            Reach::Both,
        ),
        (
            "on a user-defined bridge",
            &mine,
            address_of(&bed.host, "c-c", "mine"),
            Reach::Both,
        ),
        (
            "on an internal bridge",
            &inside,
            address_of(&bed.host, "c-e", "inside"),
            within,
        ),
        ("out of docker0", &bridge, at(LAN_IP6, PORT), Reach::Both),
        ("where it is published", &lan, at(HOST_IP6, PUBLISHED), Reach::Both),
        (
            "from bridge to bridge",
            &bridge,
            address_of(&bed.host, "c-c", "mine"),
            Reach::None,
        ),
        ("out of an internal bridge", &inside, at(LAN_IP6, PORT), Reach::None),
        (
            "into an internal bridge",
            &mine,
            address_of(&bed.host, "c-e", "inside"),
            Reach::None,
        ),
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
    let (bed, _) = bed();
    let (lan, a) = (bed.host.lan().handle(), bed.ns("c-a"));
    let server = serve(&a, &["rr-server", &PORT.to_string()]);
    let to = at(HOST_IP6, PUBLISHED);
    let flow = run(&lan, &["rr", &to.to_string(), "--seconds", "60", "--size", "100"]);
    thread::sleep(Duration::from_millis(700));
    let ((), counted) = bed.count(|| thread::sleep(Duration::from_millis(700)));
    bed.must_be_fast("published, IPv6", counted, 0.9);
    let rule = format!("FORWARD -d {} -j DROP", address_of(&bed.host, "c-a", "bridge").ip());
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
