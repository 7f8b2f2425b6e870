//! The host's own connections to published ports at loopback addresses, past docker-proxy: they reach the same container, both
//! sides see the same names, and whatever might make a difference leaves them to docker-proxy.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    thread::{self, sleep},
    time::Duration,
};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    netns::NsHandle,
    require::{Need, needs},
};
use nix::sys::{
    signal::Signal,
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect as sockets_connect, setsockopt, socket, sockopt,
    },
};
use serde_json::Value;

use super::bed::{Bed, PORT, TIMEOUT, docker_host};

mod datagrams;
mod restart;

/// Where the container's port is published.
const PUBLISHED: u16 = 8080;
/// The same for UDP once more.
const ALSO: u16 = 8081;
/// The first bytes of what an echo server answers with.
const HELLO: &[u8] = b"netfast";
const ON: &str = "localhost = true";

fn localhost(port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()
}

/// An engine with one container `web`, its port published for TCP and UDP.
fn shop() -> DockerHost {
    let host = docker_host(Options::default());
    run_web(&host);
    host
}

fn run_web(host: &DockerHost) {
    let tcp = format!("{PUBLISHED}:{PORT}");
    let udp = [PUBLISHED, ALSO].map(|port| format!("{port}:{PORT}/udp"));
    let ports = ["-p", &tcp, "-p", &udp[0], "-p", &udp[1]];
    host.run_container("web", "bridge", &ports, &[]).expect("a container");
}

/// What `netfast status --json` says of a published port.
fn said(bed: &Bed, protocol: &str) -> Option<Value> {
    let status = bed.status();
    let ports = status["localhost"]["ports"].as_array()?.clone();
    let is_it =
        |port: &Value| port["protocol"] == protocol && port["port"] == PUBLISHED && port["listens"] == "0.0.0.0";
    ports.into_iter().find(is_it)
}

/// Waits until connections to the port are led past docker-proxy, or are not, for a reason.
fn await_led(bed: &Bed, why_not: Option<&str>) {
    for protocol in ["tcp", "udp"] {
        let seen = cmd::poll("what is said of the port", TIMEOUT, || {
            let port = said(bed, protocol)?;
            let is_so = match why_not {
                None => port["led"] == true,
                Some(why) => port["led"] == false && port["why"].as_str()?.contains(why),
            };
            is_so.then_some(())
        });
        if let Err(error) = seen {
            panic!(
                "{error}: {:?}\nnetfast said:\n{}",
                said(bed, protocol),
                bed.netfast.log()
            );
        }
    }
}

/// One connection, as both ends see it.
#[derive(Debug)]
struct Seen {
    /// What the host's program is told of its peer and of itself.
    peer: SocketAddr,
    own: SocketAddr,
    /// What the container is told of its peer.
    client: SocketAddr,
    /// Whether docker-proxy has none of it: the container's peer is the program's own socket.
    past_proxy: bool,
}

/// Connects from the host to the port at an address, with a server in the container, and sends bytes both ways.
fn connect(bed: &Bed, to: SocketAddr) -> Seen {
    let web = bed.ns("web");
    let listener = web
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .expect("entered")
        .expect("a listener");
    connect_to(&bed.host.host().handle(), &listener, to)
}

fn connect_to(host: &NsHandle, listener: &TcpListener, to: SocketAddr) -> Seen {
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, client) = listener.accept().expect("a connection");
            let mut got = vec![0; data.len()];
            stream.read_exact(&mut got).expect("all of it");
            assert!(got == data, "it came as it was sent");
            stream.write_all(&got).expect("sent back");
            client
        });
        let (peer, own) = host
            .run(|| {
                let mut stream = TcpStream::connect_timeout(&to, TIMEOUT).expect("a connection");
                let names = (
                    stream.peer_addr().expect("a peer"),
                    stream.local_addr().expect("a name"),
                );
                let mut sender = stream.try_clone().expect("the same socket");
                thread::scope(|scope| {
                    let sent = scope.spawn(|| sender.write_all(&data));
                    let mut got = vec![0; data.len()];
                    stream.read_exact(&mut got).expect("all of it");
                    sent.join().expect("no panic").expect("sent");
                    assert!(got == data, "it came back as it was sent");
                });
                names
            })
            .expect("entered");
        let client = server.join().expect("no panic");
        Seen {
            peer,
            own,
            client,
            past_proxy: client.port() == own.port(),
        }
    })
}

