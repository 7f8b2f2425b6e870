//! A Docker host with netfast on it, and the traffic that is sent through it.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use netfast::probe::{self, Attached};
use netfast_common::reason::Reason;
use netfast_tests::{
    cmd::{self, Background},
    docker_host::{DockerHost, Options},
    matrix::{self, Cell},
    netfast_proc::{self, NetfastProc, Totals},
    netns::NsHandle,
    programs,
    require::kernel_version,
    traffic::{hash, udp_send, udp_sink},
};
use nix::sys::signal::Signal;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

mod reach;
mod steady;

pub use reach::{Reach, connects, echoes, is_fast, reaches};
pub use steady::Steady;

/// The port that every server of these tests listens on.
pub const PORT: u16 = 7001;
/// What must come, comes within this; how long it took is printed and not judged.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Data of a bulk transfer in each direction, in bytes: so much that a connection's first and last packets do not count.
pub fn bulk() -> u64 {
    let mebibytes = env::var(matrix::MEBIBYTES)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    mebibytes.unwrap_or(128) << 20
}

/// The host and its netfast, which ends first.
pub struct Bed {
    /// netfast.
    pub netfast: NetfastProc,
    /// The host.
    pub host: DockerHost,
}

/// A freshly started engine, without netfast.
pub fn docker_host(options: Options) -> DockerHost {
    DockerHost::start(options).expect("a Docker host")
}

/// Our programs on the loopback interface of a namespace, in their order.
pub fn at_loopback(ns: &NsHandle) -> Vec<String> {
    let found = ns
        .run(|| probe::attached("lo"))
        .expect("entered")
        .expect("a query of tcx");
    let ours = found.iter().filter(|program| Attached::is_ours(program));
    ours.map(|program| program.name.clone()).collect()
}

/// netfast's options for this host, with this configuration file.
pub fn options(host: &DockerHost, config: Option<&str>) -> netfast_proc::Options {
    netfast_proc::Options {
        config: config.map(str::to_owned),
        ..netfast_proc::Options::docker(host.docker_host())
    }
}

impl Bed {
    /// Starts netfast on the host.
    pub fn start(host: DockerHost, config: Option<&str>) -> Self {
        let options = options(&host, config);
        let netfast = NetfastProc::start(host.host(), options).expect("netfast starts");
        Self { netfast, host }
    }

    /// The container's namespace.
    pub fn ns(&self, container: &str) -> NsHandle {
        self.host.container_netns(container).expect("a running container")
    }

