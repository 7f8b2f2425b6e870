//! Who is led past docker-proxy: real sockets in a control group of their own, since the kernel runs these programs for no others.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, SkStorage},
    programs::{CgroupAttachMode, CgroupSockAddr},
};
use netfast::observe::localhost::cgroup_root;
use netfast_common::{
    abi::{Program, map},
    localhost::{Name, Published, Switch},
};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

use super::harness::{now_ns, object};

const TCP: u32 = 6;
const UDP: u32 = 17;
/// `asm-generic/socket.h`
const SO_NETNS_COOKIE: i32 = 71;
/// What docker-proxy would lead to.
const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 9, 9, 2)), 80);
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes one of the conditions away.
type Edit = fn(&mut Scene);

/// A namespace with a listener in docker-proxy's place and one in the container's, the programs, and a control group for
/// this thread, which is in both until it is dropped.
struct Scene {
    ebpf: Ebpf,
    ns: NetNs,
    group: PathBuf,
    root: PathBuf,
    cookie: u64,
    proxy: (TcpListener, UdpSocket),
    web: (TcpListener, UdpSocket),
}

impl Scene {
    fn new() -> Self {
        let root = cgroup_root().expect("cgroup version 2");
        let ns = NetNs::new("localhost").expect("a namespace");
        ns.ip("addr add 10.9.9.2/32 dev lo").expect("an address");
        let group = root.join(ns.name());
        fs::create_dir(&group).expect("a control group");
        fs::write(group.join("cgroup.type"), "threaded").expect("of threads");
        let (proxy, web, cookie) = ns
            .run(|| {
                let listen = |at: SocketAddr| {
                    let (tcp, udp) = (TcpListener::bind(at).expect("tcp"), UdpSocket::bind(at).expect("udp"));
                    tcp.set_nonblocking(true).expect("a mode");
                    udp.set_nonblocking(true).expect("a mode");
                    (tcp, udp)
                };
                let proxy = listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT));
                let cookie = cookie(&proxy.0).expect("a cookie");
                (proxy, listen(TARGET), cookie)
            })
            .expect("entered");
        let mut ebpf = EbpfLoader::new().load(&object()).expect("the object");
        let place = File::open(&group).expect("the group");
        for program in Program::of_localhost() {
            let loaded: &mut CgroupSockAddr = ebpf
                .program_mut(program.name())
                .expect("it is there")
                .try_into()
                .expect("of its kind");
            loaded.load().expect("the verifier takes it");
            loaded.attach(&place, CgroupAttachMode::Single).expect("attached");
        }
        let mut scene = Self {
            ebpf,
            ns,
            group,
            root,
            cookie,
            proxy,
            web,
        };
        scene.reset();
        scene
    }

    /// As it is when connections are led.
    fn reset(&mut self) {
        let switch = self.switch();
        self.set_switch(switch);
        self.publish(TCP, |_| ());
        self.publish(UDP, |_| ());
        let number = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&self.group).expect("the group"));
        let mut cgroups: HashMap<_, u64, u64> = self.ebpf.map_mut(map::CGROUPS).expect("a map").try_into().expect("it");
        cgroups.insert(number, 1, 0).expect("known");
    }

    fn switch(&self) -> Switch {
        Switch {
            netns_cookie: self.cookie,
            until_ns: now_ns() + 60_000_000_000,
            generation: 7,
        }
    }

    fn set_switch(&mut self, switch: Switch) {
        let mut map: Array<_, Switch> = self
            .ebpf
            .map_mut(map::LOCALHOST)
            .expect("a map")
            .try_into()
            .expect("it");
        map.set(0, switch, 0).expect("set");
    }

    /// Says of the listener where it leads to, but for `edit`.
    fn publish(&mut self, protocol: u32, edit: impl FnOnce(&mut Published)) {
        let mut published = Published {
            generation: 7,
            target: Name::new(TARGET.ip(), TARGET.port()),
            protocol,
        };
        edit(&mut published);
        let socket = if protocol == TCP {
            self.proxy.0.as_raw_fd()
        } else {
            self.proxy.1.as_raw_fd()
        };
        let mut map: SkStorage<_, Published> = self
            .ebpf
            .map_mut(map::PUBLISHED)
            .expect("a map")
            .try_into()
            .expect("it");
        map.insert(&socket, published, 0).expect("hung on it");
    }

    fn forget_group(&mut self) {
        let number = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&self.group).expect("the group"));
        let mut cgroups: HashMap<_, u64, u64> = self.ebpf.map_mut(map::CGROUPS).expect("a map").try_into().expect("it");
        cgroups.remove(&number).expect("forgotten");
    }

    /// Does something in the namespace, from the control group.
    fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let enter = |group: &PathBuf| fs::write(group.join("cgroup.threads"), "0").expect("in the group");
        self.ns
            .run(|| {
                enter(&self.group);
                let done = body();
                enter(&self.root);
                done
            })
            .expect("entered")
    }

    /// Whether a connection comes to the container's place, and not to docker-proxy's.
    fn comes_past(&self, connection: &TcpStream) -> bool {
        let end = Instant::now() + PATIENCE;
        let own = connection.local_addr().expect("a name").port();
        while Instant::now() < end {
            for (listener, past) in [(&self.web.0, true), (&self.proxy.0, false)] {
                if let Ok((_, client)) = listener.accept()
                    && client.port() == own
                {
                    return past;
                }
            }
            sleep(Duration::from_millis(1));
        }
        panic!("it came nowhere");
    }

    /// Whether a plain connection is led.
    fn leads(&self, to: &str) -> bool {
        let to: SocketAddr = to.parse().expect("an address");
        let stream = self.inside(|| TcpStream::connect_timeout(&to, PATIENCE).expect("a connection"));
        assert_eq!(self.inside(|| stream.peer_addr().expect("a peer")), to);
        let own = self.inside(|| stream.local_addr().expect("a name")).ip();
        let usual = [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()];
        assert!(usual.contains(&own), "{own}");
        self.comes_past(&stream)
    }

    /// The same of a socket that is prepared.
    fn leads_socket(&self, prepare: impl FnOnce(&OwnedFd) + Send) -> bool {
        let stream = self.inside(|| {
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
            prepare(&socket);
            connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, PORT)).expect("connected");
            TcpStream::from(socket)
        });
        self.comes_past(&stream)
    }

    /// Whether a datagram comes to the container's place; it is answered, and the answer must be from whom was asked.
    fn datagram(&self, socket: &UdpSocket, to: &str, is_connected: bool) -> bool {
        let to: SocketAddr = to.parse().expect("an address");
        self.inside(|| {
            if is_connected {
                socket.connect(to).expect("connected");
                assert_eq!(socket.peer_addr().expect("a peer"), to);
                assert!(socket.local_addr().expect("a name").ip().is_loopback() || to.is_ipv6());
                socket.send(b"ask").expect("sent");
            } else {
                socket.send_to(b"ask", to).expect("sent");
            }
            let (mut got, end) = ([0; 8], Instant::now() + PATIENCE);
            let past = loop {
                assert!(Instant::now() < end, "it came nowhere");
                let mut seen = [(&self.web.1, true), (&self.proxy.1, false)].into_iter();
                let found = seen.find_map(|(server, past)| Some((server, server.recv_from(&mut got).ok()?.1, past)));
                if let Some((server, client, past)) = found {
                    server.send_to(b"told", client).expect("answered");
                    break past;
                }
                sleep(Duration::from_millis(1));
            };
            socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let (_, from) = socket.recv_from(&mut got).expect("an answer");
            assert!(from == to || (!past && from.port() == PORT), "{from}");
            past
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A thread of a test that has failed may still be in it; it is empty when the process has ended.
        let _ = fs::remove_dir(&self.group);
    }
}

fn cookie(socket: &TcpListener) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, 8_u32);
    // SAFETY: both point to as much as is said.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[test]