/// The address of the host on the container's bridge: what it is told of its peer.
fn gateway(bed: &Bed) -> Ipv4Addr {
    let ip = bed.ip("web", "bridge").octets();
    Ipv4Addr::new(ip[0], ip[1], ip[2], 1)
}

fn must_be(seen: &Seen, bed: &Bed, to: SocketAddr, past_proxy: bool) {
    assert_eq!(seen.peer, to, "{seen:?}");
    assert_eq!(seen.own.ip(), Ipv4Addr::LOCALHOST, "{seen:?}");
    assert_eq!(seen.client.ip(), gateway(bed), "{seen:?}");
    assert_eq!(seen.past_proxy, past_proxy, "{seen:?}");
}

#[test]
fn a_connection_goes_past_docker_proxy_and_nobody_notices() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    must_be(&connect(&bed, to), &bed, to, true);
    let other = SocketAddr::new(Ipv4Addr::new(127, 1, 2, 3).into(), PUBLISHED);
    must_be(&connect(&bed, other), &bed, other, true);
    // As programs with sockets for both families do it.
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), PUBLISHED);
    let seen = connect(&bed, mapped);
    assert_eq!(seen.peer, mapped, "{seen:?}");
    assert_eq!(seen.own.ip(), mapped.ip(), "{seen:?}");
    assert!(seen.past_proxy && seen.client.ip() == gateway(&bed), "{seen:?}");
    // Nobody listens in the container: it refuses by itself, where docker-proxy accepts and closes.
    let refused = at_host(&bed, || TcpStream::connect_timeout(&to, TIMEOUT).map(drop));
    assert_eq!(refused.expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    // In other network namespaces the same address is another one.
    let elsewhere = bed
        .host
        .lan()
        .handle()
        .run(|| TcpStream::connect_timeout(&to, TIMEOUT).map(drop));
    assert!(elsewhere.expect("entered").is_err());
    let text = bed.netfast.verb(&["status"]).expect("a report");
    assert!(text.contains("reached past docker-proxy"), "{text}");
    let explained = bed
        .netfast
        .verb(&["explain", "127.0.0.1:8080"])
        .expect("an explanation");
    assert!(explained.contains("past docker-proxy"), "{explained}");
}

fn at_host<T: Send>(bed: &Bed, body: impl FnOnce() -> T + Send) -> T {
    bed.host.host().handle().run(body).expect("entered")
}

#[test]
fn sockets_that_are_bound_or_marked_are_left_to_docker_proxy() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let listener = bed.ns("web").run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    let listener = listener.expect("entered").expect("a listener");
    let to = SockaddrIn::new(127, 0, 0, 1, PUBLISHED);
    let prepare: [(&str, Prepare); 5] = [
        ("nothing", |_| ()),
        ("bound to an address", |socket| {
            bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bound");
        }),
        ("bound to a port", |socket| {
            bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 45_678)).expect("bound");
        }),
        ("bound to an interface", |socket| {
            setsockopt(socket, sockopt::BindToDevice, &"lo".into()).expect("bound");
        }),
        ("marked", |socket| {
            setsockopt(socket, sockopt::Mark, &7).expect("marked");
        }),
    ];
    for (what, prepare) in prepare {
        let (own, client) = at_host(&bed, || {
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
            prepare(&socket);
            sockets_connect(socket.as_raw_fd(), &to).expect("connected");
            let mut stream = TcpStream::from(socket);
            stream.write_all(HELLO).expect("sent");
            let (mut accepted, client) = listener.accept().expect("a connection");
            let mut got = [0; HELLO.len()];
            accepted.read_exact(&mut got).expect("all of it");
            assert_eq!(stream.peer_addr().expect("a peer"), localhost(PUBLISHED), "{what}");
            (stream.local_addr().expect("a name"), client)
        });
        assert_eq!(own.ip(), Ipv4Addr::LOCALHOST, "{what}");
        assert_eq!(own.port() == client.port(), what == "nothing", "{what}: {own} {client}");
    }
}

