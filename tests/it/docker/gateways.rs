//! The gateway modes of a bridge network (`com.docker.network.bridge.gateway_mode_ipv4` and `…_ipv6`, Docker since 28): with
//! netfast everybody reaches exactly whom the engine lets them reach, and fast. Run by
//! `cargo xtask test docker --engine 28.5 --only gateways`.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use netfast_tests::{
    docker_host::{DockerHost, Options},
    netfast_proc::Totals,
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, HOST_IP6, LAN_IP, LAN_IP6},
};

use super::bed::{Bed, PORT, connects, docker_host, echoes, is_fast, run, serve};

/// A port that every server listens on and nobody publishes.
const HIDDEN: u16 = 7002;

/// The modes, each a network's name too, with the third byte of its addresses and the host's port.
const MODES: [(&str, u8, u16); 4] = [
    ("nat", 1, 8081),
    ("nat-unprotected", 2, 8082),
    ("routed", 3, 8083),
    ("isolated", 4, 8084),
];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Another container of the network.
    Inside,
    /// A container of another network.
    Elsewhere,
    /// The outside client.
    Lan,
    /// The host.
    Host,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// The published port, by the host's address.
    Published,
    /// The published port, by the container's address.
    Straight,
    /// The other port, by the container's address.
    Hidden,
    /// The outside client.
    Out,
}

/// What the engine's documentation says of each mode, for both families.
fn is_allowed(mode: &str, from: From, to: To) -> bool {
    let is_isolated = mode == "isolated";
    match (from, to) {
        (From::Inside, To::Straight | To::Hidden) => true,
        (From::Inside, To::Out) | (From::Host, _) => !is_isolated,
        (From::Lan | From::Elsewhere, To::Published) => mode.starts_with("nat"),
        // Straight to containers there is a way from outside in the one mode, and from everywhere in the other, if published.
        (From::Lan, To::Straight) => mode == "nat-unprotected" || mode == "routed",
        (From::Lan, To::Hidden) => mode == "nat-unprotected",
        (From::Elsewhere, To::Straight) => mode == "routed",
        _ => false,
    }
}

const ASKED: [(From, To); 10] = [
    (From::Inside, To::Straight),
    (From::Inside, To::Hidden),
    (From::Inside, To::Out),
    (From::Lan, To::Published),
    (From::Lan, To::Straight),
    (From::Lan, To::Hidden),
    (From::Elsewhere, To::Published),
    (From::Elsewhere, To::Straight),
    (From::Elsewhere, To::Hidden),
    (From::Host, To::Straight),
];

/// A question: who reaches whom.
struct Case {
    what: String,
    mode: &'static str,
    client: NsHandle,
    to: SocketAddr,
    allowed: bool,
}

fn network(host: &DockerHost, name: &str, number: u8, extra: &[&str]) {
    let four = format!("--subnet=172.31.{number}.0/24");
    let six = format!("--subnet=fd00:50:{number}::/64");
    let options = [&["--ipv6", &four, &six], extra].concat();
    host.create_network(name, &options).expect("a network");
}

/// A network of each mode with a server and a client, and one more client on a network of its own.
fn host() -> DockerHost {
    let host = docker_host(Options {
        dockerd_flags: vec!["--ipv6".to_owned()],
        ..Options::default()
    });
    host.in_host(&format!("ip -6 route replace default via {LAN_IP6} dev eth0"))
        .expect("a route");
    for line in [
        format!("ip route add 172.31.0.0/16 via {HOST_IP}"),
        format!("ip -6 route add fd00:50::/32 via {HOST_IP6}"),
    ] {
        host.in_lan(&line).expect("a route");
    }
    let port = PORT.to_string();
    for (mode, number, published) in MODES {
        let modes = ["ipv4", "ipv6"].map(|family| format!("com.docker.network.bridge.gateway_mode_{family}={mode}"));
        let mut options = vec!["-o", &modes[0], "-o", &modes[1]];
        if mode == "isolated" {
            options.push("--internal");
        }
        network(&host, mode, number, &options);
        let (tcp, udp) = (format!("{published}:{PORT}"), format!("{published}:{PORT}/udp"));
        let server = ["netfast-traffic", "rr-server", &port];
        host.run_container(&format!("{mode}-1"), mode, &["-p", &tcp, "-p", &udp], &server)
            .expect("a server");
        host.run_container(&format!("{mode}-2"), mode, &[], &[])
            .expect("a client");
    }
    network(&host, "elsewhere", 5, &[]);
    host.run_container("elsewhere-1", "elsewhere", &[], &[])
        .expect("a client");
    host
}

