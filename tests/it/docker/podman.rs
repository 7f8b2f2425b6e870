//! netfast on podman, by its Docker API: what is podman's alone. Run by `cargo xtask test docker --engine podman-5`; the
//! paths are those of every engine.

use std::net::SocketAddrV4;

use netfast_tests::{
    cmd,
    docker_host::{IMAGE, Kind, Options},
    require::{Need, needs},
    site::HOST_IP,
};
use serde_json::{Value, json};

use super::bed::{Bed, PORT, TIMEOUT, docker_host};

/// What a verb says as JSON.
fn told(bed: &Bed, verb: &[&str]) -> Value {
    let text = bed.netfast.verb(&[verb, &["--json"]].concat()).expect("it is told");
    serde_json::from_str(&text).expect("JSON")
}

fn in_step(bed: &Bed) {
    let status = || bed.status();
    let seen = cmd::poll("netfast is in step", TIMEOUT, || {
        (status()["daemon"]["in_sync"] == true).then_some(())
    });
    assert!(seen.is_ok(), "{:#}\n{}", status(), bed.netfast.log());
}

#[test]
fn pods_names_and_aliases_are_what_they_are() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    assert_eq!(host.release().kind(), Kind::Podman, "it is about podman");
    host.create_network("shop", &["--label", "netfast.alias=vip"])
        .expect("a network");
    host.create_network("unused", &[]).expect("a network");
    for name in ["web-1", "web-2"] {
        host.run_container(name, "shop", &["--network-alias", "web"], &[])
            .expect("a container");
    }
    host.run_container("monitor", "host", &[], &[]).expect("monitor");
    let published = format!("8090:{PORT}");
    let udp = format!("{published}/udp");
    host.podman(&[
        "pod",
        "create",
        "--name",
        "pod",
        "--network",
        "shop",
        "-p",
        &published,
        "-p",
        &udp,
    ])
    .expect("a pod");
    for name in ["member-1", "member-2"] {
        host.podman(&[
            "run", "--detach", "--pod", "pod", "--name", name, IMAGE, "sleep", "1000000",
        ])
        .expect("a member");
    }
    let infra = host
        .podman(&["inspect", "--format", "{{.Name}}", &infra(&host)])
        .expect("its name");
    let bed = Bed::start(host, None);
    for container in ["web-1", "web-2", &infra] {
        bed.await_fast(container, "shop");
    }
    in_step(&bed);

    // One endpoint on the pod's veth, whose packets are all its members'.
    let member = bed.ns("member-1");
    bed.prove(
        "published by a pod",
        &bed.host.lan().handle(),
        &member,
        SocketAddrV4::new(HOST_IP, 8090),
    );
    bed.prove("to a pod", &bed.ns("web-1"), &member, bed.at(&infra, "shop"));
    let shop = bed.network("shop").expect("shop");
    let endpoints = shop["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 3, "{shop:#}");
    let text = bed.netfast.verb(&["explain", "member-2"]).expect("it is explained");
    assert!(text.contains(&infra), "{text}");

    // Names.
    let engine = told(&bed, &["status"])["runtime"].clone();
    assert!(engine.to_string().contains("Podman Engine"), "{engine:#}");
    assert_eq!(shop["bridge"], bed.host.bridge_device("shop").expect("its bridge"));
    let unused = bed.network("unused").expect("unused");
    assert_eq!((&unused["bridge"], &unused["why"]), (&json!(null), &json!("no-bridge")));
    let text = bed.netfast.verb(&["explain", "monitor"]).expect("it is explained");
    assert!(text.contains("shares the host's own namespace"), "{text}");

    // Its resolver is at the gateway: nothing is rotated, no address is given, and both are said.
    let aliases = told(&bed, &["aliases"]);
    let web = aliases["aliases"].as_array().expect("aliases").iter();
    let web = web.clone().find(|alias| alias["alias"] == "web").expect("web");
    assert_eq!((&web["mode"], &web["vip"]), (&json!("off"), &json!(null)), "{web:#}");
    let text = bed.netfast.verb(&["aliases"]).expect("the list");
    assert!(text.contains("gateway"), "{text}");
    let routes = bed
        .host
        .in_container_netns("web-1", "ip -4 route show")
        .expect("routes");
    assert_eq!(routes.lines().count(), 2, "its network and its gateway: {routes}");
}

/// The identifier of the container that holds the pod's namespace.
fn infra(host: &netfast_tests::docker_host::DockerHost) -> String {
    host.podman(&["pod", "inspect", "pod", "--format", "{{.InfraContainerID}}"])
        .expect("a pod")
}

/// podman answers 500 for a container that goes while it looks at it.
#[test]
fn containers_that_come_and_go_are_not_the_end_of_the_runtime() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.run_container("stays", "bridge", &[], &[]).expect("a container");
    let bed = Bed::start(host, None);
    bed.await_fast("stays", "bridge");
    for round in 0..8 {
        let name = format!("goes-{round}");
        bed.host.run_container(&name, "bridge", &[], &[]).expect("a container");
        bed.host.remove_container(&name).expect("it goes");
    }
    bed.await_gone("goes-7", "bridge");
    in_step(&bed);
    let log = bed.netfast.log();
    assert!(!log.contains("the container runtime is gone"), "{log}");
}
