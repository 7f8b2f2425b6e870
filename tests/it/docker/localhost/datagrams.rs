//! Datagrams, connected and not: whom their answers are said to be from.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use netfast_tests::{
    netns::NsHandle,
    require::{Need, needs},
};

use super::{
    super::bed::{Bed, PORT},
    ALSO, ON, PUBLISHED, at_host, await_led, gateway, localhost, shop,
};

/// An echo server for datagrams in the container; tells whom each is from.
fn echo(web: &NsHandle) -> (Arc<AtomicBool>, JoinHandle<Vec<SocketAddr>>) {
    let socket = web
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .expect("entered")
        .expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a limit");
    let ends = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ends);
    let server = thread::spawn(move || {
        let (mut seen, mut data) = (Vec::new(), vec![0; 65536]);
        while !told.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut data) {
                seen.push(from);
                socket.send_to(&data[..len], from).expect("answered");
            }
        }
        seen
    });
    (ends, server)
}

/// Sends a datagram and waits for its echo; returns whom that is said to be from.
fn ask(socket: &UdpSocket, data: &[u8], send: impl Fn(&UdpSocket, &[u8]) -> io::Result<usize>) -> SocketAddr {
    let mut got = vec![0; 65536];
    for _ in 0..20 {
        send(socket, data).expect("sent");
        if let Ok((len, from)) = socket.recv_from(&mut got) {
            assert_eq!(&got[..len], data);
            return from;
        }
    }
    panic!("no answer");
}

#[test]
fn datagrams_go_past_docker_proxy_and_answers_are_from_whom_was_asked() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), Some(ON));
    await_led(&bed, None);
    let (ends, server) = echo(&bed.ns("web"));
    let to = localhost(PUBLISHED);
    let container = SocketAddr::new(bed.ip("web", "bridge").into(), PORT);
    let open = |at: SocketAddr| {
        let socket = at_host(&bed, || UdpSocket::bind(at)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a limit");
        socket
    };
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let long = vec![7; 30_000];
    let mut ports = Vec::new();
    // Connected, and not.
    let socket = open(any);
    socket.connect(to).expect("connected");
    assert_eq!(socket.peer_addr().expect("a peer"), to);
    assert_eq!(socket.local_addr().expect("a name").ip(), Ipv4Addr::LOCALHOST);
    for data in [&b"one"[..], &long] {
        assert_eq!(ask(&socket, data, UdpSocket::send), to);
    }
    ports.push(socket.local_addr().expect("a name").port());
    let socket = open(any);
    for data in [&b"two"[..], &long] {
        assert_eq!(ask(&socket, data, |socket, data| socket.send_to(data, to)), to);
    }
    assert_eq!(socket.local_addr().expect("a name").ip(), Ipv4Addr::UNSPECIFIED);
    ports.push(socket.local_addr().expect("a name").port());
    // Another name of the same container goes through docker-proxy: its answers could not be told from the first one's.
    let other = localhost(ALSO);
    let said = ask(&socket, b"three", |socket, data| socket.send_to(data, other));
    assert_eq!(said, other);
    // Another loopback address is docker-proxy's: its answers come from there since Docker 28.0 (moby/moby#48571), before that
    // from the usual one. A socket that is bound always asks docker-proxy.
    let second = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), PUBLISHED);
    let bound = open(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    let by_docker = ask(&bound, b"also", |socket, data| socket.send_to(data, second));
    let elsewhere = open(any);
    let said = ask(&elsewhere, b"and", |socket, data| socket.send_to(data, second));
    assert_eq!(said, by_docker);
    let mut not_seen = vec![elsewhere.local_addr().expect("a name").port()];
    // The container itself, from then on as it is.
    assert_eq!(
        ask(&socket, b"four", |socket, data| socket.send_to(data, container)),
        container
    );
    // A socket for both families.
    let both = open("[::]:0".parse().expect("an address"));
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), PUBLISHED);
    assert_eq!(ask(&both, b"five", |socket, data| socket.send_to(data, mapped)), mapped);
    ports.push(both.local_addr().expect("a name").port());
    // Bound to a loopback address: no way to the container but docker-proxy.
    let bound = open(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    assert_eq!(ask(&bound, b"six", |socket, data| socket.send_to(data, to)), to);
    not_seen.push(bound.local_addr().expect("a name").port());
    ends.store(true, Ordering::Relaxed);
    let seen = server.join().expect("no panic");
    assert!(seen.iter().all(|from| from.ip() == gateway(&bed)), "{seen:?}");
    for port in ports {
        assert!(seen.iter().any(|from| from.port() == port), "{port}: {seen:?}");
    }
    assert!(seen.iter().all(|from| !not_seen.contains(&from.port())), "{seen:?}");
}
