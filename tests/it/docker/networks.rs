//! Every kind of network that the engine has: told by `netfast networks`, and working as without netfast.

use std::net::SocketAddrV4;

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    traffic::rr,
};
use serde_json::{Value, json};

use super::bed::{Bed, PORT, Reach, TIMEOUT, docker_host, reaches, report, run, serve};

/// The container on the network of this kind, in `netfast networks --json`.
fn endpoint<'a>(network: &'a Value, container: &str) -> &'a Value {
    let endpoints = network["endpoints"].as_array().expect("endpoints");
    let found = endpoints.iter().find(|end| end["container"] == container);
    found.unwrap_or_else(|| panic!("no {container} in {network:#}"))
}

#[test]
fn all_kinds_of_networks_are_told_and_work() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    let pool = [
        "--subnet=172.72.0.0/16",
        "--ip-range=172.72.0.0/24",
        "--gateway=172.72.0.1",
    ];
    host.create_network("mine", &pool).expect("a network");
    host.create_network("inside", &["--internal"]).expect("a network");
    let uplink = [
        "--driver=macvlan",
        "--subnet=198.18.0.0/24",
        "--ip-range=198.18.0.64/28",
        "--gateway=198.18.0.100",
        "-o",
        "parent=eth0",
    ];
    host.create_network("my_macvlan", &uplink).expect("a macvlan network");
    let overlay = overlay(&host);

    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    for network in ["bridge", "mine", "inside", "my_macvlan"] {
        for number in 1..=2 {
            host.run_container(&format!("{network}-{number}"), network, &[], &server)
                .expect("a container");
        }
    }
    host.run_container("none-1", "none", &[], &[]).expect("a container");
    host.run_container("shared-1", "container:mine-1", &[], &[])
        .expect("a container");
    host.run_container("host-1", "host", &[], &server).expect("a container");
    let bed = Bed::start(host, None);
    for network in ["bridge", "mine", "inside"] {
        bed.await_fast(&format!("{network}-1"), network);
        bed.await_fast(&format!("{network}-2"), network);
    }

    told(&bed);
    if let Err(why) = &overlay {
        println!("no overlay network on this machine: {why}");
    } else {
        let is_fast = || Some(()).filter(|()| bed.network("my_overlay").is_some_and(|told| told["path"] == "fast"));
        let _seen = cmd::poll("the overlay network is fast", TIMEOUT, is_fast);
        let told = bed.network("my_overlay").expect("the overlay network");
        assert_eq!(
            (&told["path"], &told["why"]),
            (&json!("fast"), &Value::Null),
            "{told:#}\n{}",
            bed.netfast.log()
        );
    }
    work(&bed);
    if overlay.is_ok() {
        let (one, two) = (bed.ns("my_overlay-1"), bed.at("my_overlay-2", "my_overlay"));
        reaches("on the overlay network", &one, two, Reach::Both);
    }
}

/// An overlay network with two containers, if the machine's kernel and engine can have one in a namespace.
fn overlay(host: &DockerHost) -> Result<(), String> {
    let make = || -> anyhow::Result<()> {
        let address = HOST_IP.to_string();
        host.docker(&["swarm", "init", "--advertise-addr", &address, "--listen-addr", &address])?;
        host.create_network("my_overlay", &["--driver=overlay", "--attachable"])?;
        let port = PORT.to_string();
        for name in ["my_overlay-1", "my_overlay-2"] {
            host.run_container(name, "my_overlay", &[], &["netfast-traffic", "rr-server", &port])?;
        }
        Ok(())
    };
    make().map_err(|error| format!("{error:#}"))
}

