//! IPv6 as the engine gives it: networks of both families, masquerade and published ports by its rules of `ip6tables`.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Kind, Options},
    require::{Need, needs},
    site::{HOST_IP6, LAN_IP6},
};

use super::{
    bed::{Bed, PORT, Reach, connects, docker_host, echoes, reaches, run, serve},
    paths::PLACES,
};

/// The ports of the host that the servers on docker0 and on the user-defined bridge are published on.
const PUBLISHED: [u16; 2] = [8080, 8081];

/// A host whose networks have both families, without netfast; and whether the containers of an internal network reach each
/// other: with `br_netfilter` on, engines before 27.3 drop their neighbour solicitations, which go to no address of it.
fn host(userland_proxy: bool) -> (DockerHost, Reach) {
    // Rules for IPv6 are an experiment of engines before 27.0, and the default since.
    let flags = [
        "--experimental",
        "--ipv6",
        "--ip6tables",
        "--fixed-cidr-v6=fd00:40::/64",
    ];
    let host = docker_host(Options {
        userland_proxy,
        dockerd_flags: flags.map(str::to_owned).to_vec(),
        ..Options::default()
    });
    host.host()
        .ip(&format!("-6 route replace default via {LAN_IP6} dev eth0"))
        .expect("a route");
    // podman gives a network the families of the subnets that are named, and no others.
    let subnets = |number| {
        [
            format!("--subnet=172.31.{number}.0/24"),
            format!("--subnet=fd00:{number}::/64"),
        ]
    };
    for (name, number, extra) in [("mine", 41, "--ipv6"), ("inside", 42, "--internal")] {
        let [four, six] = subnets(number);
        host.create_network(name, &["--ipv6", extra, &four, &six])
            .expect("a network");
    }
    for (name, network) in places(&host) {
        let port = match name {
            "c-a" => PUBLISHED[0],
            "c-c" => PUBLISHED[1],
            _ => 0,
        };
        let (tcp, udp) = (format!("{port}:{PORT}"), format!("{port}:{PORT}/udp"));
        let published: &[&str] = if port == 0 { &[] } else { &["-p", &tcp, "-p", &udp] };
        host.run_container(name, network, published, &[]).expect("a container");
    }
    let [e, f] = ["c-e", "c-f"].map(|name| host.container_netns(name).expect("a container"));
    let server = serve(&e, &["rr-server", &PORT.to_string()]);
    let to = address_of(&host, "c-e", "inside");
    let inside = if connects(&f, to, Duration::from_secs(5)) {
        Reach::Both
    } else {
        Reach::None
    };
    drop(server);
    (host, inside)
}

/// The containers. podman's default network has no IPv6, and its configuration file alone could give it one.
fn places(host: &DockerHost) -> Vec<(&'static str, &'static str)> {
    let has_ipv6 = |network: &str| host.release().kind() == Kind::Docker || network != "bridge";
    PLACES.into_iter().filter(|(_, network)| has_ipv6(network)).collect()
}

/// netfast on such a host.
fn bed() -> (Bed, Reach) {
    let (host, inside) = host(true);
    (started(host), inside)
}

fn started(host: DockerHost) -> Bed {
    let bed = Bed::start(host, None);
    for (container, network) in places(&bed.host) {
        bed.await_fast(container, network);
    }
    bed
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
    every_path(true);
}

#[test]
fn every_path_of_ipv6_is_exact_and_fast_without_the_userland_proxy() {
    every_path(false);
}

fn every_path(userland_proxy: bool) {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let (host, inside) = host(userland_proxy);
    let is_docker = host.release().kind() == Kind::Docker;
    let hairpin = at(HOST_IP6, PUBLISHED[0]);
    // As in IPv4: the proxy's answers come from another address than was asked.
    let answers = is_docker && {
        let [a, b] = ["c-a", "c-b"].map(|name| host.container_netns(name).expect("a container"));
        let _server = serve(&a, &["rr-server", &PORT.to_string()]);
        echoes(&b, hairpin, Duration::from_secs(1))
    };
    let bed = started(host);
    let [c, d] = ["c-c", "c-d"].map(|container| bed.ns(container));
    let (host, lan) = (bed.host.host().handle(), bed.host.lan().handle());
    let outside = at(LAN_IP6, PORT);
    if is_docker {
        let [a, b] = ["c-a", "c-b"].map(|container| bed.ns(container));
        let on_docker0 = address_of(&bed.host, "c-a", "bridge");
        bed.prove("docker0", &b, &a, on_docker0);
        bed.prove("published, docker0", &lan, &a, hairpin);
        bed.prove("masquerade, docker0", &b, &lan, outside);
        bed.prove("host to container", &host, &a, on_docker0);
        let gateway = at("fd00:40::1".parse().expect("an address"), PORT);
        bed.prove("container to host", &b, &host, gateway);
        bed.prove_tcp("host to published port", &host, &a, hairpin);
        // Nobody translates what goes to ::1: the proxy serves it, or nobody does.
        let localhost = at(Ipv6Addr::LOCALHOST, PUBLISHED[0]);
        if userland_proxy {
            bed.prove_tcp("localhost", &host, &a, localhost);
        } else {
            let server = serve(&a, &["rr-server", &PORT.to_string()]);
            assert!(!connects(&host, localhost, Duration::from_secs(1)), "{localhost}");
            drop(server);
        }
        bed.prove_tcp("hairpin", &b, &a, hairpin);
        if answers {
            bed.prove_udp("hairpin", &b, &a, hairpin);
        }
    }
    let on_mine = address_of(&bed.host, "c-c", "mine");
    bed.prove("user-defined bridge", &d, &c, on_mine);
    bed.prove("published, user-defined", &lan, &c, at(HOST_IP6, PUBLISHED[1]));
    bed.prove("masquerade, user-defined", &d, &lan, outside);
    bed.prove("host to container, user-defined", &host, &c, on_mine);
    bed.prove_tcp("container to the host's uplink address", &d, &host, at(HOST_IP6, PORT));
    if inside == Reach::Both {
        let [e, f] = ["c-e", "c-f"].map(|container| bed.ns(container));
        bed.prove("internal network", &f, &e, address_of(&bed.host, "c-e", "inside"));
    }
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
    bed.host
        .in_lan(&format!("ip -6 route add fd00:40::/63 via {HOST_IP6}"))
        .expect("a route");
    let straight = if bed.host.release().opens_published_containers().expect("a version") {
        Reach::Both
    } else {
        Reach::None
    };
    let cases = [
        (
            "straight to a published port's container",
            &lan,
            address_of(&bed.host, "c-a", "bridge"),
            straight,
        ),
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
        ("where it is published", &lan, at(HOST_IP6, PUBLISHED[0]), Reach::Both),
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
    for rule in [
        "bridges are kept apart",
        "nobody leaves an internal network, or enters it",
        "straight to a container from outside",
    ] {
        bed.record(rule, "ip6tables", None, 0);
    }
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
    let to = at(HOST_IP6, PUBLISHED[0]);
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
    bed.record("a rule in FORWARD in mid-flow", "ip6tables", None, 0);
    bed.host
        .in_host(&format!("ip6tables -w -D {rule}"))
        .expect("the rule goes");
    drop(flow);
    reaches("the way is free again", &lan, to, Reach::Both);
    drop(server);
}
