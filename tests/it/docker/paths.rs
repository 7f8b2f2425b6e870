//! Every way that a container's packets go: each is bit-exact, each is fast.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Kind, Options},
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    traffic::{crr, rr},
};

use super::bed::{Bed, PORT, Reach, TIMEOUT, docker_host, echoes, listening, reaches, report, run, serve};

#[test]
fn every_path_is_exact_and_fast_as_installed() {
    every_path(true);
}

#[test]
fn every_path_is_exact_and_fast_without_the_userland_proxy() {
    every_path(false);
}

/// Its server answers one datagram and then only listens: the flow waited for ever for its reverse to be learned.
#[test]
fn iperf3_is_fast_by_tcp_and_by_udp() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("iperf3")]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("mine", &[]).expect("a network");
    let (tcp, udp) = (format!("8080:{PORT}"), format!("8080:{PORT}/udp"));
    host.run_container("c-a", "bridge", &["-p", &tcp, "-p", &udp], &[])
        .expect("c-a");
    for (name, network) in [("c-b", "bridge"), ("c-c", "mine"), ("c-d", "mine")] {
        host.run_container(name, network, &[], &[]).expect("a container");
    }
    let bed = Bed::start(host, None);
    for (container, network) in [("c-a", "bridge"), ("c-b", "bridge"), ("c-c", "mine"), ("c-d", "mine")] {
        bed.await_fast(container, network);
    }
    let [a, b, c, d] = ["c-a", "c-b", "c-c", "c-d"].map(|container| bed.ns(container));
    let lan = bed.host.lan().handle();
    for (what, client, server, to) in [
        ("docker0", &b, &a, bed.at("c-a", "bridge")),
        ("user-defined bridge", &d, &c, bed.at("c-c", "mine")),
        ("published", &lan, &a, SocketAddrV4::new(HOST_IP, 8080)),
        ("masquerade", &d, &lan, SocketAddrV4::new(LAN_IP, PORT)),
    ] {
        for (protocol, is_udp) in [("TCP", false), ("UDP", true)] {
            let what = format!("{what}, iperf3 over {protocol}");
            let ((), counted) = bed.count(|| iperf3(client, server, to, is_udp));
            println!("{what}: {counted}");
            bed.must_be_fast(&what, counted, 0.99);
        }
    }
}

/// iperf3, as users run it: a connection that carries as much as it can, then datagrams at 200 Mb/s. Its server answers
/// the first datagram and no other.
fn iperf3(client: &NsHandle, server: &NsHandle, to: SocketAddrV4, udp: bool) {
    let (ip, port) = (to.ip().to_string(), to.port().to_string());
    let serving = server
        .spawn(&["iperf3", "--server", "--one-off", "--port", &PORT.to_string()])
        .expect("iperf3 starts");
    let serving = listening(server, serving);
    let mut line = vec!["iperf3", "--client", &ip, "--port", &port, "--time", "2"];
    if udp {
        line.extend(["--udp", "--bitrate", "200M", "--length", "1400"]);
    }
    let done = client
        .spawn(&line)
        .expect("iperf3 starts")
        .wait(cmd::TIME_LIMIT)
        .expect("iperf3 ends");
    assert!(
        done.status.success(),
        "to {to}: {done:?}; the server: {:?}",
        serving.stop()
    );
    serving.wait(TIMEOUT).expect("its server ends");
}