fn told(bed: &Bed) {
    for (name, driver, path, why) in [
        ("bridge", "bridge", "fast", None),
        ("mine", "bridge", "fast", None),
        ("inside", "bridge", "fast", None),
        ("my_macvlan", "macvlan", "slow", Some("macvlan")),
        ("host", "host", "slow", Some("host-network")),
        ("none", "null", "slow", Some("no-network")),
        ("container:mine-1", "container", "slow", Some("shared-namespace")),
    ] {
        let told = bed.network(name).unwrap_or_else(|| panic!("{name} is not listed"));
        assert_eq!(told["driver"], driver, "{told:#}");
        assert_eq!((&told["path"], &told["why"]), (&json!(path), &json!(why)), "{told:#}");
        assert_eq!(told["reason"].is_null(), path == "fast", "a reason in words: {told:#}");
        assert_eq!(told["internal"], name == "inside", "{told:#}");
        let containers: &[&str] = match name {
            "host" => &["host-1"],
            "none" => &["none-1"],
            "container:mine-1" => &["shared-1"],
            _ => &[&format!("{name}-1"), &format!("{name}-2")],
        };
        for container in containers {
            let end = endpoint(&told, container);
            assert_eq!((&end["path"], &end["why"]), (&told["path"], &told["why"]), "{end:#}");
        }
    }
    let mine = bed.network("mine").expect("mine");
    let pool = json!([{"subnet": "172.72.0.0/16", "ip_range": "172.72.0.0/24", "gateway": "172.72.0.1"}]);
    assert_eq!(mine["pools"], pool);
    assert_eq!(mine["bridge"], bed.host.bridge_device("mine").expect("a bridge"));
    let end = endpoint(&mine, "mine-1");
    let attachment = bed.host.attachment("mine-1", "mine").expect("mine-1 is on mine");
    let veth = bed.host.container_veth("mine-1", "eth0").expect("a veth");
    assert_eq!(end["addresses"], json!([format!("{}/16", attachment.ip)]), "{end:#}");
    assert_eq!(
        (&end["mac"], &end["veth"]),
        (&json!(attachment.mac_address), &json!(veth)),
        "{end:#}"
    );
    assert_eq!(end["interface"], "eth0");

    let shared = bed.netfast.verb(&["explain", "shared-1", "mine-2"]).expect("explain");
    assert!(
        shared.contains("Run `netfast explain mine-1 mine-2`.") && !shared.contains("no bridge device"),
        "{shared}"
    );
    let text = bed.netfast.verb(&["networks"]).expect("the list");
    for network in [
        "bridge",
        "mine",
        "inside",
        "my_macvlan",
        "host",
        "none",
        "container:mine-1",
    ] {
        assert!(text.lines().any(|line| line.contains(network)), "{network}: {text}");
    }
    let text = bed.netfast.verb(&["networks", "mine"]).expect("one network");
    for part in ["172.72.0.0/24", "mine-1", "mine-2", &veth, &attachment.mac_address] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Containers of every kind do what they do without netfast.
fn work(bed: &Bed) {
    let lan = bed.host.lan().handle();
    let outside = serve(&lan, &["rr-server", &PORT.to_string()]);
    let at_lan = SocketAddrV4::new(LAN_IP, PORT);
    let at_host = SocketAddrV4::new(HOST_IP, PORT);
    let ((), counted) = bed.count(|| {
        for network in ["bridge", "mine", "inside", "my_macvlan"] {
            let (one, two) = (
                bed.ns(&format!("{network}-1")),
                bed.at(&format!("{network}-2"), network),
            );
            reaches(network, &one, two, Reach::Both);
            let talk = run(&one, &["rr", &two.to_string(), "--seconds", "0.3"]).wait(TIMEOUT);
            let talk: rr::Report = report(&talk.expect("rr ends"));
            assert_eq!(talk.errors, 0, "on {network}: {talk:?}");
            let reach = if network == "inside" { Reach::None } else { Reach::Both };
            reaches(&format!("out of {network}"), &one, at_lan, reach);
        }
        // As on a physical network: from outside straight to the container, but never from its own host.
        let macvlan = bed.at("my_macvlan-1", "my_macvlan");
        reaches("from outside", &lan, macvlan, Reach::Both);
        reaches("from the host", &bed.host.host().handle(), macvlan, Reach::None);
        // The host's own namespace, and a shared one.
        reaches("the host's network", &lan, at_host, Reach::Both);
        let (mine, shared) = (bed.at("mine-1", "mine"), bed.ns("shared-1"));
        let owner = bed.ns("mine-1");
        assert_eq!(
            shared.inode().expect("a namespace"),
            owner.inode().expect("a namespace")
        );
        reaches("to a shared namespace", &bed.ns("mine-2"), mine, Reach::Both);
        reaches(
            "from a shared namespace",
            &shared,
            bed.at("mine-2", "mine"),
            Reach::Both,
        );
        reaches("a container without a network", &bed.ns("none-1"), mine, Reach::None);
        reaches("from another network", &bed.ns("bridge-1"), mine, Reach::None);
        // By name and by alias, as the guide does.
        bed.host.exec("mine-2", "ping -c1 -W2 mine-1").expect("by name");
    });
    // Most of it is conversations on three bridges; the one on macvlan is counted nowhere, or as slow.
    assert!(counted.packets.fast_packets > 1000, "{counted}");
    println!("all kinds of networks: {counted}");
    drop(outside);
}

/// A bridge that something else than the engine has put containers on while netfast runs, as weave and pipework do: told by its name, and fast.
#[test]
fn a_bridge_that_the_engine_does_not_list() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    for number in 1..=2 {
        host.run_container(&format!("pod-{number}"), "none", &[], &[])
            .expect("a container");
    }
    let bed = Bed::start(host, None);
    let ns = bed.host.host();
    ns.ip("link add weave type bridge").expect("a bridge");
    ns.ip("link set weave up").expect("it is up");
    // As weave does: the engine's policy is to drop what no rule of its lets pass.
    ns.sh("iptables -w -I FORWARD -i weave -o weave -j ACCEPT")
        .expect("a rule");
    for number in 1..=2 {
        let (name, veth) = (format!("pod-{number}"), format!("vethwepl{number}"));
        let pid = bed.host.container_pid(&name).expect("it runs");
        ns.ip(&format!("link add {veth} type veth peer name ethwe netns {pid}"))
            .expect("a veth pair");
        ns.ip(&format!("link set {veth} master weave up")).expect("a port");
        let inside = format!("ip link set ethwe up && ip addr add 10.32.0.{number}/12 dev ethwe");
        bed.host.in_container_netns(&name, &inside).expect("an address");
    }
    for number in 1..=2 {
        bed.await_fast(&format!("pod-{number}"), "weave");
    }
    let told = bed.network("weave").expect("it is told");
    let first = endpoint(&told, "pod-1");
    assert_eq!(
        (&told["driver"], &first["interface"]),
        (&json!("bridge"), &json!("ethwe"))
    );
    let to = SocketAddrV4::new([10, 32, 0, 2].into(), PORT);
    bed.prove("weave's bridge", &bed.ns("pod-1"), &bed.ns("pod-2"), to);
}
