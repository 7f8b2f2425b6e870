//! Two hosts with a VXLAN tunnel between their containers, netfast on both: data is exact, its outer headers are repeated, and whatever
//! changes on its way is noticed.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netfast::{apply::read::Tables, probe::attached};
use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    hosts::{Host, Hosts, Kind, PORT, TUNNEL, tunnel_mac},
    netfast_proc::{NetfastProc, Options},
    netns::NsHandle,
    require::{Need, needs},
};

mod flannel;
mod header;
mod outer;
mod overlay;
mod says;
mod way_in;

use super::{
    lab::{Echo, TIMEOUT, ask, at, connect, udp, until_answered, until_silent},
    transfer,
};

/// The part of the packets into a tunnel whose outer header must be a repeated one.
const SHARE: f64 = 0.9;
/// Within this time of a change the kernel decides again: the promise is a second, and the rest is for the machine.
const SOON: Duration = Duration::from_millis(2500);

/// Both hosts with netfast. In the order of dropping: netfast before its namespace.
struct World {
    netfast: [NetfastProc; 2],
    hosts: Hosts,
}

impl World {
    fn start(kind: Kind) -> Self {
        Self::with(kind, "noudpcsum")
    }

    fn with(kind: Kind, options: &str) -> Self {
        Self::configured(kind, options, "learn_after = 0\ntunnels = true\n")
    }

    fn configured(kind: Kind, options: &str, config: &str) -> Self {
        let hosts = Hosts::new(kind, options).expect("two hosts");
        let netfast = [0, 1].map(|number: usize| {
            let host: &Host = &hosts.hosts[number];
            host.ns
                .sh(&format!("busybox ping -c1 -W5 {}", host.container_ip))
                .expect("the container answers");
            let options = Options {
                config: Some(config.into()),
                ..Options::no_runtime()
            };
            NetfastProc::start(&host.ns, options).expect("netfast starts")
        });
        Self { netfast, hosts }
    }

    fn host(&self, number: usize) -> &Host {
        &self.hosts.hosts[number]
    }

    /// What `netfast check` says of the near host.
    fn check(&self) -> String {
        let config = self.netfast[0].run_dir().join("netfast.toml").display().to_string();
        let arguments = ["check", "--runtime", "none", "--config", &config];
        self.netfast[0].verb(&arguments).expect("netfast can run here")
    }

    fn count(&self, number: usize, reason: Reason) -> u64 {
        let tables = Tables::open(self.netfast[number].pin_dir()).expect("the maps are pinned");
        tables.reasons().expect("the counts")[reason.number() as usize].packets
    }

    /// Packets into the tunnel of a host so far: with a repeated outer header, and with one of the kernel's.
    fn sent(&self, number: usize) -> (u64, u64) {
        let by_kernel = self
            .host(number)
            .ns
            .sh(&format!("cat /proc/thread-self/net/dev | grep {TUNNEL}"))
            .expect("its counters");
        let words: Vec<&str> = by_kernel.split_whitespace().collect();
        (
            self.count(number, Reason::Encapsulated),
            words[10].parse().expect("a number"),
        )
    }

    /// Enough was repeated since then.
    fn check_share(&self, number: usize, before: (u64, u64), at_least: u64) {
        let now = self.sent(number);
        let (repeated, written) = (now.0 - before.0, now.1 - before.1);
        let share = repeated as f64 / (repeated + written) as f64;
        assert!(
            repeated >= at_least && share > SHARE,
            "host {number}: {repeated} outer headers were repeated, and {written} written by the kernel ({} learned, {} odd)",
            self.count(number, Reason::OuterLearned),
            self.count(number, Reason::OuterOdd),
        );
    }

    /// Asks until outer headers are repeated on both hosts.
    fn warm(&self, socket: &UdpSocket) {
        cmd::poll("outer headers that are repeated", TIMEOUT, || {
            let before = [0, 1].map(|number| self.count(number, Reason::Encapsulated));
            let answered = (0..4).filter(|_| ask(socket)).count();
            let now = [0, 1].map(|number| self.count(number, Reason::Encapsulated));
            (answered == 4 && now[0] >= before[0] + 4 && now[1] >= before[1] + 4).then_some(())
        })
        .expect("they are learned");
    }
}

/// TCP both ways at once, exact.
fn bulk(world: &World) {
    let far = world.host(1);
    transfer::bulk(
        &world.host(0).container,
        at(far.container_ip, 7001),
        &far.container,
        7001,
    );
}

/// Datagrams one after the other: all counted.
fn datagrams(world: &World) {
    let far = world.host(1);
    let to = at(far.container_ip, 7001);
    transfer::datagrams(&world.host(0).container, to, &far.container, 7001, 5000);
}