#[test]
fn rules_that_may_judge_leave_the_port_to_docker_proxy() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    let dropping = [
        "INPUT -i lo -p tcp --dport 8080 -j DROP",
        "OUTPUT -p tcp -d 127.0.0.0/8 --sport 8080 -j DROP",
    ];
    for rule in dropping {
        bed.host.in_host(&format!("iptables -A {rule}")).expect("a rule");
        let seen = cmd::poll("what is said", TIMEOUT, || {
            let why = said(&bed, "tcp")?["why"].as_str()?.to_owned();
            why.contains("may judge").then_some(())
        });
        seen.unwrap_or_else(|error| panic!("{rule}: {error}: {:?}", said(&bed, "tcp")));
        let refused = at_host(&bed, || {
            TcpStream::connect_timeout(&to, Duration::from_millis(600)).map(drop)
        });
        assert!(refused.is_err(), "{rule}: it does what it says");
        assert_eq!(
            said(&bed, "udp").expect("the other port")["led"],
            true,
            "{rule} is not of UDP"
        );
        bed.host.in_host(&format!("iptables -D {rule}")).expect("no rule");
        await_led(&bed, None);
        must_be(&connect(&bed, to), &bed, to, true);
    }
    let owner = "OUTPUT -m owner --uid-owner 12345 -j REJECT";
    bed.host.in_host(&format!("iptables -I {owner}")).expect("a rule");
    await_led(&bed, Some("may judge"));
    must_be(&connect(&bed, to), &bed, to, false);
    bed.host.in_host(&format!("iptables -D {owner}")).expect("no rule");
    // Nothing that concerns it: as firewalls begin and go on.
    for rule in [
        "INPUT -i lo -j ACCEPT",
        "INPUT -m conntrack --ctstate INVALID -j DROP",
        "OUTPUT -o lo -j ACCEPT",
        "OUTPUT -p tcp --dport 25 -j REJECT",
    ] {
        bed.host.in_host(&format!("iptables -A {rule}")).expect("a rule");
    }
    sleep(Duration::from_millis(1500));
    await_led(&bed, None);
    must_be(&connect(&bed, to), &bed, to, true);
    bed.host
        .in_host("ip rule add from 192.0.2.1 lookup main")
        .expect("a rule");
    await_led(&bed, Some("policy routing"));
}

#[test]
fn whoever_takes_the_address_over_is_not_taken_for_the_container() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    must_be(&connect(&bed, to), &bed, to, true);
    let ip = bed.ip("web", "bridge");
    for is_dead in [false, true] {
        if is_dead {
            bed.netfast.stop(Signal::SIGKILL).expect("it is killed");
        }
        bed.host.remove_container("web").expect("removed");
        let refused = || at_host(&bed, || TcpStream::connect_timeout(&to, TIMEOUT).map(drop));
        assert_eq!(
            refused().expect_err("nobody").kind(),
            ErrorKind::ConnectionRefused,
            "dead: {is_dead}"
        );
        bed.host
            .run_container("thief", "bridge", &[], &[])
            .expect("a container");
        assert_eq!(bed.ip("thief", "bridge"), ip, "it has the same address");
        let listener = bed.ns("thief").run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
        let listener = listener.expect("entered").expect("a listener");
        assert_eq!(
            refused().expect_err("nobody").kind(),
            ErrorKind::ConnectionRefused,
            "dead: {is_dead}"
        );
        drop(listener);
        bed.host.remove_container("thief").expect("removed");
        run_web(&bed.host);
        if !is_dead {
            await_led(&bed, None);
        }
        must_be(&connect(&bed, to), &bed, to, !is_dead);
    }
    bed.netfast.launch().expect("it starts again");
    await_led(&bed, None);
    must_be(&connect(&bed, to), &bed, to, true);
}

/// Does something to a socket before it is connected.
type Prepare = fn(&OwnedFd);

/// A connection that stays, with an echo in the container.
fn stay(bed: &Bed, to: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = bed.ns("web").run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    let listener = listener.expect("entered").expect("a listener");
    let stream = at_host(bed, || TcpStream::connect_timeout(&to, TIMEOUT)).expect("a connection");
    (stream, listener.accept().expect("accepted").0)
}

fn goes_on((ours, theirs): &mut (TcpStream, TcpStream)) {
    let mut got = [0; HELLO.len()];
    ours.write_all(HELLO).expect("sent");
    theirs.read_exact(&mut got).expect("came");
    theirs.write_all(&got).expect("sent back");
    ours.read_exact(&mut got).expect("came back");
    assert_eq!(got, HELLO);
}

