//! What the engine's rules forbid stays forbidden, also in the middle of a flow that has long been fast.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    docker_host::{Iptables, Options},
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
};
use nix::sys::signal::Signal;

use super::bed::{Bed, PORT, Reach, docker_host, is_fast, reaches, run, serve, stat};

#[test]
fn rules_hold_with_iptables_nft() {
    rules_hold(Iptables::Nft, "iptables-nft");
}

#[test]
fn rules_hold_with_iptables_legacy() {
    rules_hold(Iptables::Legacy, "iptables-legacy");
}

fn rules_hold(iptables: Iptables, tool: &'static str) {
    if !needs(&[Need::Root, Need::Docker, Need::Program(tool)]) {
        return;
    }
    // docker0 with and without icc; a user-defined network without it is on both hosts.
    let icc = iptables == Iptables::Nft;
    let host = docker_host(Options {
        iptables,
        dockerd_flags: vec![format!("--icc={icc}")],
        ..Options::default()
    });
    // The host's second address on its uplink, which nothing is published on.
    host.host().ip("addr add 198.18.0.2/24 dev eth0").expect("an address");
    host.create_network("mine", &[]).expect("a network");
    host.create_network("quiet", &["-o", "com.docker.network.bridge.enable_icc=false"])
        .expect("a network without icc");
    host.create_network("inside", &["--internal"])
        .expect("an internal network");
    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    let one_address = format!("{HOST_IP}:8080:{PORT}");
    let published = ["-p", &one_address, "-p", &format!("{one_address}/udp")];
    for (network, extra) in [
        ("bridge", &published[..]),
        ("mine", &[]),
        ("quiet", &["-p", "8082:7001"]),
        ("inside", &[]),
    ] {
        host.run_container(&format!("{network}-1"), network, extra, &server)
            .expect("a server");
        host.run_container(&format!("{network}-2"), network, &[], &[])
            .expect("a client");
    }
    // So that the daemon's own part shows: without it the rule would hold only after this time.
    let mut bed = Bed::start(host, Some("revalidate_ms = 10000"));
    for network in ["bridge", "mine", "quiet", "inside"] {
        bed.await_fast(&format!("{network}-1"), network);
        bed.await_fast(&format!("{network}-2"), network);
    }

    who_reaches_whom(&bed, icc);
    for rule in [
        "bridges are kept apart",
        "nobody leaves an internal network, or enters it",
        "icc=false",
        "straight to a container from outside",
        "a port is published on one address alone",
    ] {
        bed.record(rule, tool, None, 0);
    }
    drop_in_mid_flow(&mut bed, tool, Daemon::Alive, Duration::from_secs(8));
    bed.record("a rule in DOCKER-USER in mid-flow", tool, None, 0);

    // Without the daemon each flow asks the kernel by itself, once in an interval.
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    let quick = super::bed::options(&bed.host, Some("revalidate_ms = 1000"));
    drop(bed.netfast);
    bed.netfast = netfast_tests::netfast_proc::NetfastProc::start(bed.host.host(), quick).expect("netfast starts");
    bed.await_fast("bridge-2", "bridge");
    drop_in_mid_flow(&mut bed, tool, Daemon::Killed, Duration::from_secs(15));
    bed.record("the same, with the daemon killed", tool, None, 0);
}

/// What becomes of the daemon once a flow is fast.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Alive,
    Killed,
}