fn cases(host: &DockerHost) -> Vec<Case> {
    let ns = |container: &str| host.container_netns(container).expect("a container");
    let (lan, own, elsewhere) = (host.lan().handle(), host.host().handle(), ns("elsewhere-1"));
    let mut cases = Vec::new();
    for (mode, _, published) in MODES {
        let attachment = host.attachment(&format!("{mode}-1"), mode).expect("it is there");
        let six = attachment.ip6.parse().expect("an IPv6 address");
        for (family, container, outer, outside) in [
            (
                "IPv4",
                IpAddr::V4(attachment.ip),
                IpAddr::V4(HOST_IP),
                IpAddr::V4(LAN_IP),
            ),
            ("IPv6", IpAddr::V6(six), IpAddr::V6(HOST_IP6), IpAddr::V6(LAN_IP6)),
        ] {
            for (from, to) in ASKED {
                let client = match from {
                    From::Inside => ns(&format!("{mode}-2")),
                    From::Elsewhere => elsewhere.clone(),
                    From::Lan => lan.clone(),
                    From::Host => own.clone(),
                };
                let address = match to {
                    To::Published => SocketAddr::new(outer, published),
                    To::Straight => SocketAddr::new(container, PORT),
                    To::Hidden => SocketAddr::new(container, HIDDEN),
                    To::Out => SocketAddr::new(outside, PORT),
                };
                cases.push(Case {
                    what: format!("{mode}, {family}, {from:?} to {to:?}"),
                    mode,
                    client,
                    to: address,
                    allowed: is_allowed(mode, from, to),
                });
            }
        }
    }
    cases
}

/// Asks all at once, by TCP and by UDP, and fails unless everybody reaches whom they may, and nobody else.
fn ask(cases: &[Case], when: &str) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let asking: Vec<_> = cases
            .iter()
            .map(|case| {
                scope.spawn(|| {
                    let patience = Duration::from_millis(if case.allowed { 10_000 } else { 2000 });
                    let tcp = connects(&case.client, case.to, patience);
                    let udp = echoes(&case.client, case.to, patience);
                    let right = (tcp, udp) == (case.allowed, case.allowed);
                    (!right).then(|| format!("{}: allowed {}, TCP {tcp}, UDP {udp}", case.what, case.allowed))
                })
            })
            .collect();
        asking
            .into_iter()
            .filter_map(|asked| asked.join().expect("it was asked"))
            .collect()
    });
    assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
}

#[test]
fn every_gateway_mode_is_kept_and_fast_where_it_allows() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = host();
    assert!(
        host.release().is_docker_since(28, 0).expect("a version"),
        "it is about Docker since 28"
    );
    let cases = cases(&host);
    let hidden = MODES.map(|(mode, ..)| {
        let ns = host.container_netns(&format!("{mode}-1")).expect("a container");
        run(&ns, &["rr-server", &HIDDEN.to_string()])
    });
    let outside = serve(&host.lan().handle(), &["rr-server", &PORT.to_string()]);
    ask(&cases, "without netfast");

    let bed = Bed::start(host, None);
    for (mode, ..) in MODES {
        bed.await_fast(&format!("{mode}-1"), mode);
        bed.await_fast(&format!("{mode}-2"), mode);
    }
    // The second time every verdict that could be learned has been.
    ask(&cases, "with netfast");
    ask(&cases, "with netfast, once more");
    for (mode, ..) in MODES {
        let allowed = cases.iter().filter(|case| case.mode == mode && case.allowed);
        let all = allowed
            .map(|case| is_fast(&bed, &case.what, &case.client, case.to))
            .fold(Totals::default(), Totals::plus);
        let path = format!("gateway mode {mode}, whomever it allows");
        bed.record(&path, "TCP and UDP of both families", all.fast_share(), 0);
    }
    ask(&cases, "with netfast, after all were fast");
    bed.record(
        "gateway modes nat, nat-unprotected, routed, isolated",
        "both families",
        None,
        0,
    );
    drop((hidden, outside));
}
