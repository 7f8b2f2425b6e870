//! Swarm's overlay networks on two hosts: bridge and VXLAN device are in namespaces that the engine makes and takes away.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use netfast_tests::{
    cmd,
    docker_host::Options,
    netns::NsHandle,
    require::{Need, needs},
    site::LAN_IP,
    swarm,
    traffic::rr,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::bed::{Bed, PORT, Reach, TIMEOUT, docker_host, echoes, flood, reaches, report, run, serve, transfer};

/// Bytes each way of a transfer that must be exact.
const BYTES: u64 = 64 << 20;
const NETWORK: &str = "ov";
/// Rules hold within this time, and netfast's own process notices within it what the engine does.
const SOON: Duration = Duration::from_millis(1500);

/// Two hosts of one swarm, with netfast on each.
struct Swarm {
    beds: [Bed; 2],
}

impl Swarm {
    /// With two containers of the network on the first host, `one` and `two`, and one on the second, `far`.
    fn new() -> Self {
        let hosts = [Options::default(), Options::default()].map(docker_host);
        let [first, second] = &hosts;
        swarm::join([first, second]).expect("a swarm");
        swarm::create_network(first, NETWORK, "10.9.0.0/24").expect("an overlay network");
        for (host, name) in [(first, "one"), (first, "two"), (second, "far")] {
            host.run_container(name, NETWORK, &[], &[]).expect("a container");
        }
        let beds = hosts.map(|host| Bed::start(host, None));
        let swarm = Self { beds };
        swarm.await_fast();
        swarm
    }

    /// The container's namespace.
    fn ns(&self, container: &str) -> NsHandle {
        self.bed(container).ns(container)
    }

    fn bed(&self, container: &str) -> &Bed {
        &self.beds[usize::from(container == "far")]
    }

    fn at(&self, container: &str) -> SocketAddrV4 {
        SocketAddrV4::new(self.bed(container).ip(container, NETWORK), PORT)
    }

    /// Nobody is known who has not sent anything.
    fn await_fast(&self) {
        let far = *self.at("far").ip();
        for from in ["one", "two"] {
            swarm::meet(&self.beds[0].host, from, far).expect("the network works");
        }
        for name in ["one", "two", "far"] {
            self.bed(name).await_fast(name, NETWORK);
        }
    }

    /// Packets that a container has sent on the fast path and on the slow one.
    fn sent(&self, container: &str) -> (u64, u64) {
        let endpoint = self.bed(container).endpoint(container, NETWORK).expect("it is told");
        let count = |name: &str| endpoint["traffic"][name].as_u64().unwrap_or_default();
        (count("in_fast_packets"), count("in_slow_packets"))
    }

    /// More than 98 % of what both have sent meanwhile must have been fast; those that wait for the daemon count, too.
    fn mostly_fast(&self, what: &str, ends: [&str; 2], body: impl FnOnce()) {
        let before = ends.map(|end| self.sent(end));
        body();
        for (end, (fast, slow)) in ends.into_iter().zip(before) {
            let (now_fast, now_slow) = self.sent(end);
            let (fast, slow) = (now_fast - fast, now_slow - slow);
            println!("{what}: {end} sent {fast} fast, {slow} slow");
            let log = self.bed(end).netfast.log();
            assert!(
                fast > 50 * slow && fast > 500,
                "{what}: {end} sent {fast} fast, {slow} slow\n{log}"
            );
        }
    }

    /// What netfast says of the network on the first host.
    fn told(&self) -> Value {
        self.beds[0].network(NETWORK).expect("it is listed")
    }
}

/// Waits until netfast is in the network's namespace.
fn served(bed: &Bed, network: &str) {
    let is_served = || {
        let said = bed.netfast.verb(&["status", "--json", "--overlay", network]).ok()?;
        let said: Value = serde_json::from_str(&said).ok()?;
        (said["daemon"]["running"] == true && said["daemon"]["in_sync"] == true).then_some(())
    };
    if let Err(error) = cmd::poll("netfast in there", TIMEOUT, is_served) {
        panic!("{error}\n{}", bed.netfast.log());
    }
}

/// Programs on tcx at an interface.
fn programs_at(ns: &NsHandle, interface: &str) -> usize {
    let directions = [TcAttachType::Ingress, TcAttachType::Egress];
    let found = ns.run(|| directions.map(|direction| SchedClassifier::query_tcx(interface, direction)));
    let found = found.expect("entered").into_iter();
    found.map(|query| query.expect("a query of tcx").1.len()).sum()
}

fn ready() -> bool {
    needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)])
}

#[test]
fn an_overlay_network_is_fast_and_the_kernel_decides_in_it() {
    if !ready() {
        return;
    }
    let swarm = Swarm::new();
    fast(&swarm);
    decided(&swarm);
}

