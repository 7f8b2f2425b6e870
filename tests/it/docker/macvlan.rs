//! macvlan networks: what the host and its own containers can do with each other, with the network's label and without.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, HOST_IP6, LAN_IP, LAN_IP6, has_ipv6},
    traffic::rr,
};
use nix::sys::signal::Signal;

use super::bed::{Bed, PORT, Reach, TIMEOUT, connects, docker_host, reaches, report, run, serve, transfer};

const LABEL: &str = "netfast.macvlan-host=true";
/// Bytes each way of a transfer that must be exact.
const BYTES: u64 = 256 << 20;
/// How long and how often neighbours are asked, and how many answers must come.
struct Asking {
    /// The shortest times that the kernel knows a neighbour for without asking again, in place of its own.
    is_quick: bool,
    questions: usize,
    interval: &'static str,
    answers: usize,
    limit: Duration,
}

/// A host with a macvlan network of both families on its uplink, and two containers there with servers.
fn host_on_lan(extra: &[&str]) -> DockerHost {
    let host = docker_host(Options::default());
    let uplink = [
        "--driver=macvlan",
        "--ipv6",
        "--subnet=198.18.0.0/24",
        "--ip-range=198.18.0.64/28",
        "--gateway=198.18.0.100",
        "--subnet=fd00:198:18::/64",
        "--ip-range=fd00:198:18::4:0/112",
        "-o",
        "parent=eth0",
    ];
    host.create_network("lan", &[&uplink, extra].concat())
        .expect("a macvlan network");
    let port = PORT.to_string();
    for name in ["one", "two"] {
        host.run_container(name, "lan", &[], &["netfast-traffic", "rr-server", &port])
            .expect("a container");
    }
    host
}

/// The addresses of a container there.
fn addresses(bed: &Bed, container: &str) -> Vec<IpAddr> {
    let place = bed.host.attachment(container, "lan").expect("it is on the network");
    let mut all = vec![IpAddr::from(place.ip)];
    if has_ipv6(bed.host.host()) {
        all.push(place.ip6.parse::<Ipv6Addr>().expect("an IPv6 address").into());
    }
    all
}

/// The same of another host of the network.
fn of_family(ip: IpAddr, v4: impl Into<IpAddr>, v6: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(if ip.is_ipv4() { v4.into() } else { v6.into() }, PORT)
}

/// Whether the programs of the uplink's egress have that of macvlan among them.
fn has_program(bed: &Bed) -> bool {
    let links = bed.netfast.abi_dir().join("links");
    let names = std::fs::read_dir(links).map(|entries| entries.flatten().collect::<Vec<_>>());
    let mut names = names.unwrap_or_default().into_iter().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().contains("macvlan"))
}

/// What is the same with and without: containers and the LAN reach each other.
fn lan_works(bed: &Bed) {
    let lan = bed.host.lan().handle();
    for (one, two) in addresses(bed, "one").into_iter().zip(addresses(bed, "two")) {
        reaches("from the LAN", &lan, SocketAddr::new(one, PORT), Reach::Both);
        reaches(
            "to the LAN",
            &bed.ns("one"),
            of_family(one, LAN_IP, LAN_IP6),
            Reach::Both,
        );
        reaches(
            "among containers",
            &bed.ns("one"),
            SocketAddr::new(two, PORT),
            Reach::Both,
        );
    }
}

/// The host and the containers reach each other, by each protocol and in both directions, or not at all.
fn host_and_containers(bed: &Bed, reach: Reach) {
    let host = bed.host.host().handle();
    for name in ["one", "two"] {
        for ip in addresses(bed, name) {
            reaches("from the host", &host, SocketAddr::new(ip, PORT), reach);
            reaches("to the host", &bed.ns(name), of_family(ip, HOST_IP, HOST_IP6), reach);
            let ping = format!("busybox ping -c1 -W1 {ip}");
            assert_eq!(bed.host.in_host(&ping).is_ok(), reach != Reach::None, "{ping}");
        }
    }
}

/// Waits until netfast has heard of a container that has just come.
fn reaches_by_ping(bed: &Bed, ip: IpAddr) {
    let ping = || bed.host.in_host(&format!("busybox ping -c1 -W1 {ip}")).ok();
    cmd::poll("an answer", TIMEOUT, ping).unwrap_or_else(|error| panic!("{ip}: {error}"));
}

fn servers(bed: &Bed) -> [cmd::Background; 2] {
    [bed.host.host().handle(), bed.host.lan().handle()].map(|ns| serve(&ns, &["rr-server", &PORT.to_string()]))
}

#[test]
fn without_the_label_the_host_stays_cut_off_and_nothing_is_attached() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(host_on_lan(&[]), None);
    let running = servers(&bed);
    lan_works(&bed);
    host_and_containers(&bed, Reach::None);
    assert!(!has_program(&bed));
    drop(running);
}

