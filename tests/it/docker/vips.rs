//! Virtual addresses of aliases: each connection goes to the next member, whatever the client keeps of the name.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    dns::{AAAA, Question},
    docker_host::{DockerHost, Options},
    netns::NsHandle,
    require::{Need, needs},
};
use serde_json::Value;

use super::bed::{Bed, PORT, Reach, TIMEOUT, connects, docker_host, reaches, stat};

mod life;
mod pool;
mod six;
mod talk;

const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];
/// A connection or an answer that takes longer is an error.
const LIMIT: Duration = Duration::from_secs(5);

/// Starts a member of `web`: an echo server over TCP and UDP.
fn member(host: &DockerHost, name: &str, network: &str, extra: &[&str]) {
    let port = PORT.to_string();
    let options = [&["--network-alias", "web"], extra].concat();
    host.run_container(name, network, &options, &["netfast-traffic", "rr-server", &port])
        .expect("a member");
}

/// A network whose aliases have virtual addresses, with three members and one who asks.
fn shop(network: &[&str]) -> DockerHost {
    let host = docker_host(Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        ..Options::default()
    });
    host.create_network("shop", &[&["--label", "netfast.alias=vip"], network].concat())
        .expect("a network");
    for name in WEB {
        member(&host, name, "shop", &[]);
    }
    host.run_container("client", "shop", &[], &[]).expect("a client");
    host
}

impl Bed {
    /// What `netfast aliases --json` says of `web` on a network.
    fn web(&self, network: &str) -> Option<Value> {
        let json = self.netfast.verb(&["aliases", "--json"]).expect("netfast aliases");
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let aliases = report["aliases"].as_array().expect("aliases");
        let mut found = aliases
            .iter()
            .filter(|alias| alias["alias"] == "web" && alias["network"] == network);
        found.next().cloned()
    }

    /// Waits until so many members of `web` are given and these containers are told of its address, which is returned
    /// with [`PORT`].
    fn await_vip(&self, network: &str, given: usize, clients: &[&str]) -> SocketAddrV4 {
        let is_eligible = |member: &&Value| member["eligible"] == true;
        let seen = cmd::poll("the virtual address", TIMEOUT, || {
            let web = self.web(network)?;
            let members = web["members"].as_array()?;
            let vip: Ipv4Addr = web["vip"].as_str()?.parse().ok()?;
            let told = |client: &&str| {
                let answer = Question::of("web").ask(&self.ns(client));
                answer.is_ok_and(|answer| answer.addresses == [IpAddr::from(vip)])
            };
            (members.iter().filter(is_eligible).count() == given && clients.iter().all(told))
                .then_some(SocketAddrV4::new(vip, PORT))
        });
        seen.unwrap_or_else(|error| {
            panic!(
                "{error}; {:#}\nnetfast said:\n{}",
                self.web(network).unwrap_or_default(),
                self.netfast.log()
            )
        })
    }

    /// A counter of each member's stack.
    fn counters(&self, members: &[&str], protocol: &str, name: &str) -> Vec<u64> {
        members
            .iter()
            .map(|member| stat(&self.ns(member), protocol, name))
            .collect()
    }

    /// How much a counter of each member's stack rises meanwhile.
    fn rise(&self, members: &[&str], protocol: &str, name: &str, during: impl FnOnce()) -> Vec<u64> {
        let before = self.counters(members, protocol, name);
        during();
        let after = self.counters(members, protocol, name);
        after.iter().zip(before).map(|(after, before)| after - before).collect()
    }
}

/// One connection with one answer.
fn talk(to: impl Into<SocketAddr>) -> io::Result<()> {
    ask(TcpStream::connect_timeout(&to.into(), LIMIT)?)
}

/// One answer of a connection.
fn ask(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"q")?;
    stream.read_exact(&mut [0])
}

/// So many connections, one after the other; all must be answered.
fn connections(client: &NsHandle, to: impl Into<SocketAddr>, count: usize) {
    let to = to.into();
    let done = client.run(|| (0..count).try_for_each(|_| talk(to))).expect("entered");
    done.unwrap_or_else(|error| panic!("to {to}: {error}"));
}

