//! The laboratory itself: what the other tests stand on.

use std::{fs, path::Path, thread, time::Duration};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    leftovers,
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo::{self, Published, Topo},
    traffic::{hash, udp_send, udp_sink},
};
use serde::de::DeserializeOwned;

fn report<T: DeserializeOwned>(stdout: &str) -> T {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn start_server(ns: &NsHandle, argv: &[&str]) -> cmd::Background {
    let server = ns.spawn(argv).expect("the server starts");
    thread::sleep(Duration::from_millis(200));
    server
}

#[test]
fn docker_host_comes_up_works_and_goes() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = DockerHost::start(Options::default()).expect("a Docker host");
    host.create_network("net1", &[]).expect("a network");
    host.run_container("c-a", "bridge", &["-p", "8080:80"], &["httpd", "-f", "-h", "/var/www"])
        .expect("c-a");
    host.run_container("c-b", "bridge", &[], &[]).expect("c-b");
    host.run_container("c-c", "net1", &["--network-alias", "web"], &[])
        .expect("c-c");
    host.run_container("c-d", "net1", &[], &[]).expect("c-d");

    let a = host.container_ip("c-a", "bridge").expect("the address of a");
    host.exec("c-b", &format!("ping -c1 -W2 {a}")).expect("on docker0");
    host.exec("c-d", "ping -c1 -W2 web")
        .expect("on a user-defined network, by alias");
    host.exec("c-b", &format!("ping -c1 -W2 {LAN_IP}"))
        .expect("to the outside");
    let page = host
        .in_lan(&format!("busybox wget -qO- http://{HOST_IP}:8080/"))
        .expect("the published port");
    assert_eq!(page, "hello");
    host.in_container_netns("c-d", &format!("busybox ping -c1 -W1 {a}"))
        .expect_err("networks are isolated from each other");
    assert!(
        host.in_host("iptables -S FORWARD")
            .expect("rules")
            .contains("-P FORWARD DROP")
    );

    let veth = host.container_veth("c-c", "eth0").expect("the veth of c");
    let bridge = host.bridge_device("net1").expect("the bridge of net1");
    assert!(
        host.host()
            .ip(&format!("-o link show {veth}"))
            .expect("veth")
            .contains(&format!("master {bridge} "))
    );
    assert_eq!(host.bridge_device("bridge").expect("docker0"), "docker0");

    let pid = host.container_pid("c-a").expect("a runs");
    let (host_ns, lan_ns) = (host.host().path().to_owned(), host.lan().path().to_owned());
    let socket = host.docker_host().trim_start_matches("unix://").to_owned();
    drop(host);
    assert!(!leftovers::is_running(pid), "the container's process is gone");
    assert!(!host_ns.exists() && !lan_ns.exists(), "the namespaces are gone");
    assert!(
        !Path::new(&socket).parent().expect("a directory").exists(),
        "the state is gone"
    );
}

#[test]
fn dockerd_can_be_stopped_killed_and_started_again() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let options = Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        ..Options::default()
    };
    let mut host = DockerHost::start(options).expect("a Docker host");
    host.run_container("c-a", "bridge", &[], &[]).expect("c-a");
    let pid = host.container_pid("c-a").expect("a runs");
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        host.stop_dockerd(signal).expect("dockerd ends");
        assert!(leftovers::is_running(pid), "the container lives on after {signal}");
        host.start_dockerd().expect("dockerd starts again");
        assert_eq!(host.container_pid("c-a").expect("a is known"), pid);
    }
    host.exec("c-a", "true")
        .expect("the engine still reaches the container");
}

#[test]
fn a_failing_dockerd_is_told_with_its_log() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let options = Options {
        dockerd_flags: vec!["--bip=nonsense".to_owned()],
        ..Options::default()
    };
    let error = DockerHost::start(options).expect_err("dockerd refuses that address");
    let error = format!("{error:#}");
    assert!(error.contains("dockerd ended") && error.contains("nonsense"), "{error}");
}

#[test]
fn topo_forwards_translates_and_isolates_like_docker() {
    if !needs(&[Need::Root]) {
        return;
    }
    let published = Published {
        host_port: 7000,
        container: (0, 0),
        port: 7001,
    };
    let options = topo::Options {
        bridges: vec![2, 1],
        published: vec![published],
        ..topo::Options::default()
    };
    let topo = Topo::new(&options).expect("a topology");
    let (a, b, other) = (topo.container(0, 0), topo.container(0, 1), topo.container(1, 0));
    b.ns.sh(&format!("busybox ping -c1 -W2 {}", a.ip))
        .expect("on the bridge");
    b.ns.sh(&format!("busybox ping -c1 -W2 {LAN_IP}"))
        .expect("masqueraded to the outside");
    other
        .ns
        .sh(&format!("busybox ping -c1 -W1 {}", a.ip))
        .expect_err("bridges are isolated");

    let traffic = netfast_tests::programs::traffic()
        .expect("the traffic tool")
        .display()
        .to_string();
    let server = start_server(&a.ns, &[&traffic, "recv-hash", "7001"]);
    let line = format!("{traffic} send-hash {HOST_IP}:7000 --bytes 3000000 --back 2000000");
    let client: hash::Report = report(&topo.lan().sh(&line).expect("through the published port"));
    let server: hash::ServerReport = report(&server.wait(Duration::from_secs(5)).expect("its end").stdout);
    assert!(client.exact && server.connections[0].exact);
    assert_eq!(client.sent_sha256, server.connections[0].received_sha256);

    let sink = start_server(&a.ns, &[&traffic, "udp-sink", "7001"]);
    let line = format!("{traffic} udp-send {}:7001 --seconds 0.3 --rate 20000", a.ip);
    let sent: udp_send::Report = report(&b.ns.sh(&line).expect("datagrams"));
    let got: udp_sink::Report = report(&sink.stop().expect("the sink's report").stdout);
    assert!(
        sent.sent > 1000 && got.received + got.dropped == sent.sent,
        "{sent:?} {got:?}"
    );
}

#[test]
fn a_namespace_goes_with_its_processes() {
    if !needs(&[Need::Root]) {
        return;
    }
    let ns = netfast_tests::netns::NetNs::new("x").expect("a namespace");
    let mut sleeper = ns.spawn(&["sleep", "1000"]).expect("a process");
    let path = ns.path().to_owned();
    let devices = ns.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let devices = devices.expect("entered").expect("devices");
    assert_eq!(devices.lines().count(), 3, "two header lines and lo: {devices}");
    drop(ns);
    assert!(!path.exists());
    assert!(!sleeper.is_running());
}