/// A private network stays one: its containers do not hear from each other either.
#[test]
fn a_private_network_stays_private() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(host_on_lan(&["--label", LABEL, "-o", "macvlan_mode=private"]), None);
    let running = servers(&bed);
    host_and_containers(&bed, Reach::None);
    let two = SocketAddr::new(addresses(&bed, "two")[0], PORT);
    reaches("among containers", &bed.ns("one"), two, Reach::None);
    assert!(!has_program(&bed));
    let told = bed.network("lan").expect("it is listed");
    let reason = told["reason"].as_str().expect("a reason");
    assert!(reason.contains("has no effect: its mode is private"), "{reason}");
    drop(running);
}

#[test]
fn with_the_label_the_host_and_its_containers_reach_each_other() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let mut bed = Bed::start(host_on_lan(&["--label", LABEL]), None);
    assert!(has_program(&bed));
    let running = servers(&bed);
    lan_works(&bed);
    host_and_containers(&bed, Reach::Both);
    let told = bed.network("lan").expect("it is listed");
    assert_eq!(told["parent"], "eth0");
    let reason = told["reason"].as_str().expect("a reason");
    assert!(
        reason.ends_with("its containers and the host reach each other by eth0"),
        "{reason}"
    );

    // A container that comes is reached, one that goes is not, and a crash changes nothing.
    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    bed.host
        .run_container("three", "lan", &[], &server)
        .expect("a container");
    let host = bed.host.host().handle();
    for ip in addresses(&bed, "three") {
        reaches("a container that came", &host, SocketAddr::new(ip, PORT), Reach::Both);
    }
    let one = SocketAddr::new(addresses(&bed, "one")[0], PORT);
    let talk = run(&host, &["rr", &one.to_string(), "--seconds", "4"]);
    bed.netfast.stop(Signal::SIGKILL).expect("netfast is killed");
    host_and_containers(&bed, Reach::Both);
    bed.netfast.launch().expect("netfast starts again");
    let talk: rr::Report = report(&talk.wait(TIMEOUT).expect("rr ends"));
    assert!(talk.errors == 0 && talk.transactions > 100, "{talk:?}");
    drop(running);
    bed.host.run_container("quiet", "lan", &[], &[]).expect("a container");
    let quiet = bed.ns("quiet");
    for ip in addresses(&bed, "quiet") {
        reaches_by_ping(&bed, ip);
        let _exact = transfer(&host, &quiet, SocketAddr::new(ip, PORT), BYTES);
        let _exact = transfer(&quiet, &host, of_family(ip, HOST_IP, HOST_IP6), BYTES);
    }

    // Taken away, it is as before.
    let running = servers(&bed);
    bed.netfast.detach().expect("netfast detaches");
    for ip in addresses(&bed, "one") {
        let _forgotten = bed.host.in_host(&format!("ip neigh flush to {ip}"));
    }
    assert!(!connects(&host, one, Duration::from_millis(700)));
    drop(running);
}

/// Neighbours that are asked again and again answer each time: for more than ten times as long as one is known without being asked, with
/// the settings of this test.
#[test]
fn neighbours_stay_known() {
    neighbours(&Asking {
        is_quick: true,
        questions: 60,
        interval: "0.2",
        // Who was forgotten loses all that follow; a few may be late on a busy machine.
        answers: 57,
        limit: TIMEOUT * 3,
    });
}

/// The same with the kernel's own settings, by which a neighbour is asked again after 15 to 45 seconds.
#[test]
#[ignore = "takes ten minutes: cargo test --package netfast-tests --test it -- --ignored for_ten_minutes, as root"]
fn neighbours_stay_known_for_ten_minutes() {
    neighbours(&Asking {
        is_quick: false,
        questions: 600,
        interval: "1",
        answers: 597,
        limit: Duration::from_mins(12),
    });
}

fn neighbours(asking: &Asking) {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let bed = Bed::start(host_on_lan(&["--label", LABEL]), None);
    let running = servers(&bed);
    for of in ["ipv4", "ipv6"].into_iter().filter(|_| asking.is_quick) {
        for ns in [bed.host.host().handle(), bed.ns("one")] {
            for (name, value) in [
                ("base_reachable_time_ms", "1000"),
                ("delay_first_probe_time", "0"),
                ("gc_stale_time", "1"),
            ] {
                let path = format!("/proc/sys/net/{of}/neigh/eth0/{name}");
                ns.run(|| std::fs::write(&path, value))
                    .expect("entered")
                    .expect("a setting");
            }
        }
    }
    let host = bed.host.host().handle();
    let ways = addresses(&bed, "one").into_iter().flat_map(|ip| {
        let back = of_family(ip, HOST_IP, HOST_IP6).ip();
        [(host.clone(), ip), (bed.ns("one"), back)]
    });
    let ask = |(ns, ip): (NsHandle, IpAddr)| {
        let line = [
            "busybox",
            "ping",
            "-c",
            &asking.questions.to_string(),
            "-i",
            asking.interval,
            "-W",
            "1",
            &ip.to_string(),
        ];
        ns.spawn(&line).expect("ping starts")
    };
    let asked: Vec<_> = ways.map(ask).collect();
    for ping in asked {
        let said = ping.wait(asking.limit).expect("ping ends");
        let answers = said.stdout.lines().filter(|line| line.contains("bytes from")).count();
        println!("{answers} of {} answers", asking.questions);
        assert!(answers >= asking.answers, "{said:?}");
    }
    drop(running);
}
