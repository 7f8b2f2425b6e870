//! What the tests of this ring share: a topology with netfast running, echo servers, and the flow table.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use netfast::apply::{flows::FlowTables, read::Tables};
use netfast_common::{
    flow::{Flow, FlowKey},
    reason::{FAST, Reason},
};
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::NsHandle,
    topo::{self, Published, Topo},
    traffic::udp::bind_for,
};

/// For what happens at once on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// A datagram that takes longer is lost.
pub const TICK: Duration = Duration::from_millis(200);

/// A topology with netfast. In the order of dropping: netfast before its namespace.
pub struct Lab {
    pub netfast: NetfastProc,
    pub topo: Topo,
}

/// Sends by a connection, from one end to the other.
pub fn arrives_whole(from: &mut TcpStream, to: &mut TcpStream, data: &[u8]) {
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut got = vec![0; data.len()];
            to.read_exact(&mut got).expect("the data");
            assert!(got == data, "the data was damaged");
        });
        from.write_all(data).expect("sent");
        receiver.join().expect("received");
    });
}

/// Two bridges, and container 0 of the first publishes port 7001 as 7000.
pub fn topology() -> topo::Options {
    topo::Options {
        bridges: vec![2, 1],
        published: vec![Published {
            host_port: 7000,
            container: (0, 0),
            port: 7001,
        }],
        ..topo::Options::default()
    }
}

impl Lab {
    /// Starts netfast in the usual topology.
    pub fn start() -> Self {
        Self::with(&topology(), None)
    }

    /// Starts netfast in a topology, with a configuration file.
    pub fn with(topology: &topo::Options, config: Option<&str>) -> Self {
        Self::around(Topo::new(topology).expect("a topology"), config)
    }

    /// Starts netfast in a topology that is there.
    pub fn around(topo: Topo, config: Option<&str>) -> Self {
        introduce(&topo);
        let options = Options {
            // What is tested here is flows, from their first packet on.
            config: Some(format!("learn_after = 0\n{}", config.unwrap_or_default())),
            ..Options::no_runtime()
        };
        let netfast = NetfastProc::start(topo.host(), options).expect("netfast starts");
        Self { netfast, topo }
    }

    /// Packets that took the fast path.
    pub fn fast(&self) -> u64 {
        let tables = Tables::open(self.netfast.pin_dir()).expect("the maps are pinned");
        tables.reasons().expect("the counts")[FAST as usize].packets
    }

    /// Packets that were counted under a reason.
    pub fn count(&self, reason: Reason) -> u64 {
        let tables = Tables::open(self.netfast.pin_dir()).expect("the maps are pinned");
        tables.reasons().expect("the counts")[reason.number() as usize].packets
    }

    /// What packets took the slow path for, in words.
    pub fn told(&self) -> String {
        let counted = Reason::ALL.iter().filter(|reason| reason.is_slow());
        let told = counted.map(|reason| format!("{} {}", self.count(*reason), reason.name()));
        told.filter(|text| !text.starts_with("0 "))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Flows that may be used to or from an address. What is of an older epoch or generation is as good as gone.
    pub fn flows_of(&self, ip: Ipv4Addr) -> usize {
        let tables = Tables::open(self.netfast.pin_dir()).expect("the maps are pinned");
        let epoch = tables.control().expect("the switches").epoch;
        let is_fresh = |slot, generation| tables.generation(slot).expect("a generation") == generation;
        let flows = FlowTables::open(self.netfast.pin_dir()).expect("the maps are pinned");
        let mut number = 0;
        let each = |key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>, usable: bool| {
            let ours = [key.source, key.destination].contains(&IpAddr::V4(ip));
            let current = flow.epoch == epoch
                && is_fresh(flow.in_slot, flow.in_generation)
                && is_fresh(flow.out_slot, flow.out_generation);
            number += usize::from(usable && ours && current);
        };
        flows.for_each(each).expect("the flows");
        number
    }
}

/// The host says something to each container, so that it knows their MAC addresses.
pub fn introduce(topo: &Topo) {
    for container in topo.bridges.iter().flat_map(|bridge| &bridge.containers) {
        topo.host()
            .sh(&format!("busybox ping -c1 -W5 {}", container.ip))
            .expect("the container answers");
    }
}

/// An address for sockets.
pub fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Answers every datagram with the same bytes, until dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// On a port of a namespace.
    pub fn start(ns: &NsHandle, port: u16) -> Self {
        Self::at(ns, Ipv4Addr::UNSPECIFIED, port)
    }