    /// The container's address on a network, with [`PORT`].
    pub fn at(&self, container: &str, network: &str) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(container, network), PORT)
    }

    /// The container's address on a network.
    pub fn ip(&self, container: &str, network: &str) -> Ipv4Addr {
        self.host
            .container_ip(container, network)
            .expect("an address on that network")
    }

    /// What `netfast status --json` says.
    pub fn status(&self) -> Value {
        self.netfast.status().expect("netfast status")
    }

    /// What `netfast networks --json` says of one network.
    pub fn network(&self, name: &str) -> Option<Value> {
        let json = self.netfast.verb(&["networks", "--json"]).expect("netfast networks");
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let networks = report["networks"].as_array().expect("networks");
        networks.iter().find(|network| network["name"] == name).cloned()
    }

    /// The endpoint in `netfast status --json`.
    pub fn endpoint(&self, container: &str, network: &str) -> Option<Value> {
        let status = self.status();
        let networks = status["networks"].as_array().expect("networks");
        let network = networks.iter().find(|one| one["name"] == network)?;
        let endpoints = network["endpoints"].as_array().expect("endpoints");
        endpoints.iter().find(|one| one["container"] == container).cloned()
    }

    /// Waits until an endpoint is on the fast path; returns how long that took.
    pub fn await_fast(&self, container: &str, network: &str) -> Duration {
        let is_fast = |end: &Value| end["path"] == "fast" && !end["traffic"].is_null();
        self.await_endpoint(container, network, "on the fast path", |end| end.is_some_and(is_fast))
    }

    /// Waits until an endpoint is no longer known; returns how long that took.
    pub fn await_gone(&self, container: &str, network: &str) -> Duration {
        self.await_endpoint(container, network, "gone", |end| end.is_none())
    }

    fn await_endpoint(
        &self,
        container: &str,
        network: &str,
        what: &str,
        is_so: impl Fn(Option<&Value>) -> bool,
    ) -> Duration {
        let start = Instant::now();
        let seen = cmd::poll(what, TIMEOUT, || {
            let end = self.endpoint(container, network);
            is_so(end.as_ref()).then_some(())
        });
        if let Err(error) = seen {
            panic!(
                "{container} on {network}: {error}; it is {:#}\nnetfast said:\n{}",
                self.endpoint(container, network).unwrap_or_default(),
                self.netfast.log()
            );
        }
        start.elapsed()
    }

    /// What `body` adds to the totals.
    pub fn count<T>(&self, body: impl FnOnce() -> T) -> (T, Counted) {
        let before = Counted::read(&self.netfast);
        let result = body();
        (result, Counted::read(&self.netfast).since(before))
    }

    /// Sends [`bulk`] there and back by TCP, and datagrams by UDP; all of it must arrive, and more than 99 % of the packets
    /// must take the fast path.
    pub fn prove(&self, what: &str, client: &NsHandle, server: &NsHandle, to: impl Into<SocketAddr>) {
        let to = to.into();
        self.prove_tcp(what, client, server, to);
        self.prove_udp(what, client, server, to);
    }

    /// The TCP half of [`Self::prove`].
    pub fn prove_tcp(&self, what: &str, client: &NsHandle, server: &NsHandle, to: impl Into<SocketAddr>) {
        let to = to.into();
        let ends = [("client", client), ("server", server)].map(|(end, ns)| (end, ns, received(ns)));
        let size = bulk();
        let (bulk, counted) = self.count(|| transfer(client, server, to, size));
        println!(
            "{what}, {}: {counted}; {} retransmits in {} segments, closed in {:.1} ms",
            protocol("TCP", to),
            bulk.retransmits,
            bulk.segments,
            bulk.close_seconds * 1e3
        );
        self.must_be_fast(what, counted, share());
        self.record(what, protocol("TCP", to), counted.packets.fast_share(), size);
        // What `docker stats` shows. The host's own interfaces are passed by: they do not see it.
        let host = self.host.host().inode().expect("a namespace");
        for (end, ns, before) in ends {
            if ns.inode().expect("a namespace") != host {
                let bytes = received(ns) - before;
                let likely = size..size + size / 8;
                assert!(
                    likely.contains(&bytes),
                    "{what}: the {end}'s interfaces counted {bytes} bytes"
                );
            }
        }
    }

    /// The UDP half of [`Self::prove`].
    pub fn prove_udp(&self, what: &str, client: &NsHandle, server: &NsHandle, to: impl Into<SocketAddr>) {
        let to = to.into();
        let (flood, counted) = self.count(|| flood(client, server, to));
        println!(
            "{what}, {}: {counted}; {} sent, {} arrived",
            protocol("UDP", to),
            flood.sent,
            flood.arrived
        );
        // On a busy machine the sender is held up now and then, and then sends more at once than the queue holds.
        assert!(
            flood.arrived * 100 >= flood.sent * 97,
            "{what}: {} of {} datagrams arrived",
            flood.arrived,
            flood.sent
        );
        self.must_be_fast(what, counted, share());
        self.record(what, protocol("UDP", to), counted.packets.fast_share(), 0);
    }

    /// Tells the matrix what was seen.
    pub fn record(&self, path: &str, protocol: &str, fast_share: Option<f64>, exact_bytes: u64) {
        let kernel = if matrix::is_emulated() {
            kernel_version().1
        } else {
            String::new()
        };
        let cell = Cell {
            kernel,
            engine: self.host.release().name().expect("a version"),
            setting: self.host.setting(),
            path: path.into(),
            protocol: protocol.into(),
            fast_share,
            exact_bytes,
        };
        matrix::record(&cell).expect("a cell");
    }

    /// Fails unless a greater part than this took the fast path; tells why the others did not.
    ///
    /// Packets that waited for the daemon are not judged by that, but must be fewer than a quarter: how many a bulk transfer
    /// sends before the daemon has looked at its conntrack entry is how busy the machine is.
    pub fn must_be_fast(&self, what: &str, counted: Counted, part: f64) {
        assert!(
            counted.is_fast(part),
            "{what}: {counted}\n{}\nnetfast said:\n{}",
            self.netfast.verb(&["status"]).unwrap_or_default(),
            self.netfast.log()
        );
    }
}