/// Pings one after the other: each is answered, and their outer headers are repeated.
fn pings(world: &World) {
    let before = world.sent(0);
    let far = world.host(1).container_ip;
    world
        .host(0)
        .container
        .sh(&format!("busybox ping -c30 -i0.02 -W5 {far}"))
        .expect("every request is answered");
    assert!(world.sent(0).0 >= before.0 + 20, "echo takes the same way");
}

/// A change stops what it must within the time that is promised.
fn silent_soon(socket: &UdpSocket, what: &str) {
    let begin = Instant::now();
    until_silent(socket, what);
    assert!(begin.elapsed() < SOON, "{what}: {:?}", begin.elapsed());
}

fn both(kind: Kind) {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let world = World::start(kind);
    let before = [0, 1].map(|number| world.sent(number));
    bulk(&world);
    for number in [0, 1] {
        world.check_share(number, before[number], 100);
    }
    let before = world.sent(0);
    datagrams(&world);
    world.check_share(0, before, 1000);
    pings(&world);
}

#[test]
fn data_by_a_route_is_exact_and_its_outer_headers_are_repeated() {
    both(Kind::Routed);
}

#[test]
fn data_by_a_bridge_is_exact_and_its_outer_headers_are_repeated() {
    both(Kind::Bridged);
}

/// A conversation that is warm, on both sides.
fn conversation(kind: Kind) -> Option<(World, Echo, UdpSocket)> {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return None;
    }
    let world = World::start(kind);
    let echo = Echo::start(&world.host(1).container, 7002);
    let socket = udp(&world.host(0).container, 0, at(world.host(1).container_ip, 7002));
    world.warm(&socket);
    Some((world, echo, socket))
}

/// A rule that drops outer packets holds at once, and the conversation goes on when it is gone.
#[test]
fn a_rule_of_the_hosts_output_stops_outer_packets() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let ns = &world.host(0).ns;
    for (add, delete) in [
        ("-I OUTPUT", "-D OUTPUT"),
        ("-t mangle -I POSTROUTING", "-t mangle -D POSTROUTING"),
    ] {
        let rule = format!("-p udp --dport {PORT} -j DROP");
        ns.sh(&format!("iptables -w {add} {rule}")).expect("a rule");
        silent_soon(&socket, &format!("{add}: the rule holds"));
        ns.sh(&format!("iptables -w {delete} {rule}")).expect("no rule");
        until_answered(&socket, "the rule is gone");
    }
    world.warm(&socket);
}

/// A rule for outer packets that must see each one.
const LIMIT: &str = "-m limit --limit 10000/s --limit-burst 10000 -j ACCEPT";

/// Adds that rule to a chain, and waits until the fast path, which counts its packets by `reason`, leaves them to the kernel.
fn limit_in(world: &World, socket: &UdpSocket, chain: &str, reason: Reason) {
    let rule = format!("iptables -w -I {chain} -p udp --dport {PORT} {LIMIT}");
    world.host(0).ns.sh(&rule).expect("a rule");
    cmd::poll("the kernel has outer headers to itself", TIMEOUT, || {
        let before = world.count(0, reason);
        let answered = (0..8).filter(|_| ask(socket)).count();
        (answered == 8 && world.count(0, reason) == before).then_some(())
    })
    .expect("the rule must see each");
}

/// One that must see each packet keeps the kernel writing all headers.
#[test]
fn a_rule_that_judges_by_the_packet_sees_every_outer_packet() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let ns = &world.host(0).ns;
    limit_in(&world, &socket, "OUTPUT", Reason::Encapsulated);
    let said = world.check();
    assert!(said.contains("must see every outer packet"), "{said}");
    let counted = |ns: &NsHandle| -> u64 {
        let listed = ns.sh("iptables -w -nvxL OUTPUT").expect("rules");
        let rule = listed
            .lines()
            .find(|line| line.contains("limit"))
            .expect("the rule")
            .to_owned();
        rule.split_whitespace()
            .next()
            .expect("a count")
            .parse()
            .expect("a number")
    };
    let before = counted(ns);
    let answered = (0..50).filter(|_| ask(&socket)).count();
    assert!(answered == 50 && counted(ns) >= before + 50, "{before} {}", counted(ns));
}