/// Between containers of one host and of two: exact transfers, datagrams, ping, requests and responses.
fn fast(swarm: &Swarm) {
    for (what, from, to) in [("between hosts", "one", "far"), ("on one host", "one", "two")] {
        let (client, server, at) = (swarm.ns(from), swarm.ns(to), swarm.at(to));
        swarm.mostly_fast(what, [from, to], || {
            let _exact = transfer(&client, &server, at, BYTES);
        });
        let before = swarm.sent(from);
        let sent = flood(&client, &server, at);
        let after = swarm.sent(from);
        assert!(sent.arrived * 100 >= sent.sent * 97, "{what}: {sent:?}");
        let (fast, slow) = (after.0 - before.0, after.1 - before.1);
        println!("{what}: {fast} datagrams fast, {slow} slow");
        // Sending to who is behind the tunnel before it has answered may be for anybody.
        assert!(
            fast > 20 * slow || from != "one" || to == "far",
            "{what}: {fast} fast, {slow} slow"
        );
        let ping = format!("busybox ping -c30 -i 0.05 -W1 {}", at.ip());
        let said = client.sh(&ping).expect("it answers");
        assert!(said.contains(" 0% packet loss"), "{said}");
        let server = serve(&server, &["rr-server", &PORT.to_string()]);
        swarm.mostly_fast(what, [from, to], || {
            let line = ["rr", &at.to_string(), "--seconds", "1"];
            let talk = run(&client, &line).wait(TIMEOUT).expect("it ends");
            let talk: rr::Report = report(&talk);
            assert!(talk.errors == 0 && talk.transactions > 300, "{talk:?}");
        });
        drop(server);
    }
    let told = swarm.told();
    assert_eq!(told["path"], "fast", "{told:#}");
    let to = swarm.at("far").ip().to_string();
    let explained = swarm.beds[0].netfast.verb(&["explain", "one", &to]).expect("a verdict");
    assert!(explained.contains("in the network's own namespace"), "{explained}");
    let flows = swarm.beds[0]
        .netfast
        .verb(&["flows", "--overlay", NETWORK])
        .expect("flows");
    assert!(flows.contains(&to), "{flows}");
}