/// One datagram of a new socket, answered.
fn datagram(to: impl Into<SocketAddr>) -> io::Result<()> {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(b"q")?;
    socket.recv(&mut [0; 8]).map(drop)
}

#[test]
fn every_kind_of_connection_goes_to_the_next_member() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    // Beside plain Docker: what a client gets that resolves once and keeps the address.
    let client = host.container_netns("client").expect("it runs");
    let answer = Question::of("web").ask(&client).expect("an answer");
    let Some(IpAddr::V4(kept)) = answer.addresses.first().copied() else {
        panic!("no address of web: {answer:?}");
    };
    let members = WEB.map(|name| host.container_netns(name).expect("it runs"));
    let opened = || members.each_ref().map(|member| stat(member, "Tcp", "PassiveOpens"));
    let before = opened();
    connections(&client, SocketAddrV4::new(kept, PORT), 3000);
    let after = opened();
    let plain: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();

    let bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 3, &["client", "web-1"]);
    let aaaa = Question {
        kind: AAAA,
        ..Question::of("web.shop")
    };
    assert_eq!(aaaa.ask(&client).expect("an answer").addresses, [] as [IpAddr; 0]);

    // It resolves once, and never again.
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, to, 3000));
    println!("3000 connections of a client that resolved once: plain Docker {plain:?}, virtual address {opened:?}");
    assert_eq!(opened, [1000; 3]);
    assert_eq!((plain.iter().sum::<u64>(), plain.iter().max()), (3000, Some(&3000)));
    let web = bed.web("shop").expect("it is listed");
    println!(
        "{}",
        bed.netfast.verb(&["aliases", "web"]).expect("netfast aliases web")
    );
    assert_eq!(
        (&web["connections"], &web["evenness"]),
        (&3000.into(), &1.0.into()),
        "{web:#}"
    );
    let explained = bed
        .netfast
        .verb(&["explain", "client", "web:7001"])
        .expect("netfast explain");
    assert!(
        explained.contains("each connection goes to the next of 3 of 3 members"),
        "{explained}"
    );
    let asked = bed.rise(&WEB, "Udp", "InDatagrams", || {
        let ask = || (0..30).try_for_each(|_| datagram(to));
        client.run(ask).expect("entered").expect("answers");
    });
    assert_eq!(asked, [10; 3]);
    let pinged = bed.rise(&WEB, "Icmp", "InEchos", || {
        for _ in 0..3 {
            bed.host.exec("client", "ping -c1 -W2 web").expect("an answer");
        }
    });
    assert_eq!(pinged, [1; 3]);

    // A member is given itself in its turn.
    let hairpin = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&bed.ns("web-1"), to, 9));
    assert_eq!(hairpin, [3; 3]);
    let pinged = bed.rise(&WEB, "Icmp", "InEchos", || {
        for _ in 0..3 {
            bed.host.exec("web-2", "ping -c1 -W2 web").expect("an answer");
        }
    });
    assert_eq!(pinged, [1; 3]);

    // A long one stays where it is, fast.
    for what in ["first", "second"] {
        let (rose, counted) = bed.count(|| {
            bed.rise(&WEB, "Tcp", "PassiveOpens", || {
                let to = to.to_string();
                let done = super::bed::run(&client, &["rr", &to, "--seconds", "1"])
                    .wait(TIMEOUT)
                    .expect("it ends");
                assert!(done.status.success(), "{done:?}");
            })
        });
        println!("a long connection, the {what}: {counted}");
        assert_eq!(rose.iter().sum::<u64>(), 1, "one member");
        bed.must_be_fast("a long connection", counted, 0.95);
    }
}