/// Who may reach whom, asked twice: the second time every verdict that could be learned has been.
fn who_reaches_whom(bed: &Bed, icc: bool) {
    let lan = bed.host.lan().handle();
    let outside = serve(&lan, &["rr-server", &PORT.to_string()]);
    let at = |ip| SocketAddrV4::new(ip, PORT);
    let published = |ip: &str| SocketAddrV4::new(ip.parse().expect("an address"), 8080);
    let (bridge, mine) = (bed.ns("bridge-2"), bed.ns("mine-2"));
    let (quiet, inside) = (bed.ns("quiet-2"), bed.ns("inside-2"));
    bed.host
        .in_lan(&format!("ip route add 172.16.0.0/12 via {HOST_IP}"))
        .expect("a route");
    let is_open = bed.host.release().opens_published_containers().expect("a version");
    let cases: [(&str, bool, &NsHandle, SocketAddrV4); 14] = [
        (
            "straight to a published port's container",
            is_open,
            &lan,
            bed.at("bridge-1", "bridge"),
        ),
        ("straight to a container", false, &lan, bed.at("mine-1", "mine")),
        ("on docker0", icc, &bridge, bed.at("bridge-1", "bridge")),
        ("on a user-defined bridge", true, &mine, bed.at("mine-1", "mine")),
        ("from bridge to bridge", false, &bridge, bed.at("mine-1", "mine")),
        (
            "from bridge to bridge, back",
            false,
            &mine,
            bed.at("bridge-1", "bridge"),
        ),
        ("on a bridge without icc", false, &quiet, bed.at("quiet-1", "quiet")),
        ("out of a bridge without icc", true, &quiet, at(LAN_IP)),
        ("on an internal bridge", true, &inside, bed.at("inside-1", "inside")),
        ("out of an internal bridge", false, &inside, at(LAN_IP)),
        ("into an internal bridge", false, &mine, bed.at("inside-1", "inside")),
        ("out of docker0", true, &bridge, at(LAN_IP)),
        ("where it is published", true, &lan, published("198.18.0.1")),
        ("where it is not published", false, &lan, published("198.18.0.2")),
    ];
    let ((), counted) = bed.count(|| {
        for round in 1..=2 {
            for (what, may, client, to) in &cases {
                let reach = if *may { Reach::Both } else { Reach::None };
                reaches(&format!("{what}, round {round}"), client, *to, reach);
            }
        }
        // Published on the bridge without icc: only its own members are kept apart.
        let quiet = SocketAddrV4::new(HOST_IP, 8082);
        reaches("published on a bridge without icc", &lan, quiet, Reach::Tcp);
        for (what, may, client, to) in &cases {
            if *may {
                is_fast(bed, what, client, *to);
            }
        }
    });
    assert!(counted.packets.fast_packets > 0, "{counted}");
    drop(outside);
}

/// A rule in DOCKER-USER against a flow that is on the fast path; it must hold within the bound, and the way be free
/// again when the rule is gone.
fn drop_in_mid_flow(bed: &mut Bed, tool: &str, daemon: Daemon, bound: Duration) {
    let (client, server) = (bed.host.lan().handle(), bed.ns("bridge-1"));
    let published = SocketAddrV4::new(HOST_IP, 8080);
    let to = published.to_string();
    let rule = format!("DOCKER-USER -d {} -j DROP", bed.ip("bridge-1", "bridge"));
    let udp = ["udp-send", &to, "--seconds", "120", "--rate", "5000", "--batch", "1"];
    let tcp = ["rr", &to, "--seconds", "120", "--size", "100"];
    for (protocol, counter, line) in [("Udp", "InDatagrams", &udp[..]), ("Tcp", "InSegs", &tcp[..])] {
        let flow = run(&client, line);
        thread::sleep(Duration::from_millis(700));
        if daemon == Daemon::Killed {
            bed.netfast.stop(Signal::SIGKILL).expect("netfast is killed");
        }
        let ((), counted) = bed.count(|| thread::sleep(Duration::from_millis(700)));
        bed.must_be_fast(protocol, counted, 0.9);
        bed.host.in_host(&format!("{tool} -I {rule}")).expect("a rule");
        let start = Instant::now();
        let stopped = cmd::poll("the flow stops", bound, || {
            let before = stat(&server, protocol, counter);
            thread::sleep(Duration::from_millis(250));
            (stat(&server, protocol, counter) == before).then_some(())
        });
        let after = start.elapsed().as_millis().saturating_sub(250);
        println!("{protocol}: {counted}; {tool} stopped it after {after} ms at most");
        if let Err(error) = stopped {
            panic!("{protocol}: {error}; netfast said:\n{}", bed.netfast.log());
        }
        bed.host.in_host(&format!("{tool} -D {rule}")).expect("the rule goes");
        drop(flow);
        if daemon == Daemon::Killed {
            // New conversations wait for it.
            bed.netfast.launch().expect("netfast starts again");
        }
        reaches("the way is free again", &client, published, Reach::Both);
    }
}