fn connections_are_led_only_while_all_holds() {
    if !needs(&[Need::Root]) {
        return;
    }
    let mut scene = Scene::new();
    for to in ["127.0.0.1:8080", "127.9.8.7:8080", "[::ffff:127.0.0.1]:8080"] {
        let led = if to == "127.9.8.7:8080" {
            let to: SocketAddr = to.parse().expect("an address");
            let stream = scene.inside(|| TcpStream::connect_timeout(&to, PATIENCE).expect("a connection"));
            assert_eq!(scene.inside(|| stream.peer_addr().expect("a peer")), to);
            scene.comes_past(&stream)
        } else {
            scene.leads(to)
        };
        assert!(led, "{to}");
    }
    assert!(!scene.inside(|| {
        let direct = TcpStream::connect_timeout(&SocketAddr::new(TARGET.ip(), PORT), PATIENCE).expect("a connection");
        direct.peer_addr().expect("a peer").ip().is_loopback()
    }));
    let edits: [(&str, Edit); 7] = [
        ("no lease", |scene| {
            let switch = scene.switch();
            scene.set_switch(Switch { until_ns: 1, ..switch });
        }),
        ("another namespace", |scene| {
            let switch = scene.switch();
            let netns_cookie = switch.netns_cookie + 1;
            scene.set_switch(Switch { netns_cookie, ..switch });
        }),
        ("an earlier daemon's", |scene| {
            scene.publish(TCP, |published| published.generation = 6);
        }),
        ("another protocol's", |scene| {
            scene.publish(TCP, |published| published.protocol = UDP);
        }),
        ("another family's", |scene| {
            scene.publish(TCP, |published| {
                published.target = Name::new(Ipv6Addr::LOCALHOST.into(), 80);
            });
        }),
        ("an unknown control group", Scene::forget_group),
        ("nothing known of the listener", |scene| {
            let socket = scene.proxy.0.as_raw_fd();
            let map = scene.ebpf.map_mut(map::PUBLISHED).expect("a map");
            let mut map: SkStorage<_, Published> = map.try_into().expect("it");
            map.remove(&socket).expect("gone");
        }),
    ];
    for (what, edit) in edits {
        scene.reset();
        assert!(scene.leads("127.0.0.1:8080"), "before {what}");
        edit(&mut scene);
        assert!(!scene.leads("127.0.0.1:8080"), "{what}");
    }
}