/// A connection from a port that another one may have, and what came of it within a limit.
fn connect_from(port: u16, to: SocketAddrV4) -> io::Result<TcpStream> {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let from = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    socket::bind(socket.as_raw_fd(), &from)?;
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

#[test]
fn a_straight_connection_by_the_port_of_a_live_one_is_refused_and_the_live_one_lives() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(&[]), None);
    let to = bed.await_vip("shop", 3, &["client"]);
    let client = bed.ns("client");
    let mut live = None;
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || {
        let stream = client.run(|| connect_from(4000, to)).expect("entered");
        live = Some(stream.expect("a connection"));
    });
    let mut live = live.expect("a connection");
    live.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut echo = || live.write_all(b"q").and_then(|()| live.read_exact(&mut [0]));
    echo().expect("an answer");
    for (name, opened) in WEB.iter().zip(opened) {
        let start = Instant::now();
        let straight = SocketAddrV4::new(bed.ip(name, "shop"), PORT);
        let done = client.run(|| connect_from(4000, straight)).expect("entered");
        println!("{name}: {:?} after {:?}", done.as_ref().map(drop), start.elapsed());
        if opened == 1 {
            assert_eq!(done.expect_err("it has this port").kind(), ErrorKind::ConnectionRefused);
            assert!(start.elapsed() < LIMIT);
        } else {
            ask(done.expect("a connection")).expect("an answer");
        }
        echo().expect("the live one's answer");
    }
}

#[test]
fn weights_are_kept_exactly() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("shop", &[]).expect("a network");
    for (name, weight) in WEB.iter().zip(1..) {
        let label = format!("netfast.alias.weight={weight}");
        member(
            &host,
            name,
            "shop",
            &["--label", "netfast.alias=vip", "--label", &label],
        );
    }
    host.run_container("client", "shop", &[], &[]).expect("a client");
    let bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 3, &["client"]);
    let client = bed.ns("client");
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, to, 1200));
    assert_eq!(opened, [200, 400, 600]);
    assert_eq!(bed.web("shop").expect("it is listed")["evenness"], 1.0);
}

#[test]
fn affinity_gives_a_client_the_same_member() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(&["--label", "netfast.alias.affinity=source"]), None);
    let to = bed.await_vip("shop", 3, &["client", "web-1"]);
    for client in ["client", "web-1", "web-2"] {
        let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&bed.ns(client), to, 20));
        let mut sorted = opened.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 0, 20], "{client}");
    }
}