    /// On one address of a namespace, which is then also what the answers come from.
    pub fn at(ns: &NsHandle, ip: impl Into<IpAddr>, port: u16) -> Self {
        let ip = ip.into();
        // The one before it on this port may be in the hands of a packet that is just being delivered.
        let socket = cmd::poll("a free port", TIMEOUT, || {
            ns.run(|| UdpSocket::bind((ip, port))).expect("entered").ok()
        })
        .expect("a port that nobody else has");
        socket.set_read_timeout(Some(TICK)).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut data = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, peer)) = socket.recv_from(&mut data) {
                        let _lost = socket.send_to(&data[..length], peer);
                    }
                }
            })
        };
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A connected UDP socket in a namespace.
pub fn udp(ns: &NsHandle, port: u16, to: SocketAddr) -> UdpSocket {
    let open = || -> io::Result<UdpSocket> {
        let socket = bind_for(to, port)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(socket)
    };
    ns.run(open).expect("entered").expect("a socket")
}

/// Sends a datagram and awaits its echo.
pub fn ask(socket: &UdpSocket) -> bool {
    let question = [b'q'; 64];
    let mut answer = [0; 128];
    // What is left of earlier questions is no answer to this one; but all look the same, and only whether one comes counts.
    socket.send(&question).is_ok() && matches!(socket.recv(&mut answer), Ok(64))
}

/// Asks until the answers take the fast path both ways.
pub fn warm(lab: &Lab, socket: &UdpSocket) {
    cmd::poll("the fast path", TIMEOUT, || {
        let before = lab.fast();
        let answered = (0..4).filter(|_| ask(socket)).count();
        (answered == 4 && lab.fast() >= before + 8).then_some(())
    })
    .expect("the flow is learned");
}

/// Asks until there is no answer any more.
pub fn until_silent(socket: &UdpSocket, what: &str) {
    cmd::poll(what, TIMEOUT, || (!ask(socket) && !ask(socket)).then_some(())).expect("it stops");
}

/// Asks until there is an answer again.
pub fn until_answered(socket: &UdpSocket, what: &str) {
    cmd::poll(what, TIMEOUT, || ask(socket).then_some(())).expect("an answer");
}

/// The two ends of a new TCP connection.
pub fn connect(client: &NsHandle, to: SocketAddr, server: &NsHandle, port: u16) -> (TcpStream, TcpStream) {
    let listener = server
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .expect("entered");
    let listener = listener.expect("a free port");
    let client = client
        .run(|| TcpStream::connect_timeout(&to, TIMEOUT))
        .expect("entered");
    let client = client.expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(TIMEOUT)).expect("an option");
    }
    (client, server)
}

/// A TCP connection from container 0 of bridge 0 to container 1, and data both ways until both are on the fast path.
pub fn talk(lab: &Lab, port: u16) -> (TcpStream, TcpStream) {
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let mut ends = connect(&a.ns, at(b.ip, port), &b.ns, port);
    until_fast(lab, &mut ends);
    ends
}

/// Data both ways until both directions of a TCP connection are on the fast path.
pub fn until_fast(lab: &Lab, ends: &mut (TcpStream, TcpStream)) {
    cmd::poll("the fast path", TIMEOUT, || {
        let before = lab.fast();
        exchange(ends, 10);
        (lab.fast() >= before + 20).then_some(())
    })
    .expect("the flow is learned");
}

/// Questions of one end of a TCP connection, each answered by the other.
pub fn exchange((client, server): &mut (TcpStream, TcpStream), times: usize) {
    let mut buffer = [0; 100];
    for _ in 0..times {
        client.write_all(&[b'q'; 100]).expect("sent");
        server.read_exact(&mut buffer).expect("received");
        server.write_all(&[b'a'; 100]).expect("sent");
        client.read_exact(&mut buffer).expect("received");
    }
}