#[test]
fn sockets_that_are_not_plain_are_not_led() {
    if !needs(&[Need::Root]) {
        return;
    }
    let scene = Scene::new();
    assert!(scene.leads_socket(|_| ()));
    assert!(!scene.leads_socket(|socket| {
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bound");
    }));
    assert!(!scene.leads_socket(|socket| {
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 40_001)).expect("bound");
    }));
    assert!(!scene.leads_socket(|socket| {
        setsockopt(socket, sockopt::BindToDevice, &"lo".into()).expect("bound");
    }));
    assert!(!scene.leads_socket(|socket| setsockopt(socket, sockopt::Mark, &1).expect("marked")));
}

#[test]
fn datagrams_are_led_and_answers_named() {
    if !needs(&[Need::Root]) {
        return;
    }
    let scene = Scene::new();
    let open = |at: &str| scene.inside(|| UdpSocket::bind(at).expect("a socket"));
    for at in ["0.0.0.0:0", "[::]:0"] {
        let to = if at == "0.0.0.0:0" {
            "127.0.0.1:8080"
        } else {
            "[::ffff:127.0.0.1]:8080"
        };
        let socket = open(at);
        assert!(scene.datagram(&socket, to, false), "{at}");
        assert!(scene.datagram(&socket, to, false), "{at}, again");
        assert!(scene.datagram(&open(at), to, true), "{at}, connected");
    }
    assert!(
        !scene.datagram(&open("0.0.0.0:0"), "127.0.0.2:8080", false),
        "docker-proxy answers from 127.0.0.1"
    );
    assert!(!scene.datagram(&open("127.0.0.1:0"), "127.0.0.1:8080", false), "bound");
    assert!(
        !scene.datagram(&open("127.0.0.1:0"), "127.0.0.1:8080", true),
        "bound and connected"
    );
    // Connected elsewhere, it is told of what it is connected to.
    let socket = open("0.0.0.0:0");
    assert!(scene.datagram(&socket, "127.0.0.1:8080", true));
    let other = SocketAddr::new(TARGET.ip(), PORT);
    scene.inside(|| socket.connect(other).expect("connected"));
    assert_eq!(scene.inside(|| socket.peer_addr().expect("a peer")), other);
    // Who names the container itself gets its answers from it.
    let socket = open("0.0.0.0:0");
    assert!(scene.datagram(&socket, "127.0.0.1:8080", false));
    assert!(scene.datagram(&socket, "10.9.9.2:80", false));
}