#[test]
fn internal_networks_and_containers_on_several_networks_reach_it() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("mall", &[]).expect("a network");
    for network in ["shop", "inside"] {
        let internal = (network == "inside").then_some("--internal");
        let options: Vec<&str> = ["--label", "netfast.alias=vip"].into_iter().chain(internal).collect();
        host.create_network(network, &options).expect("a network");
        for number in 1..=2 {
            member(&host, &format!("{network}-{number}"), network, &[]);
        }
        host.run_container(&format!("{network}-client"), network, &[], &[])
            .expect("a client");
    }
    // Its default route is by the first network, and another has the second address.
    host.run_container("both", "mall", &[], &[]).expect("a client");
    host.docker(&["network", "connect", "inside", "both"])
        .expect("connected");
    let bed = Bed::start(host, None);
    let to = bed.await_vip("inside", 2, &["inside-client", "both"]);
    for client in ["inside-client", "both"] {
        let members = ["inside-1", "inside-2"];
        let opened = bed.rise(&members, "Tcp", "PassiveOpens", || connections(&bed.ns(client), to, 10));
        assert_eq!(opened, [5; 2], "{client}");
    }
    // Another network's address is nobody's.
    let patience = Duration::from_millis(700);
    assert!(!connects(&bed.ns("shop-client"), to, patience));
    bed.host
        .docker(&["network", "connect", "shop", "both"])
        .expect("connected");
    let shop = bed.await_vip("shop", 2, &["shop-client"]);
    cmd::poll("a way by the second network", TIMEOUT, || {
        connects(&bed.ns("both"), shop, patience).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", bed.netfast.log()));
    connections(&bed.ns("both"), to, 4);
}

#[test]
fn a_member_without_a_server_costs_no_connection() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    host.run_container("idle", "shop", &["--network-alias", "web"], &[])
        .expect("a member");
    let bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 4, &["client", "web-1"]);
    for client in ["client", "web-1", "idle"] {
        let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&bed.ns(client), to, 400));
        println!("400 connections of {client}: {opened:?}");
        let (least, most) = (opened.iter().min(), opened.iter().max());
        assert_eq!(opened.iter().sum::<u64>(), 400, "{client}");
        assert!(most <= least.map(|least| least + 2).as_ref(), "{client}: {opened:?}");
    }
    let web = bed.web("shop").expect("it is listed");
    let members = web["members"].as_array().expect("members");
    let idle = members.iter().find(|member| member["container"] == "idle");
    let idle = idle.expect("it is a member");
    assert_eq!(
        (&web["connections"], &idle["connections"]),
        (&1200.into(), &0.into()),
        "{web:#}"
    );
    assert!(idle["retried"].as_u64() > Some(300), "{web:#}");
    // Where nobody listens the client is told so, after three of them.
    let start = Instant::now();
    let nobody = SocketAddrV4::new(*to.ip(), PORT + 1);
    let refused = bed.ns("client").run(|| talk(nobody)).expect("entered");
    println!("nobody listens: {refused:?} after {:?}", start.elapsed());
    assert_eq!(
        refused.expect_err("nobody listens").kind(),
        ErrorKind::ConnectionRefused
    );
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[test]
fn nobody_eligible_is_a_refusal_at_once() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(&[]), None);
    let to = bed.await_vip("shop", 3, &["client"]);
    let client = bed.ns("client");
    for name in WEB {
        bed.host.docker(&["pause", name]).expect("paused");
    }
    bed.await_vip("shop", 0, &[]);
    let start = Instant::now();
    let refused = client.run(|| talk(to)).expect("entered").expect_err("nobody is there");
    println!("TCP: {refused} after {:?}", start.elapsed());
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let start_udp = Instant::now();
    let refused = client
        .run(|| datagram(to))
        .expect("entered")
        .expect_err("nobody is there");
    println!("UDP: {refused} after {:?}", start_udp.elapsed());
    assert!(
        matches!(
            refused.kind(),
            ErrorKind::HostUnreachable | ErrorKind::ConnectionRefused
        ),
        "{refused:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(1));
    for name in WEB {
        bed.host.docker(&["unpause", name]).expect("goes on");
    }
    bed.await_vip("shop", 3, &[]);
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, to, 30));
    assert_eq!(opened, [10; 3]);
    // All members gone: who kept the address is refused, too, and it comes to life again.
    for name in WEB {
        bed.host.remove_container(name).expect("removed");
    }
    bed.await_vip("shop", 0, &[]);
    let refused = client.run(|| talk(to)).expect("entered").expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    member(&bed.host, "web-9", "shop", &[]);
    assert_eq!(bed.await_vip("shop", 1, &["client"]), to);
    connections(&client, to, 4);
}

#[test]
fn what_is_forbidden_to_a_member_is_forbidden_to_its_virtual_address() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    let quiet = [
        "--label",
        "netfast.alias=vip",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
    ];
    host.create_network("quiet", &quiet).expect("a network without icc");
    for name in ["quiet-1", "quiet-2"] {
        member(&host, name, "quiet", &[]);
    }
    let bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 3, &["client"]);
    let quiet = bed.await_vip("quiet", 2, &["quiet-1"]);
    let client = bed.ns("client");
    reaches("without a rule", &client, to, Reach::Both);
    // Neither on a bridge without icc: its turn is the other member, or itself.
    let asks = bed.ns("quiet-1");
    reaches("the other member", &asks, bed.at("quiet-2", "quiet"), Reach::None);
    let reached = (0..4)
        .filter(|_| connects(&asks, quiet, Duration::from_millis(700)))
        .count();
    assert!(reached <= 2, "{reached} of 4: only itself");
    for name in WEB {
        let rule = format!(
            "iptables -I DOCKER-USER -d {} -s {} -j DROP",
            bed.ip(name, "shop"),
            bed.ip("client", "shop")
        );
        bed.host.in_host(&rule).expect("a rule");
    }
    reaches("with rules", &client, to, Reach::None);
    bed.host.in_host("iptables -F DOCKER-USER").expect("no rule");
    reaches("without rules again", &client, to, Reach::Both);
}