/// A rule in there, a forwarding entry, and a container that is somewhere else all of a sudden.
fn decided(swarm: &Swarm) {
    let port = PORT.to_string();
    let far = swarm.at("far");
    let server = serve(&swarm.ns("far"), &["rr-server", &port]);
    let client = swarm.ns("one");
    reaches("at first", &client, far, Reach::Both);
    let sandbox = swarm.beds[0].host.sandbox(NETWORK).expect("a namespace");
    if sandbox
        .sysctl("net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|on| on == "1")
    {
        let talk = run(&client, &["rr", &far.to_string(), "--seconds", "60", "--udp"]);
        std::thread::sleep(SOON);
        sandbox
            .sh(&format!("iptables -w -I FORWARD -p udp --dport {port} -j DROP"))
            .expect("a rule");
        std::thread::sleep(SOON);
        let (before, _) = swarm.sent("one");
        assert!(!echoes(&client, far, SOON), "the rule holds");
        assert_eq!(swarm.sent("one").0, before, "nothing goes past it");
        sandbox.sh("iptables -w -F FORWARD").expect("no rule");
        reaches("without the rule", &client, far, Reach::Both);
        drop(talk);
    }
    let entry = |to: Ipv4Addr| {
        let mac = swarm
            .bed("far")
            .host
            .attachment("far", NETWORK)
            .expect("it is there")
            .mac_address;
        let line = format!("bridge fdb replace {mac} dev vxlan0 dst {to} self permanent");
        sandbox.sh(&line).expect("a forwarding entry");
    };
    entry(Ipv4Addr::new(192, 0, 2, 77));
    reaches("with another end of the tunnel", &client, far, Reach::None);
    entry(swarm::ADDRESSES[1]);
    reaches("with the right one", &client, far, Reach::Both);
    drop((server, sandbox));

    // The same address on the other host, then here.
    let ip = "10.9.0.77";
    let address = ["--ip", ip];
    let command = ["netfast-traffic", "rr-server", &port];
    let at: SocketAddr = format!("{ip}:{PORT}").parse().expect("an address");
    for (bed, round) in [(1, "there"), (0, "here")] {
        let host = &swarm.beds[bed].host;
        host.run_container("mover", NETWORK, &address, &command)
            .expect("a container");
        reaches(round, &client, at, Reach::Both);
        let line = ["rr", &at.to_string(), "--seconds", "1"];
        let talk: rr::Report = report(&run(&client, &line).wait(TIMEOUT).expect("it ends"));
        assert!(talk.errors == 0 && talk.transactions > 100, "{round}: {talk:?}");
        host.docker(&["rm", "--force", "mover"]).expect("it goes");
    }
}

/// netfast is killed, comes back, is detached; the network goes, and nothing that is netfast's keeps its namespace.
#[test]
fn an_overlay_network_outlives_netfast_and_goes_without_it() {
    if !ready() {
        return;
    }
    let mut swarm = Swarm::new();
    let port = PORT.to_string();
    let far = swarm.at("far");
    let server = serve(&swarm.ns("far"), &["rr-server", &port]);
    let client = swarm.ns("one");
    let inside = |swarm: &Swarm| {
        let sandbox = swarm.beds[0].host.sandbox(NETWORK).expect("a namespace");
        (programs_at(&sandbox, "vxlan0"), programs_at(&sandbox, "br0"))
    };
    assert_eq!(inside(&swarm), (2, 2));
    let line = ["rr", &far.to_string(), "--seconds", "10"];
    let talk = run(&client, &line);
    swarm.beds[0].netfast.stop(Signal::SIGKILL).expect("it is killed");
    std::thread::sleep(SOON);
    assert_eq!(inside(&swarm), (2, 2), "what is attached stays");
    swarm.beds[0].netfast.launch().expect("it starts again");
    served(&swarm.beds[0], NETWORK);
    assert_eq!(inside(&swarm), (2, 2));
    swarm.mostly_fast("after the crash", ["one", "far"], || {
        let line = ["rr", &far.to_string(), "--seconds", "2"];
        drop(run(&client, &line).wait(TIMEOUT).expect("it ends"));
    });
    swarm.beds[0].netfast.detach().expect("it detaches");
    assert_eq!(inside(&swarm), (0, 0), "all is gone");
    assert!(!swarm.beds[0].netfast.pin_dir().exists());
    let talk: rr::Report = report(&talk.wait(TIMEOUT).expect("it ends"));
    assert!(talk.errors == 0 && talk.transactions > 500, "{talk:?}");

    // A veth with one end in the network's namespace goes with it.
    let bed = &mut swarm.beds[0];
    let _status = bed.netfast.stop(Signal::SIGTERM);
    bed.netfast.launch().expect("it starts again");
    served(bed, NETWORK);
    let sandbox = bed.host.sandbox(NETWORK).expect("a namespace");
    let own = bed.host.host().name().to_owned();
    sandbox
        .sh(&format!("ip link add canary type veth peer name canary netns {own}"))
        .expect("a veth");
    drop((server, sandbox));
    let overlays = bed.netfast.pin_dir().join("overlay");
    assert!(overlays.exists());
    bed.host.docker(&["rm", "--force", "one", "two"]).expect("they go");
    cmd::poll("the namespace's end", TIMEOUT, || {
        bed.host.host().ip("link show canary").is_err().then_some(())
    })
    .expect("nobody keeps it");
    cmd::poll("nothing is left of it", TIMEOUT, || {
        let run = bed.netfast.run_dir().join("overlay");
        (!overlays.exists() && !run.exists()).then_some(())
    })
    .expect("no pins and no state");
    swarm.beds[1].host.docker(&["rm", "--force", "far"]).expect("it goes");
    let bed = &swarm.beds[0];
    let remove = || bed.host.docker(&["network", "rm", NETWORK]).ok();
    cmd::poll("network rm", TIMEOUT, remove).expect("the network goes");
}

/// Switched off, nothing of netfast is in there.
#[test]
fn an_overlay_network_that_is_switched_off_is_left_alone() {
    if !ready() {
        return;
    }
    let host = docker_host(Options::default());
    let ip = swarm::ADDRESSES[0].to_string();
    host.in_host(&format!(
        "ip link add swarm type bridge; ip addr add {ip}/24 dev swarm; ip link set swarm up"
    ))
    .expect("an address");
    host.docker(&["swarm", "init", "--advertise-addr", &ip])
        .expect("a swarm");
    let off = "netfast.enable=false";
    for (network, label, subnet) in [("off", off, "10.9.1.0/24"), ("on", "x=y", "10.9.2.0/24")] {
        let options = ["--driver=overlay", "--attachable", "--label", label, "--subnet", subnet];
        host.create_network(network, &options).expect("an overlay network");
        // Nobody is known who has not sent anything.
        let gateway = subnet.replace("0/24", "1");
        let say = ["busybox", "ping", "-q", "-i", "0.2", &gateway];
        for (name, options) in [("on", &[][..]), ("off", &["--label", off])] {
            host.run_container(&format!("{network}-{name}"), network, options, &say)
                .expect("a container");
        }
    }
    let bed = Bed::start(host, None);
    bed.await_fast("on-on", "on");
    let programs = |network: &str| programs_at(&bed.host.sandbox(network).expect("a namespace"), "vxlan0");
    assert_eq!((programs("on"), programs("off")), (2, 0));
    let told = bed.endpoint("on-off", "on").expect("it is told");
    assert_eq!(told["why"], "disabled-by-label", "{told:#}");

    // The way off the network, of which the engine tells nobody.
    let outside = SocketAddrV4::new(LAN_IP, PORT);
    let told = bed.endpoint("on-off", "docker_gwbridge").expect("it is told");
    assert_eq!(told["why"], "disabled-by-label", "{told:#}");
    bed.await_fast("on-on", "docker_gwbridge");
    bed.prove(
        "masquerade, docker_gwbridge",
        &bed.ns("on-on"),
        &bed.host.lan().handle(),
        outside,
    );
    let told = bed.network("off").expect("it is listed");
    assert_eq!(
        (&told["path"], &told["why"]),
        (&"slow".into(), &"disabled-by-label".into()),
        "{told:#}"
    );
}