fn every_path(userland_proxy: bool) {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options {
        userland_proxy,
        ..Options::default()
    });
    let hairpin = SocketAddrV4::new(HOST_IP, 8080);
    containers(&host);
    // Docker before 28 keeps UDP from the own bridge out of DNAT, and its proxy's answers come from the wrong address.
    let answers = {
        let [a, b] = ["c-a", "c-b"].map(|name| host.container_netns(name).expect("a container"));
        let _server = serve(&a, &["rr-server", &PORT.to_string()]);
        echoes(&b, hairpin, Duration::from_secs(1))
    };
    let bed = Bed::start(host, None);
    for (container, network) in PLACES {
        bed.await_fast(container, network);
    }
    let [a, b, c, d, inner, other] = PLACES.map(|(container, _)| bed.ns(container));
    let (host, lan) = (bed.host.host().handle(), bed.host.lan().handle());

    bed.prove("docker0", &b, &a, bed.at("c-a", "bridge"));
    bed.prove("user-defined bridge", &d, &c, bed.at("c-c", "mine"));
    bed.prove("internal network", &other, &inner, bed.at("c-e", "inside"));
    bed.prove("published, docker0", &lan, &a, SocketAddrV4::new(HOST_IP, 8080));
    bed.prove("published, user-defined", &lan, &c, SocketAddrV4::new(HOST_IP, 8081));
    let outside = SocketAddrV4::new(LAN_IP, PORT);
    bed.prove("masquerade, docker0", &b, &lan, outside);
    bed.prove("masquerade, user-defined", &d, &lan, outside);
    bed.prove("host to container", &host, &a, bed.at("c-a", "bridge"));
    bed.prove("host to container, user-defined", &host, &c, bed.at("c-c", "mine"));
    let gateway = bed.host.attachment("c-b", "bridge").expect("c-b is there").gateway;
    let gateway = SocketAddrV4::new(gateway.parse().expect("an address"), PORT);
    bed.prove("container to host", &b, &host, gateway);
    // Not by UDP: the server's answers come from the bridge's address, as a host's do.
    let uplink = SocketAddrV4::new(HOST_IP, PORT);
    bed.prove_tcp("container to the host's uplink address", &d, &host, uplink);

    for (what, client, server, to) in [
        ("docker0", &b, &a, bed.at("c-a", "bridge")),
        ("user-defined bridge", &d, &c, bed.at("c-c", "mine")),
        ("published", &lan, &c, SocketAddrV4::new(HOST_IP, 8081)),
        ("masquerade", &d, &lan, outside),
        ("host to container", &host, &a, bed.at("c-a", "bridge")),
        ("container to host", &b, &host, gateway),
    ] {
        small_things(what, client, server, to);
    }

    // By the host's own address, and by the loopback's, which is translated once more.
    bed.prove_tcp("host to published port", &host, &a, hairpin);
    bed.prove_tcp("localhost", &host, &a, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
    bed.prove_tcp("hairpin", &b, &a, hairpin);
    if answers {
        bed.prove_udp("hairpin", &b, &a, hairpin);
    } else {
        let server = serve(&a, &["rr-server", &PORT.to_string()]);
        assert!(
            !echoes(&b, hairpin, Duration::from_secs(1)),
            "UDP through docker-proxy on the own bridge"
        );
        drop(server);
    }
    // podman keeps only networks apart that ask for it.
    let reach = match bed.host.release().kind() {
        Kind::Docker => Reach::None,
        Kind::Podman => Reach::Both,
    };
    let server = serve(&a, &["rr-server", &PORT.to_string()]);
    reaches("from another bridge", &d, bed.at("c-a", "bridge"), reach);
    drop(server);
}

/// The containers of tests of every path, each with its network.
pub const PLACES: [(&str, &str); 6] = [
    ("c-a", "bridge"),
    ("c-b", "bridge"),
    ("c-c", "mine"),
    ("c-d", "mine"),
    ("c-e", "inside"),
    ("c-f", "inside"),
];

fn containers(host: &DockerHost) {
    // As a guide to Docker's networks makes it.
    let pool = [
        "--subnet=172.72.0.0/16",
        "--ip-range=172.72.0.0/24",
        "--gateway=172.72.0.1",
    ];
    host.create_network("mine", &pool).expect("a network");
    host.create_network("inside", &["--internal"]).expect("a network");
    for (name, network) in PLACES {
        let port = match name {
            "c-a" => 8080,
            "c-c" => 8081,
            _ => 0,
        };
        let (tcp, udp) = (format!("{port}:{PORT}"), format!("{port}:{PORT}/udp"));
        let published = ["-p", &tcp, "-p", &udp];
        let extra = if port == 0 { &[][..] } else { &published[..] };
        host.run_container(name, network, extra, &[]).expect("a container");
    }
}

/// Short connections one after the other, with ports used again, and datagrams in fragments: none may be lost.
fn small_things(what: &str, client: &NsHandle, server: &NsHandle, to: SocketAddrV4) {
    let (port, to) = (PORT.to_string(), to.to_string());
    let echo = serve(server, &["rr-server", &port]);
    let line = ["rr", &to, "--udp", "--size", "3000", "--seconds", "0.3"];
    let done = run(client, &line).wait(TIMEOUT).expect("rr ends");
    let fragmented: rr::Report = report(&done);
    drop(echo);
    let closing = serve(server, &["crr-server", &port]);
    let done = run(client, &["crr", &to, "--seconds", "0.5"])
        .wait(TIMEOUT)
        .expect("crr ends");
    let short: crr::Report = report(&done);
    drop(closing);
    println!(
        "{what}: {} datagrams in fragments, {} short connections",
        fragmented.transactions, short.connections
    );
    assert!(
        fragmented.errors == 0 && fragmented.transactions > 0,
        "{what}: {fragmented:?}"
    );
    assert!(short.errors == 0 && short.connections > 0, "{what}: {short:?}");
}