/// The part of a bulk transfer's packets that must take the fast path. On an emulated processor a transfer is small, so that
/// its first and last packets count more, and slow, so that those that ask the kernel once a second do.
fn share() -> f64 {
    if matrix::is_emulated() { 0.8 } else { 0.99 }
}

/// So many times more packets must be fast than waited for the daemon.
fn patience() -> u64 {
    if matrix::is_emulated() { 1 } else { 4 }
}

/// What the matrix calls a protocol to this address.
fn protocol(name: &'static str, to: SocketAddr) -> &'static str {
    match (name, to.is_ipv6()) {
        ("TCP", true) => "TCP over IPv6",
        ("UDP", true) => "UDP over IPv6",
        (name, _) => name,
    }
}

/// Packets of both paths.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// In packets.
    pub packets: Totals,
    /// Those of the slow ones that waited until the daemon had looked at their flow's conntrack entry, or were longer than
    /// what a flow that waits had shown.
    waited: u64,
}

impl Counted {
    fn read(netfast: &NetfastProc) -> Self {
        #[derive(Deserialize)]
        struct Status {
            totals: Totals,
            reasons: Vec<ReasonCount>,
        }
        #[derive(Deserialize)]
        struct ReasonCount {
            name: String,
            packets: u64,
        }
        let Status { totals, reasons } = netfast.status().expect("the totals");
        let waits = [Reason::Unvetted, Reason::TooBig].map(Reason::name);
        let waited = reasons.iter().filter(|reason| waits.contains(&reason.name.as_str()));
        Self {
            packets: totals,
            waited: waited.map(|reason| reason.packets).sum(),
        }
    }

    /// See [`Bed::must_be_fast`].
    pub fn is_fast(self, part: f64) -> bool {
        let Totals {
            fast_packets,
            slow_packets,
        } = self.packets;
        let judged = Totals {
            fast_packets,
            slow_packets: slow_packets.saturating_sub(self.waited),
        };
        judged.fast_share().unwrap_or_default() > part && self.waited * patience() < fast_packets
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.since(before.packets),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.packets.fast_share().unwrap_or_default() * 100.0;
        let Totals {
            fast_packets,
            slow_packets,
            ..
        } = self.packets;
        let waited = self.waited;
        write!(
            f,
            "{share:.2} % fast ({fast_packets} fast, {slow_packets} slow, {waited} of them waited)"
        )
    }
}

/// Starts `netfast-traffic` in a namespace and waits until it listens on [`PORT`].
pub fn serve(ns: &NsHandle, args: &[&str]) -> Background {
    listening(ns, run(ns, args))
}

/// The server, once it listens on [`PORT`].
pub fn listening(ns: &NsHandle, server: Background) -> Background {
    let listens = cmd::poll("the server listens", TIMEOUT, || has_socket(ns, PORT).then_some(()));
    assert!(listens.is_ok(), "{listens:?}; {:?}", server.stop());
    server
}

/// Starts `netfast-traffic` in a namespace.
pub fn run(ns: &NsHandle, args: &[&str]) -> Background {
    let program = programs::traffic().expect("the traffic tool").display().to_string();
    ns.spawn(&[&[program.as_str()], args].concat())
        .expect("netfast-traffic starts")
}

/// Whether a TCP socket listens on this port in the namespace, or a UDP socket is bound to it.
fn has_socket(ns: &NsHandle, port: u16) -> bool {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/thread-self/net/{table}"));
    let text = ns
        .run(|| {
            tables
                .map(|table| fs::read_to_string(table).unwrap_or_default())
                .concat()
        })
        .expect("entered");
    let local = format!(":{port:04X}");
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        // TCP_LISTEN, and what unconnected UDP sockets show; not what is left of earlier connections.
        matches!(words[..], [_, address, _, "0A" | "07"] if address.ends_with(&local))
    })
}

/// A counter of the namespace's stack, from /proc/net/snmp: `stat(ns, "Tcp", "RetransSegs")`.
pub fn stat(ns: &NsHandle, protocol: &str, name: &str) -> u64 {
    let text = ns
        .run(|| fs::read_to_string("/proc/thread-self/net/snmp"))
        .expect("entered")
        .expect("the counters");
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(protocol));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let value = names
        .split(' ')
        .zip(values.split(' '))
        .find_map(|(this, value)| (this == name).then(|| value.parse().ok()))
        .flatten();
    value.unwrap_or_else(|| panic!("no {protocol} {name} in {text}"))
}

