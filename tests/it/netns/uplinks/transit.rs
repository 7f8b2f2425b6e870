//! A router: what is forwarded from one uplink to another, with no container at either end.

use std::net::Ipv4Addr;

use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::{NetNs, veth_pair},
    require::{Need, needs},
};

use super::super::{
    lab::{Echo, TIMEOUT, ask, at, udp, until_answered, until_silent},
    transfer,
};

const PORT: u16 = 7002;

/// A router between two hosts. In the order of dropping: netfast before its namespace.
struct Router {
    netfast: NetfastProc,
    forwarding: NetNs,
    client: NetNs,
    server: NetNs,
}

const fn address(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 81, network, host)
}

impl Router {
    fn start(config: &str) -> Self {
        let [router, client, server] =
            ["router", "client", "server"].map(|name| NetNs::new(name).expect("a network namespace"));
        for (network, host) in [(1, &client), (2, &server)] {
            let port = format!("eth{network}");
            veth_pair((&router, &port), (host, "eth0")).expect("a veth pair");
            for (ns, device, last) in [(&router, port.as_str(), 1), (host, "eth0", 2)] {
                let ip = address(network, last);
                ns.ip(&format!("addr add {ip}/24 dev {device}")).expect("an address");
                ns.ip(&format!("link set {device} up")).expect("up");
            }
            let gateway = address(network, 1);
            host.ip(&format!("route add default via {gateway}")).expect("a route");
        }
        router.set_sysctl("net/ipv4/ip_forward", "1").expect("it forwards");
        // Answers are told from requests: conntrack follows all.
        router
            .sh("iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT")
            .expect("a rule");
        let options = Options {
            config: Some(config.into()),
            ..Options::no_runtime()
        };
        Self {
            netfast: NetfastProc::start(&router, options).expect("netfast starts"),
            forwarding: router,
            client,
            server,
        }
    }

    fn fast(&self) -> u64 {
        self.netfast.totals().expect("totals").fast_packets
    }
}

/// Data is exact and fast; what a rule forbids stops within a second, and what must be seen packet by packet is slow.
#[test]
fn a_router_is_fast_if_it_is_wanted() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = Router::start("learn_after = 0\ntransit = true\n");
    let server = address(2, 2);
    transfer::bulk(&world.client, at(server, 7001), &world.server, 7001);
    let share = world.netfast.totals().expect("totals").fast_share().expect("packets");
    assert!(share > 0.9, "{share}: {}", world.netfast.log());

    let _echo = Echo::start(&world.server, PORT);
    let socket = udp(&world.client, 40_001, at(server, PORT));
    until_answered(&socket, "before the rule");
    let rule = |verb: &str| {
        let line = format!("iptables -{verb} FORWARD -p udp --dport {PORT} -j DROP");
        world.forwarding.sh(&line).expect("a rule");
    };
    rule("I");
    until_silent(&socket, "while a rule forbids it");
    rule("D");
    until_answered(&socket, "afterwards");

    let check = |world: &Router| {
        let config = world.netfast.run_dir().join("netfast.toml").display().to_string();
        world
            .netfast
            .verb(&["check", "--runtime", "none", "--config", &config])
            .expect("netfast can run here")
    };
    assert!(check(&world).contains("what is forwarded between uplinks is fast"));
    world
        .forwarding
        .sh("iptables -A FORWARD -m limit --limit 1/s -j ACCEPT")
        .expect("a rule");
    let said = check(&world);
    assert!(
        said.contains("takes the kernel's path: this rule must see every packet"),
        "{said}"
    );
    cmd::poll("the kernel's path, once the daemon has read the rules", TIMEOUT, || {
        let before = world.fast();
        let is_answered = (0..4).all(|_| ask(&socket));
        (is_answered && world.fast() == before).then_some(())
    })
    .expect("none is fast");
}

/// Without the key nothing of it is learned.
#[test]
fn a_router_is_left_to_the_kernel_otherwise() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = Router::start("learn_after = 0\n");
    transfer::bulk(&world.client, at(address(2, 2), 7001), &world.server, 7001);
    assert_eq!(world.fast(), 0);
}