#[test]
fn connections_outlive_the_daemon_and_its_end() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    let mut first = stay(&bed, to);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        bed.netfast.stop(signal).expect("it ends");
        sleep(Duration::from_millis(1200));
        goes_on(&mut first);
        assert_eq!(first.0.peer_addr().expect("a peer"), to, "{signal}");
        assert_eq!(
            first.0.local_addr().expect("a name").ip(),
            Ipv4Addr::LOCALHOST,
            "{signal}"
        );
        must_be(&connect(&bed, to), &bed, to, false);
        bed.netfast.launch().expect("it starts again");
        await_led(&bed, None);
        must_be(&connect(&bed, to), &bed, to, true);
        assert_eq!(first.0.peer_addr().expect("a peer"), to, "after {signal}");
        goes_on(&mut first);
    }
    bed.netfast.stop(Signal::SIGTERM).expect("it ends");
    bed.netfast.detach().expect("detached");
    goes_on(&mut first);
    must_be(&connect(&bed, to), &bed, to, false);
    let container = SocketAddr::new(bed.ip("web", "bridge").into(), PORT);
    assert_eq!(
        first.0.peer_addr().expect("a peer"),
        container,
        "as the kernel has it, from here on"
    );
}

#[test]
fn programs_in_unknown_control_groups_are_left_to_docker_proxy() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    let root = netfast::observe::localhost::cgroup_root().expect("cgroup version 2");
    let group = root.join(format!("netfast-test-{}", std::process::id()));
    fs::create_dir(&group).expect("a control group");
    // A thread of this process goes there, and no other test with it.
    fs::write(group.join("cgroup.type"), "threaded").expect("a group of threads");
    let listener = bed.ns("web").run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    let listener = listener.expect("entered").expect("a listener");
    let from_group = || {
        let threads = group.join("cgroup.threads");
        let home = root.join("cgroup.threads");
        at_host(&bed, || {
            fs::write(&threads, "0").expect("in the group");
            let stream = TcpStream::connect_timeout(&to, TIMEOUT).expect("a connection");
            fs::write(&home, "0").expect("back home");
            let (_, client) = listener.accept().expect("accepted");
            client.port() == stream.local_addr().expect("a name").port()
        })
    };
    let seen = cmd::poll("its group to be known", TIMEOUT, || from_group().then_some(()));
    // A program that lets everything pass is one that could do otherwise.
    let program = super::cgroup::let_pass().expect("a program");
    let link = super::cgroup::attach(&program, &group).expect("attached");
    let watched = cmd::poll("the program to be noticed", TIMEOUT, || (!from_group()).then_some(()));
    let is_said = cmd::poll("it to be said", TIMEOUT, || {
        let text = bed.netfast.verb(&["status"]).expect("a report");
        text.contains("judges what sockets do").then_some(())
    });
    drop(link);
    let free = cmd::poll("it to be free again", TIMEOUT, || from_group().then_some(()));
    fs::remove_dir(&group).expect("removed");
    seen.expect("first");
    watched.expect("then");
    free.expect("again");
    is_said.expect("in the report");
}

#[test]
fn without_the_key_nothing_is_attached_and_nothing_is_said() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), None);
    bed.await_fast("web", "bridge");
    let to = localhost(PUBLISHED);
    must_be(&connect(&bed, to), &bed, to, false);
    assert_eq!(said(&bed, "tcp"), None);
    let links = fs::read_dir(bed.netfast.abi_dir().join("links")).expect("links");
    let names: Vec<String> = links
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| name.starts_with("netfast_conn")), "{names:?}");
}

#[test]
fn ipv6_goes_past_docker_proxy_where_the_container_has_it() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let flags = [
        "--experimental",
        "--ipv6",
        "--ip6tables",
        "--fixed-cidr-v6=fd00:40::/64",
    ];
    let host = docker_host(Options {
        dockerd_flags: flags.map(str::to_owned).to_vec(),
        ..Options::default()
    });
    run_web(&host);
    let bed = Bed::start(host, Some(ON));
    await_led(&bed, None);
    let listener = bed.ns("web").run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)));
    let listener = listener.expect("entered").expect("a listener");
    let to = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), PUBLISHED);
    let seen = connect_to(&bed.host.host().handle(), &listener, to);
    assert_eq!(seen.peer, to, "{seen:?}");
    assert_eq!(seen.own.ip(), Ipv6Addr::LOCALHOST, "{seen:?}");
    assert!(seen.past_proxy, "{seen:?}\n{}", bed.status()["localhost"]);
}