/// Bytes that the namespace's interfaces have received, without those of the loopback.
fn received(ns: &NsHandle) -> u64 {
    let text = ns
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .expect("entered")
        .expect("the interfaces");
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    interfaces
        .filter(|(name, _)| name.trim() != "lo")
        .filter_map(|(_, counts)| counts.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The report in what a traffic tool printed.
pub fn report<T: DeserializeOwned>(done: &cmd::Finished) -> T {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

/// What a bulk transfer was like.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// Segments that either end sent again.
    pub retransmits: u64,
    /// Segments that both ends sent.
    pub segments: u64,
    /// From our close to the other end's.
    pub close_seconds: f64,
}

/// Sends so many bytes each way by TCP, to a server on [`PORT`] that `to` leads to. Fails unless every bit arrives and
/// the connection closes.
pub fn transfer(client: &NsHandle, server: &NsHandle, to: impl Into<SocketAddr>, bytes: u64) -> Bulk {
    let to = to.into();
    let both = |name| [client, server].map(|ns| stat(ns, "Tcp", name)).iter().sum::<u64>();
    let (resent, sent) = (both("RetransSegs"), both("OutSegs"));
    let port = PORT.to_string();
    let receiver = serve(server, &["recv-hash", &port]);
    let (to, bytes) = (to.to_string(), bytes.to_string());
    let sender = run(client, &["send-hash", &to, "--bytes", &bytes, "--back", &bytes]);
    let sender = sender.wait(cmd::TIME_LIMIT).expect("the client ends");
    // Through a proxy the close comes later to the server than to the client.
    let receiver = if sender.status.success() {
        receiver.wait(TIMEOUT)
    } else {
        receiver.stop()
    };
    let receiver = receiver.expect("the server ends");
    assert!(sender.status.success(), "to {to}: {sender:?}; the server: {receiver:?}");
    let here: hash::Report = report(&sender);
    let there: hash::ServerReport = report(&receiver);
    let [there] = &there.connections[..] else {
        panic!("one connection to {to}: {there:?}");
    };
    assert!(here.exact && there.exact, "to {to}: {here:?} {there:?}");
    assert_eq!(here.sent_sha256, there.received_sha256);
    assert_eq!(here.received_sha256, there.sent_sha256);
    assert!(here.close_seconds < 5.0, "to {to}: the close took {here:?}");
    Bulk {
        retransmits: both("RetransSegs") - resent,
        segments: both("OutSegs") - sent,
        close_seconds: here.close_seconds,
    }
}

/// Datagrams sent, and those that reached the server's socket.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    pub sent: u64,
    pub arrived: u64,
}

/// Sends datagrams at a moderate rate to a server on [`PORT`] that `to` leads to.
pub fn flood(client: &NsHandle, server: &NsHandle, to: impl Into<SocketAddr>) -> Flood {
    let to = to.into();
    let sink = serve(server, &["udp-sink", &PORT.to_string()]);
    let to = to.to_string();
    // Longer for a large transfer: the first packets count less.
    let seconds = (bulk() >> 28).clamp(1, 2).to_string();
    let rate = if matrix::is_emulated() { "1000" } else { "5000" };
    let line = ["udp-send", &to, "--seconds", &seconds, "--rate", rate, "--batch", "4"];
    let sender = run(client, &line).wait(cmd::TIME_LIMIT).expect("the client ends");
    let sink = sink.stop().expect("the sink ends");
    assert!(sender.status.success(), "to {to}: {sender:?}; the sink: {sink:?}");
    let sent: udp_send::Report = report(&sender);
    let got: udp_sink::Report = report(&sink);
    Flood {
        sent: sent.sent,
        arrived: got.received + got.dropped,
    }
}

/// Ends a client or server by SIGTERM and returns its report.
pub fn ended<T: DeserializeOwned>(process: Background) -> T {
    process.signal(Signal::SIGTERM).expect("it runs");
    let done = process.wait(TIMEOUT).expect("it ends");
    assert!(done.status.success(), "{done:?}");
    report(&done)
}