/// The other end of the tunnel moves to another address.
#[test]
fn another_end_is_noticed_within_a_second() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let far = &world.host(1).ns;
    far.ip("addr add 198.18.0.77/24 dev eth0").expect("an address");
    far.sh(&format!(
        "iptables -w -I INPUT -d 198.18.0.77 -p udp --dport {PORT} -j ACCEPT; \
         iptables -w -I INPUT -d {} -p udp --dport {PORT} -j ACCEPT",
        world.host(1).ip
    ))
    .expect("rules that count");
    // The tunnel of the far host takes what is for any of its addresses only if it is told none.
    let counted = |address: &str| -> u64 {
        let listed = far.sh("iptables -w -nvxL INPUT").expect("rules");
        let rule = listed
            .lines()
            .find(|line| line.contains(&format!(" {address} ")))
            .expect("the rule")
            .to_owned();
        rule.split_whitespace()
            .next()
            .expect("a count")
            .parse()
            .expect("a number")
    };
    let near = &world.host(0).ns;
    near.sh(&format!(
        "bridge fdb replace {} dev {TUNNEL} dst 198.18.0.77 self permanent",
        tunnel_mac(1)
    ))
    .expect("another end");
    let begin = Instant::now();
    cmd::poll("the other end", TIMEOUT, || {
        let before = (counted("198.18.0.77"), counted(&world.host(1).ip.to_string()));
        for _ in 0..4 {
            ask(&socket);
        }
        let now = (counted("198.18.0.77"), counted(&world.host(1).ip.to_string()));
        (now.0 > before.0 && now.1 == before.1).then_some(())
    })
    .expect("packets go there");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

/// A smaller MTU on the way of outer packets: the kernel answers, and data arrives whole.
#[test]
fn a_smaller_mtu_for_outer_packets() {
    let Some((world, _echo, _socket)) = conversation(Kind::Routed) else {
        return;
    };
    let far = world.host(1).ip;
    let ns = &world.host(0).ns;
    bulk(&world);
    ns.ip(&format!("route add {far}/32 dev eth0 mtu lock 1200"))
        .expect("a route");
    bulk(&world);
    ns.ip(&format!("route del {far}/32")).expect("no route");
    let before = world.sent(0);
    bulk(&world);
    world.check_share(0, before, 50);
}

/// Programs on an interface, in their order.
fn programs_at(ns: &NsHandle, interface: &str) -> Vec<String> {
    let attached = ns
        .run(|| attached(interface))
        .expect("entered")
        .expect("they are listed");
    attached.into_iter().map(|program| program.name).collect()
}

/// netfast goes away in the middle of a conversation, and comes again.
#[test]
fn detach_ends_no_connection() {
    let Some((world, _echo, socket)) = conversation(Kind::Bridged) else {
        return;
    };
    let (near, far) = (world.host(0), world.host(1));
    let (mut client, mut server) = connect(&near.container, at(far.container_ip, 7003), &far.container, 7003);
    let mut talk = |times: usize| {
        let mut buffer = [0; 1000];
        for _ in 0..times {
            client.write_all(&[b'q'; 1000]).expect("sent");
            server.read_exact(&mut buffer).expect("received");
            server.write_all(&[b'a'; 1000]).expect("sent");
            client.read_exact(&mut buffer).expect("received");
        }
    };
    talk(50);
    for (number, netfast) in world.netfast.iter().enumerate() {
        let ns = &world.host(number).ns;
        assert_eq!(
            programs_at(ns, TUNNEL),
            ["netfast_tun_got", "netfast_up_in", "netfast_up_out", "netfast_tun_out"]
        );
        assert_eq!(
            programs_at(ns, "eth0"),
            ["netfast_tun_in", "netfast_up_in", "netfast_tun_up", "netfast_up_out"]
        );
        netfast.detach().expect("detached");
        talk(50);
        assert!(programs_at(ns, TUNNEL).is_empty() && programs_at(ns, "eth0").is_empty());
    }
    assert!(ask(&socket));
}

/// Tunnels whose outer headers are not repeated work as ever.
#[test]
fn tunnels_that_are_left_to_the_kernel() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    for (options, why) in [
        ("noudpcsum ttl inherit", "ttl inherit"),
        ("noudpcsum gbp", "group policies"),
    ] {
        let world = World::with(Kind::Routed, options);
        let _echo = Echo::start(&world.host(1).container, 7002);
        let socket = udp(&world.host(0).container, 0, at(world.host(1).container_ip, 7002));
        cmd::poll("answers", TIMEOUT, || ask(&socket).then_some(())).expect("an answer");
        assert_eq!((0..100).filter(|_| ask(&socket)).count(), 100, "{options}");
        assert_eq!(world.count(0, Reason::Encapsulated), 0, "{options}");
        let said = world.check();
        assert!(said.contains(why), "{options}: {said}");
    }
}

/// The tunnel's device goes in the middle of a conversation and comes again.
#[test]
fn a_tunnel_that_goes_and_comes_again() {
    let Some((world, _echo, socket)) = conversation(Kind::Bridged) else {
        return;
    };
    let ns = &world.host(0).ns;
    ns.ip(&format!("link set {TUNNEL} down")).expect("down");
    silent_soon(&socket, "the tunnel is down");
    ns.ip(&format!("link set {TUNNEL} up")).expect("up");
    until_answered(&socket, "the tunnel is up");
    world.warm(&socket);
    thread::sleep(Duration::from_millis(1100));
    assert!(ask(&socket), "it asks the kernel and goes on");
}
